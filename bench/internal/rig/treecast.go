package rig

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// Site is the name of the tree.
const Site = "web"

// Build makes the three commands in dir, from the module that we are run in.
func Build(ctx context.Context, dir string) error {
	cmd := Program(ctx, "go", "build", "-trimpath", "-buildvcs=auto", "-o", dir+"/", "treecast/cmd/...")
	cmd.Env = append(cmd.Env, "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); ctx.Err() != nil {
		return context.Cause(ctx)
	} else if err != nil {
		return fmt.Errorf("go build, which must be in the repository: %w\n%s", err, out)
	}
	return nil
}

// Treecast is a broker, a publisher and nodes as they are by default.
type Treecast struct {
	Daemons *Daemons
	Trees   Trees
	Bin     string // the directory with the commands

	Monitor string // the broker's, http://HOST:PORT
	listen  string
}

func brokerArgs(store, listen, monitor string) []string {
	return []string{"--store-dir", store, "--listen", listen, "--monitor", monitor}
}

func publisherArgs(broker, root string) []string {
	return []string{"--nats", "nats://" + broker, "--site", Site, "--root", root}
}

func subscriberArgs(broker, node, root string) []string {
	return []string{"--nats", "nats://" + broker, "--site", Site, "--node", node, "--root", root}
}

// TreecastNotes say how each process is run.
func TreecastNotes() []string {
	return []string{
		"embedded-broker " + strings.Join(brokerArgs("DIR", "HOST:PORT", "HOST:PORT"), " "),
		"publisher " + strings.Join(publisherArgs("HOST:PORT", "SOURCE"), " "),
		"subscriber " + strings.Join(subscriberArgs("HOST:PORT", "NODE", "NODE"), " ") + " (a process for each node)",
	}
}

// StartBroker starts the broker, and returns when it takes connections.
func (c *Treecast) StartBroker(ctx context.Context) (err error) {
	if c.listen, err = FreeAddr(ctx); err != nil {
		return err
	}
	monitor, err := FreeAddr(ctx)
	if err != nil {
		return err
	}
	c.Monitor = "http://" + monitor
	if _, err := c.run(ctx, "broker", "broker", "embedded-broker", brokerArgs(filepath.Join(c.Trees.Dir, "store"), c.listen, monitor)); err != nil {
		return err
	}
	for _, addr := range []string{c.listen, monitor} {
		if err := Listens(ctx, addr); err != nil {
			return err
		}
	}
	return nil
}

// StartPublisher starts the publisher.
func (c *Treecast) StartPublisher(ctx context.Context) error {
	_, err := c.run(ctx, "publisher", "publisher", "publisher", publisherArgs(c.listen, c.Trees.Source))
	return err
}

// StartNode starts the subscriber of a node's tree.
func (c *Treecast) StartNode(ctx context.Context, root string) (*Daemon, error) {
	name := filepath.Base(root)
	return c.run(ctx, "node", name, "subscriber", subscriberArgs(c.listen, name, root))
}

func (c *Treecast) run(ctx context.Context, role, name, command string, args []string) (*Daemon, error) {
	return c.Daemons.Start(ctx, role, name, filepath.Join(c.Bin, command), args...)
}
