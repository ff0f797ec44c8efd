package rig

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
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
func (c *Treecast) StartPublisher(ctx context.Context) (*Daemon, error) {
	return c.run(ctx, "publisher", "publisher", "publisher", publisherArgs(c.listen, c.Trees.Source))
}

// StartNode starts the subscriber of a node's tree.
func (c *Treecast) StartNode(ctx context.Context, root string) (*Daemon, error) {
	name := filepath.Base(root)
	return c.run(ctx, "node", name, "subscriber", subscriberArgs(c.listen, name, root))
}

func (c *Treecast) run(ctx context.Context, role, name, command string, args []string) (*Daemon, error) {
	return c.Daemons.Start(ctx, role, name, filepath.Join(c.Bin, command), args...)
}

// Wait returns when all that is at the source is on all nodes, by publisher
// wait, which may be told to have the whole tree looked at. It waits for a
// publisher that still starts; the error has what was said last.
func (c *Treecast) Wait(ctx context.Context, scan bool, patience time.Duration) error {
	for deadline := time.Now().Add(patience); ; {
		args := []string{"wait", "--nats", "nats://" + c.listen, "--site", Site, "--timeout", max(time.Until(deadline), time.Second).String()}
		if scan {
			args = append(args, "--scan")
		}
		out, err := Program(ctx, filepath.Join(c.Bin, "publisher"), args...).CombinedOutput()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case time.Now().After(deadline):
			return fmt.Errorf("publisher wait: %w: %s", ErrLate, out)
		case exitCode(err) != nobodyAnswers:
			return fmt.Errorf("publisher wait: %w: %s", err, out)
		}
		if err := Sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

const nobodyAnswers = 2 // the exit code of publisher wait

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}
