package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"treecast/bench/internal/rig"
	"treecast/internal/cli"
)

const about = `Measures how long it takes until all nodes have what was done to a tree, and what that costs: treecast, the loop of inotifywait and rsync, lsyncd, Syncthing, plain copies.`

// command is the grammar of the command line.
type command struct {
	cli.VersionFlag

	Systems []string `help:"What is measured: treecast, loop, lsyncd, syncthing, copy." default:"treecast,loop,lsyncd,syncthing,copy" enum:"treecast,loop,lsyncd,syncthing,copy" env:"-" placeholder:"SYSTEM"`
	Works   []string `help:"What is done: first, single, rewrite, writers, log, directory, rename, remove, large, insert, append, rest, back, upload, behind." default:"first,single,rewrite,writers,log,directory,rename,remove,large,insert,append,rest,back,upload,behind" enum:"first,single,rewrite,writers,log,directory,rename,remove,large,insert,append,rest,back,upload,behind" env:"-" placeholder:"WORK"`
	Nodes   int      `help:"Nodes that get the tree." default:"3" env:"-"`
	Rounds  int      `help:"How often everything is measured." default:"3" env:"-"`
	Fanout  []int    `help:"Measure single files with these numbers of nodes too; none if empty." default:"1,16" env:"-" placeholder:"NODES"`
	Fans    []string `help:"The systems that are measured so." default:"treecast" enum:"treecast,loop,lsyncd,syncthing,copy" env:"-" placeholder:"SYSTEM"`

	Tree    string   `help:"The tree to begin with, which has nothing that treecast excludes by default; or else one is generated." type:"existingdir" env:"-" placeholder:"DIR"`
	Files   int      `help:"Files of the generated tree. What is changed of it has its share." default:"11478" env:"-"`
	Bytes   rig.Size `help:"Size of the generated tree." default:"144MiB" env:"-"`
	Size    rig.Size `help:"Size of the large file." default:"256MiB" env:"-"`
	Upload  rig.Size `help:"Size of the large file that pages are written beside; 0: 1GiB in memory, 4GiB on a disk." default:"0" env:"-"`
	Behind  int      `help:"New files that a node misses while it is stopped." default:"30000" env:"-"`
	Singles int      `help:"Single files, or as many as there are in a minute." default:"200" env:"-"`

	Work     string        `help:"Where trees and stores are kept; by default a directory in /dev/shm, or else in $TMPDIR." type:"existingdir" env:"-" placeholder:"DIR"`
	Out      string        `help:"Write bench.md, bench.csv (every number) and bench.svg to this directory too." type:"path" env:"-" placeholder:"DIR"`
	Patience time.Duration `help:"The longest that a change may take." default:"120s" env:"-"`
	Settle   time.Duration `help:"The longest that a system is given to come to rest after a work." default:"10s" env:"-"`
	Rest     time.Duration `help:"How long systems are looked at while nothing changes." default:"10s" env:"-"`
	Log      time.Duration `help:"How long a file is appended to." default:"10s" env:"-"`
	Install  bool          `help:"Install what is missing, with apt-get." env:"-"`
}

// A bench is one run of the program.
type bench struct {
	command
	base    base
	work    string // everything that is measured happens in it
	bin     string // the commands of treecast
	results results
	absent  map[string]string // why a system is not measured
	stderr  io.Writer
}

// run is the program. It returns when all that it started has ended.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	var c command
	k, err := cli.Parse("bench", about, &c, args, stdout, stderr)
	if err != nil || k == nil {
		return err
	}
	if err := c.check(); err != nil {
		return err
	}
	b := &bench{command: c, absent: map[string]string{}, stderr: stderr}
	if err := b.programs(ctx); err != nil {
		return err
	}
	if b.work, err = rig.WorkDir(c.Work, "bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rig.RemoveAll(b.work)) }()
	if b.bin, err = os.MkdirTemp("", "bench-bin-"); err != nil { // where the trees are, programs may not be allowed
		return err
	}
	defer func() { err = errors.Join(err, rig.RemoveAll(b.bin)) }()
	if err := rig.Build(ctx, b.bin); err != nil {
		return err
	}
	if err := b.tree(ctx); err != nil {
		return err
	}
	r := &report{results: &b.results, systems: b.Systems, absent: b.absent, nodes: b.Nodes, rows: b.rows(b.base)}
	if slices.Contains(b.Works, "single") {
		r.fanout = b.Fanout
	}
	if r.about, err = b.about(ctx); err != nil {
		return err
	}
	if err := b.measure(ctx, r); err != nil {
		return err
	}
	r.write(stdout)
	return nil
}

func (c *command) check() error {
	switch {
	case c.Nodes < 1 || c.Nodes > 100 || slices.ContainsFunc(c.Fanout, func(n int) bool { return n < 1 || n > 100 }):
		return errors.New("--nodes, --fanout: 1 to 100")
	case c.Rounds < 1 || c.Files < 1 || c.Singles < 1 || c.Size < 1 || c.Behind < 1:
		return errors.New("--rounds, --files, --singles, --size, --behind: at least 1")
	}
	for _, list := range [][]string{c.Systems, c.Works} {
		if sorted := slices.Sorted(slices.Values(list)); len(slices.Compact(sorted)) != len(list) {
			return fmt.Errorf("%q: one is named twice", list)
		}
	}
	for _, w := range works {
		if slices.Contains(c.Works, w.name) && w.needs != "" && !slices.Contains(c.Works, w.needs) {
			return fmt.Errorf("--works: %s needs %s", w.name, w.needs)
		}
	}
	if !slices.Contains(c.Works, "first") {
		return errors.New("--works: all need first")
	}
	return nil
}

