package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"treecast/bench/internal/rig"
)

// A sequence is a number of nodes and a tree, once, through some works.
type sequence struct {
	*bench
	part   string
	layout layout
	count  int // of nodes
	works  []work

	rig.Treecast
	publisher *rig.Daemon
	nodes     []*rig.Daemon
	paths     int // of the tree, after the first sync
}

// A work is what is measured as one.
type work struct {
	name string
	// prepare does what the clock is not to see, and returns what it is to see.
	prepare func(*sequence, context.Context) (task, error)
	judged  bool // rsync compares the trees behind it
}

// A task is a work that was prepared.
type task struct {
	changes int // the paths that it is about, or 0 where do tells them as times
	do      func(context.Context) (outcome, error)
}

// An outcome is what a task has found.
type outcome struct {
	took    []time.Duration // until the last node had it: once, or of each change
	changes int             // if not known before
}

// run goes through the works, and keeps what was measured.
func (q *sequence) run(parent context.Context) (err error) {
	ctx, fail := context.WithCancelCause(parent)
	defer fail(nil)
	if q.Trees, err = rig.NewTrees(filepath.Join(q.work, "trees"), q.count); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rig.RemoveAll(q.Trees.Dir)) }()
	fmt.Fprintf(q.stderr, "%d files, %d nodes\n", q.layout.files, q.count)
	if err := q.layout.generate(q.Trees.Source, int64(q.Size)); err != nil {
		return err
	}
	q.Daemons, q.Bin = &rig.Daemons{Dir: q.Trees.Dir, Fail: fail}, q.bin
	defer q.Daemons.Stop()

	at := "start"
	step := func() error {
		if err := q.start(ctx); err != nil {
			return err
		}
		for _, w := range q.works {
			at = w.name
			fmt.Fprintf(q.stderr, "%d files, %d nodes: %s\n", q.layout.files, q.count, w.name)
			if err := q.measure(ctx, w); err != nil {
				return err
			}
		}
		return nil
	}
	if err = step(); err == nil || parent.Err() != nil {
		return err
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx) // a daemon has ended
	}
	if errors.Is(err, rig.ErrLate) {
		err = fmt.Errorf("%w: not done after %v; see --patience, and the logs above", err, q.Patience)
	}
	q.Daemons.PrintLogs(q.stderr)
	return fmt.Errorf("%d files, %d nodes: %s: %w", q.layout.files, q.count, at, err)
}

// start starts all but the publisher.
func (q *sequence) start(ctx context.Context) error {
	if err := q.StartBroker(ctx); err != nil {
		return err
	}
	if err := q.startNodes(ctx); err != nil {
		return err
	}
	_, err := q.Daemons.Quiet(ctx, q.Settle)
	return err
}

func (q *sequence) startNodes(ctx context.Context) error {
	q.nodes = nil
	for _, root := range q.Trees.Nodes {
		node, err := q.StartNode(ctx, root)
		if err != nil {
			return err
		}
		q.nodes = append(q.nodes, node)
	}
	return nil
}

func (q *sequence) startPublisher(ctx context.Context) (err error) {
	q.publisher, err = q.StartPublisher(ctx)
	return err
}

// measure does a work, and keeps what it took, what it cost and what memory
// there is then.
func (q *sequence) measure(ctx context.Context, w work) error {
	t, err := w.prepare(q, ctx)
	if err != nil {
		return err
	}
	if err := rig.Flush(q.Trees.Dir); err != nil {
		return err
	}
	if err := q.Daemons.ResetPeaks(); err != nil {
		return err
	}
	before := q.Daemons.CPU()
	got, err := t.do(ctx)
	if err != nil {
		return err
	}
	calm, err := q.Daemons.Quiet(ctx, q.Settle)
	if err != nil {
		return err
	}
	m := measurement{
		part: q.part, files: q.layout.files, nodes: q.count, work: w.name,
		changes: max(t.changes, got.changes), paths: q.paths, took: got.took, busy: !calm,
		cpu: q.Daemons.CPU(), peak: q.Daemons.Peaks(),
	}
	for role := range m.cpu {
		m.cpu[role] -= before[role]
	}
	m.cpu["node"] /= time.Duration(q.count)
	if m.rss, err = q.Daemons.Resident(); err != nil {
		return err
	}
	if m.watches, err = rig.InotifyWatches(q.publisher.Pid); err != nil {
		return err
	}
	q.results.all = append(q.results.all, m)
	if w.judged {
		return rig.Judge(ctx, q.Trees, 10*time.Second)
	}
	return nil
}

// load makes changes that all nodes are to get.
func (q *sequence) load() rig.Load { return rig.Load{Source: q.Trees.Source, Carry: q.carry} }

func (q *sequence) carry(ctx context.Context, c rig.Change) (time.Duration, error) {
	return rig.Carry(ctx, q.Trees.Source, q.Trees.Nodes, c, q.Patience)
}

// one is a task of one change.
func (q *sequence) one(changes int, c rig.Change) task {
	return task{changes, func(ctx context.Context) (outcome, error) {
		took, err := q.carry(ctx, c)
		return outcome{took: []time.Duration{took}}, err
	}}
}

// settled is a task that changes nothing: it ends when the publisher has looked
// at the whole tree, and all nodes have said that they have it.
func (q *sequence) settled(scan bool, start func(context.Context) error) task {
	return task{q.paths, func(ctx context.Context) (outcome, error) {
		begin := time.Now()
		if err := start(ctx); err != nil {
			return outcome{}, err
		}
		err := q.Wait(ctx, scan, q.Patience)
		return outcome{took: []time.Duration{time.Since(begin)}}, err
	}}
}

// stop ends daemons, all at once.
func stop(all ...*rig.Daemon) {
	var g errgroup.Group
	for _, d := range all {
		g.Go(func() error { d.Stop(); return nil })
	}
	_ = g.Wait() // it has no error
}
