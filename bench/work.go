package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"treecast/bench/internal/rig"
)

// A work is what is measured as one: a change, or what is more than that.
type work struct {
	name   string
	needs  string // the work that must come before, "" for none but the first
	change func(q *sequence) (rig.Change, error)
	run    func(*sequence, context.Context) error
}

// works are in the order in which they are done. Each goes on with what those
// before have left.
var works = []work{
	{name: "first", change: (*sequence).first},
	{name: "single", run: (*sequence).single},
	{name: "rewrite", change: func(q *sequence) (rig.Change, error) {
		return q.rewrite(q.base.share(2000), "r")
	}},
	{name: "writers", change: func(q *sequence) (rig.Change, error) { return q.load().Writers(q.base.share(50)) }},
	{name: "log", run: (*sequence).log},
	{name: "directory", change: func(q *sequence) (rig.Change, error) {
		from := filepath.Join(q.trees.Beside, bulk)
		return rig.Change{Present: []string{bulk}, Apply: func(ctx context.Context) error {
			return rig.Program(ctx, "cp", "-a", from, q.trees.Source).Run()
		}}, generate(from, 2, q.base.share(5064), q.base.sizeBytes*5064/11478)
	}},
	{name: "rename", needs: "directory", change: func(q *sequence) (rig.Change, error) {
		return rig.Change{Present: []string{moved}, Absent: []string{bulk}, Apply: func(context.Context) error {
			return os.Rename(filepath.Join(q.trees.Source, bulk), filepath.Join(q.trees.Source, moved))
		}}, nil
	}},
	{name: "remove", needs: "rename", change: func(q *sequence) (rig.Change, error) {
		return rig.Change{Absent: []string{moved}, Apply: func(context.Context) error {
			return os.RemoveAll(filepath.Join(q.trees.Source, moved))
		}}, nil
	}},
	{name: "rest", run: (*sequence).rest},
	{name: "large", change: func(q *sequence) (rig.Change, error) {
		put, err := q.trees.Replace(large, func(f *os.File) error {
			_, err := io.Copy(f, rig.Content("random", 3, int64(q.Size)))
			return err
		})
		return rig.Change{Present: []string{large}, Apply: func(context.Context) error { return put() }}, err
	}},
	{name: "insert", needs: "large", change: func(q *sequence) (rig.Change, error) {
		put, err := q.trees.Replace(large, func(f *os.File) error {
			if _, err := f.WriteString("+"); err != nil {
				return err
			}
			return q.trees.CopyTo(f, large)
		})
		return rig.Change{Present: []string{large}, Apply: func(context.Context) error { return put() }}, err
	}},
	{name: "append", needs: "large", change: func(q *sequence) (rig.Change, error) {
		more, err := io.ReadAll(rig.Content("random", 4, 4<<10))
		return rig.Change{Present: []string{large}, Apply: func(context.Context) error { return q.trees.Append(large, more) }}, err
	}},
	{name: "back", run: (*sequence).back},
	{name: "upload", run: (*sequence).upload},
	{name: "behind", run: (*sequence).behind},
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

// timed reports whether the row is of times until a change has arrived.
func (r row) timed() bool { return r.work != "rest" }

// show writes a value of the row.
func (r row) show(value float64) string {
	switch r.measure {
	case "files":
		return fmt.Sprint(value)
	case "written":
		return rig.Size(value).String()
	}
	return rig.Short(time.Duration(value * float64(time.Second)))
}

// label tells the rows of one work apart.
func (r row) label() string {
	if strings.HasPrefix(r.measure, "p") { // a quantile
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
		{"writers", "seconds", fmt.Sprintf("%d files by %d writers at once", rig.Writers*b.share(50), rig.Writers)},
		{"log", "seconds", fmt.Sprintf("the end of a file appended every 10 ms for %g s", c.Log.Seconds())},
		{"directory", "seconds", fmt.Sprintf("new directory of %d files", b.share(5064))},
		{"rename", "seconds", "rename of that directory"},
		{"remove", "seconds", "rm -r of it"},
		{"rest", "cpu", fmt.Sprintf("at rest, CPU of %g s (all processes)", c.Rest.Seconds())},
		{"rest", "files", "files and directories written meanwhile"},
		{"rest", "written", "bytes written to the disk meanwhile"},
		{"large", "seconds", fmt.Sprintf("new %v file", c.Size)},
		{"insert", "seconds", "one byte inserted at its front"},
		{"append", "seconds", "4 KiB appended to it"},
		{"back", "seconds", fmt.Sprintf("node back after %d rounds over %d files", rounds, b.share(1000))},
		{"upload", "seconds", fmt.Sprintf("new %v file, beside pages", c.Upload)},
		{"upload", "p50", fmt.Sprintf("4 KiB page during that upload of %v", c.Upload)},
		{"upload", "p99", fmt.Sprintf("4 KiB page during that upload of %v", c.Upload)},
		{"behind", "seconds", fmt.Sprintf("node back after %d new files, beside pages", c.Behind)},
		{"behind", "p50 meanwhile", "4 KiB page at the other nodes"},
		{"behind", "p99 meanwhile", "4 KiB page at the other nodes"},
		{"behind", "p50 before", "4 KiB page at the other nodes"},
		{"behind", "p99 before", "4 KiB page at the other nodes"},
	}
	return slices.DeleteFunc(all, func(r row) bool { return !slices.Contains(c.Works, r.work) })
}

// first starts the source's side, where the tree is already, beside nodes that
// are empty and wait.
func (q *sequence) first() (rig.Change, error) {
	return rig.Change{Present: []string{"."}, Apply: q.system.startSource}, nil
}

// single measures new files one by one.
func (q *sequence) single(ctx context.Context) error {
	load := q.load()
	if err := load.PrepareSingles(ctx); err != nil {
		return err
	}
	if _, err := q.quiet(ctx); err != nil {
		return err
	}
	before, err := q.spent()
	if err != nil {
		return err
	}
	all, err := load.Singles(ctx, q.Singles, time.Minute)
	if err != nil {
		return err
	}
	q.add("single", "p50", rig.Median(all).Seconds())
	q.add("single", "p99", rig.Quantile(all, 0.99).Seconds())
	q.add("single", "changes", float64(len(all)))
	return q.close(ctx, "single", before, len(all))
}

// log appends to a file all the time, and measures when the end of it has
// arrived.
func (q *sequence) log(ctx context.Context) error {
	file, err := q.load().StartLog()
	if err != nil {
		return err
	}
	if err := rig.Flush(q.trees.Dir); err != nil {
		return err
	}
	before, err := q.spent()
	if err != nil {
		return err
	}
	appends, took, err := file.Append(ctx, q.Log)
	if err != nil {
		return err
	}
	q.add("log", "seconds", took.Seconds())
	return q.close(ctx, "log", before, appends)
}

// rest looks at the CPU time of all processes while nothing changes, and at what
// they write. The bytes are those that the kernel counts for a disk: in memory
// there are none to count, and nothing is said of them.
func (q *sequence) rest(ctx context.Context) error {
	calm, err := q.quiet(ctx)
	if err != nil {
		return err
	}
	if !calm {
		q.add("rest", "busy", 1)
	}
	kind, err := rig.FileSystem(q.trees.Dir)
	if err != nil {
		return err
	}
	files, err := rig.Stamp(q.trees.Dir)
	if err != nil {
		return err
	}
	written, before := q.daemons.Written(), q.daemons.CPU()
	if err := rig.Sleep(ctx, q.Rest); err != nil {
		return err
	}
	var sum time.Duration
	for role, used := range q.daemons.CPU() {
		sum += used - before[role]
		q.add("rest", "cpu "+role, (used - before[role]).Seconds())
	}
	q.add("rest", "cpu", sum.Seconds())
	if kind != "tmpfs" {
		q.add("rest", "written", float64(q.daemons.Written()-written))
	}
	changed, err := files.Changed()
	q.add("rest", "files", float64(len(changed)))
	return err
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
	var c rig.Change
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
	return q.measure(ctx, "back", rig.Change{Present: c.Present, Apply: func(ctx context.Context) (err error) {
		q.nodes[last], err = q.system.startNode(ctx, last)
		return err
	}})
}

// load makes changes that all nodes are to get.
func (q *sequence) load() rig.Load { return rig.Load{Source: q.trees.Source, Carry: q.carry} }

func (q *sequence) rewrite(n int, mark string) (rig.Change, error) {
	return q.load().Rewrite(q.base.some(n), mark)
}
