package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"treecast/bench/internal/rig"
	"treecast/internal/cli"
)

const about = `Measures what many nodes and many files cost treecast: time, CPU, memory, for each work and each path of it.`

// command is the grammar of the command line.
type command struct {
	cli.VersionFlag

	Nodes   []int `help:"Measure single files with these numbers of nodes; none if empty." default:"1,3,8,16,32" env:"-" placeholder:"NODES"`
	Singles int   `help:"Single files, one after the other." default:"200" env:"-"`

	Files      []int         `help:"Measure all works on trees of so many files; none if empty. A million take 16 GiB, if in memory." default:"100000" env:"-" placeholder:"FILES"`
	ScaleNodes int           `help:"Nodes that get these trees." default:"1" env:"-"`
	Works      []string      `help:"What is done with them: first, restart-publisher, restart-node, rescan, single, overwrite, log, writers, rename, remove." default:"first,restart-publisher,restart-node,rescan,single,overwrite,log,writers,rename,remove" enum:"first,restart-publisher,restart-node,rescan,single,overwrite,log,writers,rename,remove" env:"-" placeholder:"WORK"`
	Size       rig.Size      `help:"Size of a file, on average." default:"1KiB" env:"-"`
	Overwrites int           `help:"Files that are overwritten, from all over the tree." default:"2000" env:"-"`
	Log        time.Duration `help:"How long a file is appended to." default:"1m" env:"-"`

	Work     string        `help:"Where trees and stores are kept; by default a directory in /dev/shm, or else in $TMPDIR." type:"existingdir" env:"-" placeholder:"DIR"`
	Out      string        `help:"Write scale.md and scale.csv (every number) to this directory too." type:"path" env:"-" placeholder:"DIR"`
	Patience time.Duration `help:"The longest that a work may take." default:"30m" env:"-"`
	Settle   time.Duration `help:"The longest that the processes are given to come to rest after a work." default:"1m" env:"-"`
}

// A bench is one run of the program.
type bench struct {
	command
	work    string // everything that is measured happens in it
	bin     string // the commands of treecast
	results results
	stderr  io.Writer
}

// run is the program. It returns when all that it started has ended. What was
// measured before an error is printed too.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	var c command
	k, err := cli.Parse("bench-scale", about, &c, args, stdout, stderr)
	if err != nil || k == nil {
		return err
	}
	if err := c.check(); err != nil {
		return err
	}
	if !rig.Has("rsync") {
		return errors.New("rsync, which compares the trees, is not here: apt-get install rsync")
	}
	b := &bench{command: c, stderr: stderr}
	if b.work, err = rig.WorkDir(c.Work, "bench-scale-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rig.RemoveAll(b.work)) }()
	if err := rig.EnoughSpace(b.work, c.space()); err != nil {
		return err
	}
	if b.bin, err = os.MkdirTemp("", "bench-scale-bin-"); err != nil { // where the trees are, programs may not be allowed
		return err
	}
	defer func() { err = errors.Join(err, rig.RemoveAll(b.bin)) }()
	if err := rig.Build(ctx, b.bin); err != nil {
		return err
	}
	if b.results.about, err = b.about(ctx); err != nil {
		return err
	}
	err = b.measure(ctx)
	if len(b.results.all) > 0 {
		b.results.write(stdout)
	}
	return err
}

func (c *command) check() error {
	bad := func(n int) bool { return n < 1 || n > 100 }
	switch {
	case slices.ContainsFunc(c.Nodes, bad) || bad(c.ScaleNodes):
		return errors.New("--nodes, --scale-nodes: 1 to 100")
	case slices.ContainsFunc(c.Files, func(n int) bool { return n < leastFiles || n > 10_000_000 }):
		return fmt.Errorf("--files: %d to 10000000", leastFiles)
	case c.Singles < 1 || c.Overwrites < 1 || c.Size < 1 || c.Size > 1<<20:
		return errors.New("--singles, --overwrites, --size: at least 1; --size: at most 1MiB")
	case len(c.Nodes)+len(c.Files) == 0:
		return errors.New("--nodes, --files: nothing is to be measured")
	}
	if !slices.Contains(c.Works, "first") {
		return errors.New("--works: all need first")
	}
	if slices.Contains(c.Works, "remove") && !slices.Contains(c.Works, "rename") {
		return errors.New("--works: remove needs rename")
	}
	for _, list := range [][]int{c.Nodes, c.Files} {
		if sorted := slices.Sorted(slices.Values(list)); len(slices.Compact(sorted)) != len(list) {
			return fmt.Errorf("%d: one is named twice", list)
		}
	}
	return nil
}

// leastFiles is where half of them is more than nothing.
const leastFiles = 2

// space is what may be needed: the source, the nodes and the store have each
// file, in whole blocks.
func (c *command) space() int64 {
	const block = 4 << 10
	file := (2*int64(c.Size) + block) / block * block
	most := int64(fanFiles) * int64(slices.Max(append(c.Nodes, 0))+2)
	return file * max(most, int64(slices.Max(append(c.Files, 0)))*int64(c.ScaleNodes+2))
}

// measure goes through all sequences, the small ones first. What is known is
// saved after each, and before an error.
func (b *bench) measure(ctx context.Context) error {
	var plan []*sequence
	for _, n := range b.Nodes {
		plan = append(plan, &sequence{bench: b, part: fan, layout: newLayout(fanFiles), count: n, works: fanWorks})
	}
	if len(b.Files) > 0 {
		plan = append(plan, &sequence{bench: b, part: empty, count: b.ScaleNodes, works: emptyWorks})
	}
	works := slices.DeleteFunc(slices.Clone(treeWorks), func(w work) bool { return !slices.Contains(b.Works, w.name) })
	works[len(works)-1].judged = true
	for _, n := range slices.Sorted(slices.Values(b.Files)) {
		plan = append(plan, &sequence{bench: b, part: tree, layout: newLayout(n), count: b.ScaleNodes, works: works})
	}
	for _, q := range plan {
		err := q.run(ctx)
		if err := errors.Join(err, b.save()); err != nil {
			return err
		}
	}
	return nil
}

// about says what is measured with what.
func (b *bench) about(ctx context.Context) ([]string, error) {
	machine, err := rig.Machine(b.work)
	if err != nil {
		return nil, err
	}
	version, err := rig.FirstLine(ctx, filepath.Join(b.bin, "publisher"), "--version")
	if err != nil {
		return nil, err
	}
	return append([]string{
		machine,
		fmt.Sprintf("files of %v on average; by the number of nodes %d files, by the number of files %d nodes", b.Size, fanFiles, b.ScaleNodes),
		version,
	}, rig.TreecastNotes()...), nil
}

// save writes the files of the report, if that is wanted.
func (b *bench) save() error {
	return rig.Save(b.Out, map[string]func(io.Writer) error{
		"scale.md":  func(w io.Writer) error { b.results.write(w); return nil },
		"scale.csv": b.results.writeCSV,
	})
}
