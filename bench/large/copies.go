package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"treecast/bench/internal/rig"
)

// copies is the limit: what is to be done at the nodes is known, and done on
// this machine, without a network, and without waiting for the disk.
type copies struct{ trees rig.Trees }

func copyArgs(s step, source, node string) []string {
	switch {
	case s.present == "":
		return []string{"rm", filepath.Join(node, s.absent)}
	case s.absent == "":
		return []string{"cp", "-p", "--reflink=never", filepath.Join(source, s.present), filepath.Join(node, s.present)}
	}
	return []string{"mv", filepath.Join(node, s.absent), filepath.Join(node, s.present)}
}

func copyNotes() []string {
	line := func(s step) string { return strings.Join(copyArgs(s, "SOURCE", "NODE"), " ") }
	return []string{
		line(step{present: fileName}) + ", " + line(step{present: newName, absent: fileName}) + ", " + line(step{absent: newName}) +
			" (a process for each node, all in parallel)",
	}
}

func (*copies) start(context.Context) error { return nil }

func (c *copies) carry(ctx context.Context, s step) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, node := range c.trees.Nodes {
		args := copyArgs(s, c.trees.Source, node)
		g.Go(func() error {
			if out, err := rig.Program(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w\n%s", args[0], err, out)
			}
			return nil
		})
	}
	return g.Wait()
}

// rest gives the nodes' trees the time of the source's, which the judge looks
// at.
func (c *copies) rest(context.Context) (traffic, error) {
	fi, err := os.Stat(c.trees.Source)
	if err != nil {
		return traffic{}, err
	}
	for _, node := range c.trees.Nodes {
		if err := os.Chtimes(node, fi.ModTime(), fi.ModTime()); err != nil {
			return traffic{}, err
		}
	}
	return traffic{}, nil
}

func (*copies) peaks() []peak { return nil }
