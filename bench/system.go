package main

import (
	"context"
	"slices"

	"treecast/bench/internal/rig"
)

// A system carries a source tree to nodes. Its methods are called by one
// goroutine: prepare, then startNode for each node, then startSource.
type system interface {
	// prepare makes what nodes need before they start.
	prepare(ctx context.Context) error
	// startNode starts what runs at a node. A system that runs nothing there
	// returns nil; the daemon of another may be stopped, and started again.
	startNode(ctx context.Context, node int) (*rig.Daemon, error)
	// startSource starts what runs at the source, where the tree is already.
	startSource(ctx context.Context) error
	// carry takes a change that was made at the source to all nodes, or does
	// nothing if that happens by itself.
	carry(ctx context.Context, c rig.Change) error
}

// A site is what a system is made for.
type site struct {
	trees   rig.Trees
	daemons *rig.Daemons
	bin     string // the directory with the commands of treecast
}

// A candidate is a system by its name.
type candidate struct {
	name     string
	programs []string   // that must be installed
	packages []string   // Debian's, that have them
	versions [][]string // commands whose first line is a version
	notes    func() []string
	new      func(site) system
}

// missing returns the programs that are not installed.
func (c candidate) missing() []string {
	return slices.DeleteFunc(slices.Clone(c.programs), rig.Has)
}

// candidates are in the order of the table.
var candidates = []candidate{
	{
		name:  "treecast",
		notes: rig.TreecastNotes,
		new:   func(s site) system { return &treecast{rig.Treecast{Daemons: s.daemons, Trees: s.trees, Bin: s.bin}} },
	}, {
		name:     "loop",
		programs: []string{"inotifywait"},
		packages: []string{"inotify-tools"},
		versions: [][]string{{"inotifywait", "--help"}},
		notes:    loopNotes,
		new:      func(s site) system { return &loop{rsyncds{site: s}} },
	}, {
		name:     "lsyncd",
		programs: []string{"lsyncd"},
		packages: []string{"lsyncd"},
		versions: [][]string{{"lsyncd", "--version"}},
		notes:    lsyncdNotes,
		new:      func(s site) system { return &lsyncd{rsyncds{site: s}} },
	}, {
		name:     "syncthing",
		programs: []string{"syncthing"},
		packages: []string{"syncthing"},
		versions: [][]string{{"syncthing", "--version"}},
		notes:    syncthingNotes,
		new:      func(s site) system { return &syncthing{site: s} },
	}, {
		name:     "copy",
		versions: [][]string{{"cp", "--version"}},
		notes:    copyNotes,
		new:      func(s site) system { return &copies{s} },
	},
}

func byName(name string) candidate {
	return candidates[slices.IndexFunc(candidates, func(c candidate) bool { return c.name == name })]
}

// treecast is a broker, a publisher and nodes as they are by default.
type treecast struct{ rig.Treecast }

func (c *treecast) prepare(ctx context.Context) error { return c.StartBroker(ctx) }

func (c *treecast) startNode(ctx context.Context, node int) (*rig.Daemon, error) {
	return c.StartNode(ctx, c.Trees.Nodes[node])
}

func (c *treecast) startSource(ctx context.Context) error {
	_, err := c.StartPublisher(ctx)
	return err
}

func (*treecast) carry(context.Context, rig.Change) error { return nil }

// rsyncds is a daemon of rsync's on each node, and something at the source that
// starts the clients.
type rsyncds struct {
	site
	all []*rig.Rsyncd
}

func (r *rsyncds) prepare(ctx context.Context) error {
	for _, root := range r.trees.Nodes {
		d, err := rig.NewRsyncd(ctx, root)
		if err != nil {
			return err
		}
		r.all = append(r.all, d)
	}
	return nil
}

func (r *rsyncds) startNode(ctx context.Context, node int) (*rig.Daemon, error) {
	return r.all[node].Start(ctx, r.daemons)
}

func (*rsyncds) carry(context.Context, rig.Change) error { return nil }
