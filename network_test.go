package treecast_test

import (
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// A network has hosts for some of a cluster's processes: network namespaces,
// each with a cable to a switch, which has the broker's address.
type network struct {
	prefix string // of all names in the kernel: 7 bytes
	hosts  []string
}

// addHosts puts the named processes on hosts of their own. Nothing may run yet.
func (c *cluster) addHosts(names []string) error {
	u, err := url.Parse(c.url)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		return err
	}
	// Stories at the same time have other ports, and so other names and addresses.
	n := &network{prefix: fmt.Sprintf("tc%05d", port)}
	address := func(host int) string {
		return fmt.Sprintf("10.%d.%d.%d", 128+port>>9, port>>1&255, port&1<<7|host)
	}
	c.network = n
	c.url = fmt.Sprintf("nats://%s:%d", address(1), port)
	err = ip(
		"link add "+n.prefix+" type bridge",
		"addr add "+address(1)+"/25 dev "+n.prefix,
		"link set "+n.prefix+" up")
	for i, name := range names {
		n.hosts = append(n.hosts, name)
		ns := n.namespace(name)
		err = errors.Join(err, ip(
			"netns add "+ns,
			"link add "+n.cable(name)+" type veth peer name eth0 netns "+ns,
			"link set "+n.cable(name)+" master "+n.prefix+" up",
			"-n "+ns+" addr add "+address(i+2)+"/25 dev eth0",
			"-n "+ns+" link set eth0 up"))
	}
	return err
}

func (n *network) namespace(host string) string { return n.prefix + "-" + host }

// cable is the switch's end of a host's cable.
func (n *network) cable(host string) string {
	return fmt.Sprintf("%s.%d", n.prefix, slices.Index(n.hosts, host))
}

// cut has everything to and from a host vanish: neither side is told.
func (n *network) cut(host string) error { return ip("link set " + n.cable(host) + " nomaster") }

// splice undoes cut.
func (n *network) splice(host string) error {
	return ip("link set " + n.cable(host) + " master " + n.prefix)
}

// limit lets no more through a host's cable, each way, than rate, as in 1mbit.
func (n *network) limit(host, rate string) error {
	line := " root tbf rate " + rate + " burst 4kb latency 500ms"
	return errors.Join(
		run("tc", "qdisc replace dev "+n.cable(host)+line),
		run("tc", "-n "+n.namespace(host)+" qdisc replace dev eth0"+line))
}

// inside returns the command that runs one on a host, if it has one.
func (n *network) inside(host string, command []string) []string {
	if n == nil || !slices.Contains(n.hosts, host) {
		return command
	}
	return append([]string{"ip", "netns", "exec", n.namespace(host)}, command...)
}

// remove takes the network away, as far as it is there.
func (n *network) remove() error {
	if n == nil {
		return nil
	}
	err := ip("link del " + n.prefix)
	for _, host := range n.hosts {
		err = errors.Join(err, ip("netns del "+n.namespace(host)))
	}
	return err
}

func ip(lines ...string) error {
	for _, line := range lines {
		if err := run("ip", line); err != nil {
			return err
		}
	}
	return nil
}

func run(command, args string) error {
	if out, err := exec.Command(command, strings.Fields(args)...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", command, args, err, out)
	}
	return nil
}
