package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"treecast/bench/internal/rig"
	"treecast/internal/cli"
)

const about = `Measures how long one large file, and small changes of it, take to reach all nodes: treecast, rsync to daemons, plain copies.`

// command is the grammar of the command line.
type command struct {
	cli.VersionFlag

	Size     rig.Size      `help:"Size of the file: bytes, or a number and KiB, MiB or GiB." default:"256MiB" env:"-"`
	Kinds    []string      `help:"What is in the file: random, text." default:"random,text" enum:"random,text" env:"-" placeholder:"KIND"`
	Systems  []string      `help:"What is measured: treecast, rsync, copy." default:"treecast,rsync,copy" enum:"treecast,rsync,copy" env:"-" placeholder:"SYSTEM"`
	Nodes    int           `help:"Nodes that get the file." default:"3" env:"-"`
	Rounds   int           `help:"How often everything is measured." default:"3" env:"-"`
	Work     string        `help:"Where trees and stores are kept; by default a directory in /dev/shm, or else in $TMPDIR." type:"existingdir" env:"-" placeholder:"DIR"`
	CSV      string        `name:"csv" help:"Write every measurement to this file." type:"path" env:"-" placeholder:"FILE"`
	Patience time.Duration `help:"The longest that a step may take." default:"5m" env:"-"`
}

// run is the program. It returns when all that it started has ended.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	var c command
	k, err := cli.Parse("bench-large", about, &c, args, stdout, stderr)
	if err != nil || k == nil {
		return err
	}
	if err := c.check(); err != nil {
		return err
	}
	b := bench{command: c, stderr: stderr}
	if b.judged = rig.Has("rsync"); !b.judged {
		fmt.Fprintln(stderr, "rsync is not here: it is left out, and cannot judge the trees; apt-get install rsync")
		b.Systems = slices.DeleteFunc(b.Systems, func(s string) bool { return s == "rsync" })
		if len(b.Systems) == 0 {
			return errors.New("nothing is left to be measured")
		}
	}

	if b.work, err = rig.WorkDir(c.Work, "bench-large-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rig.RemoveAll(b.work)) }()
	// A node has its old and its new version, and a trash, the source has a copy,
	// the broker has two versions or more.
	if err := rig.EnoughSpace(b.work, int64(c.Size)*int64(3*c.Nodes+8)); err != nil {
		return err
	}
	bin, err := os.MkdirTemp("", "bench-large-bin-") // where the trees are, programs may not be allowed
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rig.RemoveAll(bin)) }()
	b.bin = bin
	if slices.Contains(b.Systems, "treecast") {
		if err := rig.Build(ctx, bin); err != nil {
			return err
		}
	}

	raw := io.Discard
	if c.CSV != "" {
		f, err := os.Create(c.CSV)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		raw = f
	}
	r, err := b.measure(ctx, csv.NewWriter(raw))
	if err != nil {
		return err
	}
	r.write(stdout, b.Kinds, b.Systems)
	return b.settings(ctx, stdout)
}

func (c *command) check() error {
	switch {
	case c.Nodes < 1 || c.Nodes > 100:
		return errors.New("--nodes: 1 to 100")
	case c.Rounds < 1:
		return errors.New("--rounds: at least 1")
	case c.Size < appended:
		return fmt.Errorf("--size: at least %v", rig.Size(appended))
	}
	for _, list := range [][]string{c.Kinds, c.Systems} {
		if sorted := slices.Sorted(slices.Values(list)); len(slices.Compact(sorted)) != len(list) {
			return fmt.Errorf("%q: one is named twice", list)
		}
	}
	return nil
}

// A bench is one run of the program.
type bench struct {
	command
	work   string // everything that is measured happens in it
	bin    string // the commands of treecast
	judged bool   // rsync compares the trees
	stderr io.Writer
}

// measure goes through all sequences: the systems take turns, so that a machine
// that gets slower or faster does so for all of them.
func (b *bench) measure(ctx context.Context, raw *csv.Writer) (*results, error) {
	r := &results{}
	if err := raw.Write(csvHeader); err != nil {
		return nil, err
	}
	for round := 1; round <= b.Rounds; round++ {
		for _, kind := range b.Kinds {
			for _, name := range b.Systems {
				fmt.Fprintf(b.stderr, "round %d of %d, %s, %s\n", round, b.Rounds, kind, name)
				s := sequence{bench: b, round: round, kind: kind, system: name}
				if err := s.run(ctx, r); err != nil {
					return nil, fmt.Errorf("%s, %s: %w", kind, name, err)
				}
				for _, m := range s.rows {
					if err := raw.Write(m.csv()); err != nil {
						return nil, err
					}
				}
				raw.Flush()
				if err := raw.Error(); err != nil {
					return nil, err
				}
			}
		}
	}
	return r, nil
}

// settings says what was measured with what.
func (b *bench) settings(ctx context.Context, w io.Writer) error {
	fs, err := rig.FileSystem(b.work)
	if err != nil {
		return err
	}
	fmt.Fprintln(w, "\nWhat is still to be written to disk is written before each step. What treecast shows on a node is on its disk; rsync and cp do not wait for theirs.")
	fmt.Fprintf(w, "size %v, nodes %d, rounds %d, CPUs %d; %s is on %s\n", b.Size, b.Nodes, b.Rounds, runtime.NumCPU(), filepath.Dir(b.work), fs)
	if b.judged {
		version, err := rig.FirstLine(ctx, "rsync", "--version")
		if err != nil {
			return err
		}
		fmt.Fprintln(w, version)
	} else {
		fmt.Fprintln(w, "no rsync: trees not judged, bytes compared only")
	}
	if slices.Contains(b.Systems, "treecast") {
		version, err := rig.FirstLine(ctx, filepath.Join(b.bin, "publisher"), "--version")
		if err != nil {
			return err
		}
		fmt.Fprintln(w, version)
	}
	for _, name := range b.Systems {
		fmt.Fprintln(w)
		for _, line := range notes[name]() {
			fmt.Fprintf(w, "%s: %s\n", name, line)
		}
	}
	return nil
}
