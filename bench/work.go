package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"treecast/bench/internal/rig"
)

// A change is one change at the source. Its paths are the topmost ones: what is
// below them changes with them.
type change struct {
	present []string // what it makes or alters
	absent  []string // and what it takes away
	apply   func(ctx context.Context) error
}

// A work is what is measured as one: a change, or what is more than that.
type work struct {
	name   string
	needs  string // the work that must come before, "" for none but the first
	change func(q *sequence) (change, error)
	run    func(*sequence, context.Context) error
}

// works are in the order in which they are done. Each goes on with what those
// before have left.
var works = []work{
	{name: "first", change: (*sequence).first},
	{name: "single", run: (*sequence).single},
	{name: "rewrite", change: func(q *sequence) (change, error) {
		return q.rewrite(q.base.share(2000), "r")
	}},
	{name: "writers", change: (*sequence).writers},
	{name: "log", run: (*sequence).log},
	{name: "directory", change: func(q *sequence) (change, error) {
		from := filepath.Join(q.trees.Beside, bulk)
		return change{present: []string{bulk}, apply: func(ctx context.Context) error {
			return rig.Program(ctx, "cp", "-a", from, q.trees.Source).Run()
		}}, generate(from, 2, q.base.share(5064), q.base.sizeBytes*5064/11478)
	}},
	{name: "rename", needs: "directory", change: func(q *sequence) (change, error) {
		return change{present: []string{moved}, absent: []string{bulk}, apply: func(context.Context) error {
			return os.Rename(filepath.Join(q.trees.Source, bulk), filepath.Join(q.trees.Source, moved))
		}}, nil
	}},
	{name: "remove", needs: "rename", change: func(q *sequence) (change, error) {
		return change{absent: []string{moved}, apply: func(context.Context) error {
			return os.RemoveAll(filepath.Join(q.trees.Source, moved))
		}}, nil
	}},
	{name: "large", change: func(q *sequence) (change, error) {
		put, err := q.trees.Replace(large, func(f *os.File) error {
			_, err := io.Copy(f, rig.Content("random", 3, int64(q.Size)))
			return err
		})
		return change{present: []string{large}, apply: func(context.Context) error { return put() }}, err
	}},
	{name: "insert", needs: "large", change: func(q *sequence) (change, error) {
		put, err := q.trees.Replace(large, func(f *os.File) error {
			if _, err := f.WriteString("+"); err != nil {
				return err
			}
			return q.trees.CopyTo(f, large)
		})
		return change{present: []string{large}, apply: func(context.Context) error { return put() }}, err
	}},
	{name: "append", needs: "large", change: func(q *sequence) (change, error) {
		more, err := io.ReadAll(rig.Content("random", 4, 4<<10))
		return change{present: []string{large}, apply: func(context.Context) error { return q.trees.Append(large, more) }}, err
	}},
	{name: "rest", run: (*sequence).rest},
	{name: "back", run: (*sequence).back},
}

const (
	bulk  = "bulk" // the new directory
	moved = "moved"
	large = "large.bin"
)

// A row is a line of the table: a measure of a work.
type row struct {
	work, measure string
	title         string // of the work
}

// label tells the rows of one work apart.
func (r row) label() string {
	if r.measure == "p50" || r.measure == "p99" {
		return r.title + ", " + r.measure
	}
	return r.title
}

// rows are the lines of the table, for a tree and the options.
func (c *command) rows(b base) []row {
	all := []row{
		{"first", "seconds", fmt.Sprintf("first sync of all nodes (%d files, %v)", len(b.files), rig.Size(b.sizeBytes))},
		{"single", "p50", "one 4 KiB file"},
		{"single", "p99", "one 4 KiB file"},
		{"rewrite", "seconds", fmt.Sprintf("%d files rewritten", b.share(2000))},
		{"writers", "seconds", fmt.Sprintf("%d files by %d writers at once", writers*b.share(50), writers)},
		{"log", "seconds", fmt.Sprintf("the end of a file appended every 10 ms for %g s", c.Log.Seconds())},
		{"directory", "seconds", fmt.Sprintf("new directory of %d files", b.share(5064))},
		{"rename", "seconds", "rename of that directory"},
		{"remove", "seconds", "rm -r of it"},
		{"large", "seconds", fmt.Sprintf("new %v file", c.Size)},
		{"insert", "seconds", "one byte inserted at its front"},
		{"append", "seconds", "4 KiB appended to it"},
		{"rest", "cpu", fmt.Sprintf("at rest, CPU of %g s (all processes)", c.Rest.Seconds())},
		{"back", "seconds", fmt.Sprintf("node back after %d rounds over %d files", rounds, b.share(1000))},
	}
	return slices.DeleteFunc(all, func(r row) bool { return !slices.Contains(c.Works, r.work) })
}

// first starts the source's side, where the tree is already, beside nodes that
// are empty and wait.
func (q *sequence) first() (change, error) {
	return change{present: []string{"."}, apply: q.system.startSource}, nil
}

