package main

import (
	"context"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"treecast/bench/internal/rig"
)

// copies is the limit: what is to be done at the nodes is known, and done on
// this machine, without a network, and without waiting for the disk.
type copies struct{ site }

func copyNotes() []string {
	return []string{"cp -a of what changed, mv, rm -r (a process for each node, all in parallel)"}
}

func (*copies) prepare(context.Context) error { return nil }

func (*copies) startNode(context.Context, int) (*rig.Daemon, error) { return nil, nil }

func (*copies) startSource(context.Context) error { return nil }

func (c *copies) carry(ctx context.Context, made rig.Change) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, node := range c.trees.Nodes {
		at := func(names []string) (all []string) {
			for _, n := range names {
				all = append(all, filepath.Join(node, n))
			}
			return all
		}
		var args []string
		switch {
		case len(made.Present) == 0:
			args = append([]string{"rm", "-r"}, at(made.Absent)...)
		case len(made.Absent) == 0:
			args = append([]string{"cp", "-a", "--parents", "--reflink=never", "--target-directory=" + node}, made.Present...)
		default: // a rename
			args = []string{"mv", at(made.Absent)[0], at(made.Present)[0]}
		}
		g.Go(func() error { return c.daemons.Run(ctx, "cp", c.trees.Source, args[0], args[1:]...) })
	}
	return g.Wait()
}
