package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"treecast/bench/internal/rig"
)

// rsync is a daemon on each node, and for each change one rsync to each of them,
// all at once: the loop in its kindest form.
type rsync struct {
	daemons *rig.Daemons
	trees   rig.Trees
	urls    []string // of the nodes' trees
	moved   int64    // bytes, so far
	memory  int64    // bytes, the most that a client had
}

// rsyncArgs has what the loop has. Without --modify-window=-1 rsync compares
// whole seconds, and does not see a change that leaves the size within one.
func rsyncArgs(source, url string) []string {
	return []string{"-az", "--delete", "--modify-window=-1", "--stats", source + "/", url}
}

func rsyncNotes() []string {
	return []string{
		"rsync " + strings.Join(rsyncArgs("SOURCE", "rsync://HOST:PORT/tree/"), " ") + " (after each change, a process for each node, all in parallel; the clock stops when all have ended)",
		rig.RsyncdNote,
		"bytes: sent and received, of the clients' --stats",
		"memory: VmHWM of the clients, looked at every 5 ms",
	}
}

func (r *rsync) start(ctx context.Context) error {
	for _, root := range r.trees.Nodes {
		node, err := rig.NewRsyncd(ctx, root)
		if err != nil {
			return err
		}
		if _, err := node.Start(ctx, r.daemons); err != nil {
			return err
		}
		r.urls = append(r.urls, node.URL)
	}
	return nil
}

func (r *rsync) carry(ctx context.Context, _ step) error {
	type outcome struct{ moved, memory int64 }
	outcomes := make([]outcome, len(r.urls))
	g, ctx := errgroup.WithContext(ctx)
	for i, url := range r.urls {
		g.Go(func() error {
			moved, memory, err := push(ctx, r.trees.Source, url)
			outcomes[i] = outcome{moved, memory}
			return err
		})
	}
	err := g.Wait()
	for _, o := range outcomes {
		r.moved += o.moved
		r.memory = max(r.memory, o.memory)
	}
	return err
}

// push runs one rsync, and returns what it says that it moved, and its memory.
func push(ctx context.Context, source, url string) (moved, memory int64, err error) {
	cmd := rig.Program(ctx, "rsync", rsyncArgs(source, url)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }() // ends with the process, which we wait for
	for {
		select {
		case err := <-done:
			if err != nil {
				return 0, 0, fmt.Errorf("rsync: %w\n%s", err, out.Bytes())
			}
			moved, err = parseStats(out.String())
			return moved, memory, err
		case <-time.After(5 * time.Millisecond):
			if n, err := rig.PeakMemory(cmd.Process.Pid); err == nil { // else it has just ended
				memory = max(memory, n)
			}
		}
	}
}

// parseStats returns the bytes that an rsync sent and received.
func parseStats(out string) (sum int64, err error) {
	found := 0
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if key != "Total bytes sent" && key != "Total bytes received" {
			continue
		}
		n, err := strconv.ParseInt(strings.ReplaceAll(value, ",", ""), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("rsync's %s: %w", key, err)
		}
		found++
		sum += n
	}
	if found != 2 {
		return 0, errors.New("rsync does not say how many bytes it sent and received")
	}
	return sum, nil
}

func (r *rsync) rest(context.Context) (traffic, error) { return traffic{bytes: known(r.moved)}, nil }

func (r *rsync) peaks() []peak { return []peak{{"client", r.memory}} }