// single writes new files, one after the other, each a while after the one
// before has arrived.
func (q *sequence) single(ctx context.Context) error {
	const most, pause = time.Minute, 100 * time.Millisecond
	if err := os.MkdirAll(filepath.Join(q.trees.Source, "single"), 0o755); err != nil {
		return err
	}
	// So that the directory is there, and its watch with it.
	if _, err := q.carry(ctx, change{present: []string{"single"}, apply: func(context.Context) error { return nil }}); err != nil {
		return err
	}
	if _, err := q.quiet(ctx); err != nil {
		return err
	}
	var all []time.Duration
	before, err := q.spent()
	if err != nil {
		return err
	}
	body := make([]byte, 4<<10)
	text := rig.Content("text", 5, int64(len(body)*q.Singles))
	for start := time.Now(); len(all) < q.Singles && time.Since(start) < most; {
		if _, err := io.ReadFull(text, body); err != nil {
			return err
		}
		name := filepath.Join("single", fmt.Sprintf("f%d.html", len(all)))
		took, err := q.carry(ctx, change{present: []string{name}, apply: func(context.Context) error {
			return os.WriteFile(filepath.Join(q.trees.Source, name), body, 0o644)
		}})
		if err != nil {
			return err
		}
		all = append(all, took)
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
	q.add("single", "p50", rig.Median(all).Seconds())
	q.add("single", "p99", rig.Quantile(all, 0.99).Seconds())
	q.add("single", "changes", float64(len(all)))
	return q.close(ctx, "single", before, len(all))
}

const writers = 32

// writers write new files at the same time, each into a directory of its own.
func (q *sequence) writers() (change, error) {
	n := q.base.share(50)
	body, err := io.ReadAll(rig.Content("text", 6, 4<<10))
	return change{present: []string{"writers"}, apply: func(context.Context) error {
		var g errgroup.Group
		for i := range writers {
			g.Go(func() error {
				dir := filepath.Join(q.trees.Source, "writers", fmt.Sprint(i))
				err := os.MkdirAll(dir, 0o755)
				for j := 0; j < n && err == nil; j++ {
					err = os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d.html", j)), body, 0o644)
				}
				return err
			})
		}
		return g.Wait()
	}}, err
}

// log appends to a file all the time, as a program does to its log, and measures
// when the end of it has arrived.
func (q *sequence) log(ctx context.Context) error {
	const name, pause = "log.txt", 10 * time.Millisecond
	line, err := io.ReadAll(rig.Content("text", 7, 120))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(q.trees.Source, name), line, 0o644); err != nil {
		return err
	}
	if err := rig.Flush(q.trees.Dir); err != nil {
		return err
	}
	before, err := q.spent()
	if err != nil {
		return err
	}
	appends := 1
	for start := time.Now(); time.Since(start) < q.Log; appends++ {
		if err := q.trees.Append(name, line); err != nil {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
	took, err := q.carry(ctx, change{present: []string{name}, apply: func(context.Context) error { return q.trees.Append(name, line) }})
	if err != nil {
		return err
	}
	q.add("log", "seconds", took.Seconds())
	return q.close(ctx, "log", before, appends)
}

// rest looks at the CPU time of all processes while nothing changes.
func (q *sequence) rest(ctx context.Context) error {
	before := q.daemons.CPU()
	if err := sleep(ctx, q.Rest); err != nil {
		return err
	}
	var sum time.Duration
	for role, used := range q.daemons.CPU() {
		sum += used - before[role]
	}
	q.add("rest", "cpu", sum.Seconds())
	return nil
}

const rounds = 5 // that a node misses

// back stops a node, changes the same files again and again, and measures how
// long the node takes from its start on.
func (q *sequence) back(ctx context.Context) error {
	last := len(q.trees.Nodes) - 1
	if q.nodes[last] == nil {
		return nil // nothing runs there
	}
	q.nodes[last].Stop()
	others := q.trees
	others.Nodes = others.Nodes[:last]
	var c change
	for i := range rounds {
		var err error
		if c, err = q.rewrite(q.base.share(1000), fmt.Sprint("b", i)); err != nil {
			return err
		}
		if _, err := q.carryTo(ctx, others.Nodes, c); err != nil {
			return fmt.Errorf("round %d of %d at the other nodes: %w", i+1, rounds, err)
		}
	}
	if _, err := q.quiet(ctx); err != nil {
		return err
	}
	return q.measure(ctx, "back", change{present: c.present, apply: func(ctx context.Context) (err error) {
		q.nodes[last], err = q.system.startNode(ctx, last)
		return err
	}})
}

// rewrite is a change of n files: the same content but for its beginning, and a
// byte or more longer, for the time alone does not tell rsync.
func (q *sequence) rewrite(n int, mark string) (change, error) {
	c := change{present: q.base.some(n)}
	bodies := make([][]byte, n)
	for i, name := range c.present {
		old, err := os.ReadFile(filepath.Join(q.trees.Source, name))
		if err != nil {
			return c, err
		}
		bodies[i] = slices.Concat([]byte(mark), old)
	}
	c.apply = func(context.Context) error {
		for i, name := range c.present {
			if err := os.WriteFile(filepath.Join(q.trees.Source, name), bodies[i], 0); err != nil {
				return err
			}
		}
		return nil
	}
	return c, nil
}

// sleep returns after a time, or with the reason why ctx has ended.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