// programs looks for what the systems need, and for the judge.
func (b *bench) programs(ctx context.Context) error {
	packages := []string{}
	if !rig.Has("rsync") {
		packages = append(packages, "rsync")
	}
	for _, name := range b.Systems {
		if c := byName(name); len(c.missing()) > 0 {
			packages = append(packages, c.packages...)
		}
	}
	if b.Install && len(packages) > 0 {
		for _, args := range [][]string{{"update"}, append([]string{"-y", "--no-install-recommends", "install"}, packages...)} {
			cmd := rig.Program(ctx, "apt-get", append([]string{"-q"}, args...)...)
			cmd.Env = append(cmd.Env, "DEBIAN_FRONTEND=noninteractive")
			cmd.Stdout, cmd.Stderr = b.stderr, b.stderr
			if err := cmd.Run(); err != nil {
				fmt.Fprintf(b.stderr, "apt-get: %v\n", err) // what is missing is said below
			}
		}
	}
	if !rig.Has("rsync") {
		return errors.New("rsync, which compares the trees, is not here: apt-get install rsync")
	}
	for _, name := range b.Systems {
		if missing := byName(name).missing(); len(missing) > 0 {
			b.absent[name] = "not installed"
			fmt.Fprintf(b.stderr, "%s is left out: no %s here; --install, or apt-get install %s\n", name, strings.Join(missing, ", "), strings.Join(byName(name).packages, " "))
		}
	}
	return nil
}

// tree makes the tree to begin with.
func (b *bench) tree(ctx context.Context) (err error) {
	dir := filepath.Join(b.work, "base")
	if b.Tree == "" {
		err = generate(dir, 1, b.Files, int64(b.Bytes))
	} else if out, failed := rig.Program(ctx, "cp", "-a", b.Tree, dir).CombinedOutput(); failed != nil {
		err = fmt.Errorf("--tree: %w\n%s", failed, out)
	}
	if err != nil {
		return err
	}
	if b.base, err = readBase(dir); err != nil {
		return err
	}
	if len(b.base.files) == 0 {
		return errors.New("--tree: no files")
	}
	return b.space()
}

// space chooses what is not set, and refuses what does not fit.
func (b *bench) space() error {
	if b.Upload == 0 {
		fs, err := rig.FileSystem(b.work)
		if err != nil {
			return err
		}
		if b.Upload = 4 << 30; fs == "tmpfs" {
			b.Upload = 1 << 30
		}
	}
	// The source, the nodes and the store have the tree and half of it again, and
	// three versions of the large file; those of single files the tree alone.
	need := int64(b.Nodes+3) * (2*b.base.sizeBytes + 3*int64(b.Size))
	if slices.Contains(b.Works, "upload") {
		need += int64(b.Nodes+2) * int64(b.Upload)
	}
	if slices.Contains(b.Works, "behind") {
		need += int64(b.Nodes+3) * int64(b.Behind) * 4096 // two KiB on average, in whole blocks
	}
	fans := int64(slices.Max(append(b.Fanout, 0))+3) * 2 * b.base.sizeBytes
	return rig.EnoughSpace(b.work, max(need, fans))
}

// measure goes through all sequences: the systems take turns, so that a machine
// that gets slower or faster does so for all of them. What is known is saved
// after each.
func (b *bench) measure(ctx context.Context, r *report) error {
	var all, single []work
	for _, w := range works {
		if slices.Contains(b.Works, w.name) {
			all = append(all, w)
			if w.name == "first" || w.name == "single" {
				single = append(single, w)
			}
		}
	}
	for round := 1; round <= b.Rounds; round++ {
		for _, name := range b.Systems {
			if b.absent[name] != "" {
				continue
			}
			plan := map[int][]work{b.Nodes: all}
			if len(single) == 2 && slices.Contains(b.Fans, name) {
				for _, nodes := range b.Fanout {
					if nodes != b.Nodes { // else it is known
						plan[nodes] = single
					}
				}
			}
			for _, nodes := range slices.Sorted(maps.Keys(plan)) {
				if err := (&sequence{bench: b, round: round, name: name, works: plan[nodes]}).run(ctx, nodes); err != nil {
					return err
				}
				if err := b.save(r); err != nil {
					return err
				}
			}
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
	lines := []string{
		machine,
		fmt.Sprintf("%d nodes, rounds: %d (median, lowest–highest), tree: %d files, %v", b.Nodes, b.Rounds, len(b.base.files), rig.Size(b.base.sizeBytes)),
	}
	commands := [][]string{{filepath.Join(b.bin, "publisher"), "--version"}, {"rsync", "--version"}}
	for _, name := range b.Systems {
		if b.absent[name] == "" {
			commands = append(commands, byName(name).versions...)
		}
	}
	for _, command := range commands {
		line, err := rig.FirstLine(ctx, command[0], command[1:]...)
		if err != nil {
			return nil, err
		}
		if name := filepath.Base(command[0]); !strings.HasPrefix(line, name) {
			line = name + " " + line
		}
		lines = append(lines, line)
	}
	for _, name := range b.Systems {
		for _, note := range byName(name).notes() {
			lines = append(lines, name+": "+note)
		}
	}
	return lines, nil
}

// save writes the files of the report, if that is wanted.
func (b *bench) save(r *report) error {
	return rig.Save(b.Out, map[string]func(io.Writer) error{
		"bench.md":  func(w io.Writer) error { r.write(w); return nil },
		"bench.csv": r.writeCSV,
		"bench.svg": newChart(r).write,
	})
}
