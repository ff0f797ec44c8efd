package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"treecast/bench/internal/rig"
)

// A sequence is one system with a number of nodes, once, through some works.
type sequence struct {
	*bench
	round int
	name  string // of the system
	works []work

	trees   rig.Trees
	daemons *rig.Daemons
	system  system
	nodes   []*rig.Daemon // nil where nothing runs
}

// run goes through the works, and keeps what was measured. That a system fails
// is a result, and no error.
func (q *sequence) run(parent context.Context, nodes int) (err error) {
	ctx, fail := context.WithCancelCause(parent)
	defer fail(nil)
	if q.trees, err = rig.NewTrees(filepath.Join(q.work, fmt.Sprintf("%s-%d", q.name, nodes)), nodes); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rig.RemoveAll(q.trees.Dir)) }()
	if out, err := rig.Program(ctx, "cp", "-a", q.base.dir+"/.", q.trees.Source).CombinedOutput(); err != nil {
		return fmt.Errorf("the tree: %w\n%s", err, out)
	}

	q.daemons = &rig.Daemons{Dir: q.trees.Dir, Fail: fail}
	q.system = byName(q.name).new(site{q.trees, q.daemons, q.bin})
	defer q.daemons.Stop()
	g, watching := errgroup.WithContext(ctx)
	g.Go(func() error { q.daemons.Watch(watching); return nil })
	defer func() { _ = g.Wait() }() // it has no error
	defer fail(nil)

	at := "first"
	step := func() error {
		if err := q.start(ctx); err != nil {
			return err
		}
		for _, w := range q.works {
			at = w.name
			fmt.Fprintf(q.stderr, "round %d of %d, %s, %d nodes: %s\n", q.round, q.Rounds, q.name, nodes, w.name)
			if err := q.do(ctx, w); err != nil {
				return err
			}
		}
		return nil
	}
	err = step()
	for role, most := range q.daemons.Peaks() {
		q.add("all", "memory "+role, float64(most))
	}
	if err == nil || parent.Err() != nil {
		return err
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx) // a daemon has ended
	}
	fmt.Fprintf(q.stderr, "%s, %s: %v\n", q.name, at, err)
	q.daemons.PrintLogs(q.stderr)
	q.results.fail(failure{q.key(at), outcome(err, q.Patience)})
	return nil
}

// outcome is what the table says of a failure.
func outcome(err error, patience time.Duration) string {
	var differs *rig.Difference
	switch {
	case errors.Is(err, rig.ErrLate):
		return fmt.Sprintf("not in %g s", patience.Seconds())
	case errors.As(err, &differs):
		return fmt.Sprintf("%d paths differ", strings.Count(differs.Items, "\n"))
	}
	return "failed"
}

func (q *sequence) start(ctx context.Context) error {
	if err := q.system.prepare(ctx); err != nil {
		return err
	}
	for i := range q.trees.Nodes {
		node, err := q.system.startNode(ctx, i)
		if err != nil {
			return err
		}
		q.nodes = append(q.nodes, node)
	}
	_, err := q.quiet(ctx)
	return err
}

func (q *sequence) key(work string) key {
	return key{round: q.round, system: q.name, nodes: len(q.trees.Nodes), work: work}
}

func (q *sequence) add(work, measure string, value float64) {
	q.results.add(sample{q.key(work), measure, value})
}

func (q *sequence) do(ctx context.Context, w work) error {
	if w.run != nil {
		return w.run(q, ctx)
	}
	c, err := w.change(q)
	if err != nil {
		return err
	}
	return q.measure(ctx, w.name, c)
}

// measure makes a change, and says what it took and what it cost.
func (q *sequence) measure(ctx context.Context, work string, c rig.Change) error {
	if err := rig.Flush(q.trees.Dir); err != nil {
		return err
	}
	before, err := q.spent()
	if err != nil {
		return err
	}
	took, err := q.carry(ctx, c)
	if err != nil {
		return err
	}
	q.add(work, "seconds", took.Seconds())
	return q.close(ctx, work, before, 1)
}

// close ends a work: when the system has come to rest, it says what each of a
// number of changes has cost since before, and has the trees judged.
func (q *sequence) close(ctx context.Context, work string, before cost, changes int) error {
	calm, err := q.quiet(ctx)
	if err != nil {
		return err
	}
	after, err := q.spent()
	if err != nil {
		return err
	}
	for role, used := range after.cpu {
		q.add(work, "cpu "+role, (used-before.cpu[role]).Seconds()/float64(changes))
	}
	q.add(work, "bytes", float64(after.bytes-before.bytes)/float64(changes))
	if !calm {
		q.add(work, "busy", 1)
	}
	return q.judge(ctx, work)
}

// judge has rsync compare the trees. What only differs in the times of
// directories is noted, and goes on: some do not carry them.
func (q *sequence) judge(ctx context.Context, work string) error {
	err := rig.Judge(ctx, q.trees, 2*time.Second)
	var differs *rig.Difference
	if errors.As(err, &differs) && !slices.ContainsFunc(strings.Split(strings.TrimSpace(differs.Items), "\n"), func(item string) bool {
		return !strings.HasPrefix(item, ".d..t...... ")
	}) {
		q.add(work, "directory times", 1)
		return nil
	}
	return err
}

// carry makes a change, and returns how long it took until all nodes had it.
func (q *sequence) carry(ctx context.Context, c rig.Change) (time.Duration, error) {
	return q.carryTo(ctx, q.trees.Nodes, c)
}

func (q *sequence) carryTo(ctx context.Context, nodes []string, c rig.Change) (time.Duration, error) {
	made := c
	made.Apply = func(ctx context.Context) error {
		if err := c.Apply(ctx); err != nil {
			return err
		}
		return q.system.carry(ctx, c)
	}
	return rig.Carry(ctx, q.trees.Source, nodes, made, q.Patience)
}

// A cost is what was used so far.
type cost struct {
	cpu   map[string]time.Duration // by role
	bytes int64                    // over the loopback
}

func (q *sequence) spent() (cost, error) {
	bytes, err := rig.Loopback()
	return cost{q.daemons.CPU(), bytes}, err
}

// quiet waits until the system rests, or for the time that it is given: then it
// reports false.
func (q *sequence) quiet(ctx context.Context) (calm bool, err error) {
	return q.daemons.Quiet(ctx, q.Settle)
}
