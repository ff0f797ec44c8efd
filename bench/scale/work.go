package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"treecast/bench/internal/rig"
)

// The parts of a run.
const (
	fan   = "nodes" // by the number of nodes
	empty = "empty" // without a file, for the memory that it takes to run at all
	tree  = "files" // by the number of files
)

const fanFiles = 1000 // of the tree that single files are added to

// Each work goes on with what those before have left.
var (
	fanWorks = []work{
		{name: "first", prepare: (*sequence).first},
		{name: "single", prepare: (*sequence).single, judged: true},
	}
	emptyWorks = []work{
		{name: "first", prepare: (*sequence).first},
		{name: "restart-publisher", prepare: (*sequence).restartPublisher},
		{name: "restart-node", prepare: (*sequence).restartNodes, judged: true},
	}
	treeWorks = []work{
		{name: "first", prepare: (*sequence).first},
		{name: "restart-publisher", prepare: (*sequence).restartPublisher},
		{name: "restart-node", prepare: (*sequence).restartNodes},
		{name: "rescan", prepare: (*sequence).rescan},
		{name: "single", prepare: (*sequence).single},
		{name: "overwrite", prepare: (*sequence).overwrite},
		{name: "log", prepare: (*sequence).log},
		{name: "writers", prepare: (*sequence).writers},
		{name: "rename", prepare: (*sequence).rename, judged: true}, // while all of it is there
		{name: "remove", prepare: (*sequence).remove, judged: true},
	}
)

// titles are what the table says.
var titles = map[string]string{
	"first":             "first sync",
	"restart-publisher": "publisher restarted",
	"restart-node":      "nodes restarted",
	"rescan":            "rescan",
	"single":            "one 4 KiB file",
	"overwrite":         "random files overwritten",
	"log":               "a file appended every 10 ms",
	"writers":           "new files by 32 writers at once",
	"rename":            "rename of a directory",
	"remove":            "rm -r of it",
}

// first starts the publisher, where the tree is already, beside nodes that are
// empty and wait.
func (q *sequence) first(context.Context) (task, error) {
	all, err := rig.Everything(q.Trees.Source, ".")
	q.paths = len(all)
	return q.one(q.paths, rig.Change{Known: all, Apply: q.startPublisher}), err
}

func (q *sequence) restartPublisher(context.Context) (task, error) {
	stop(q.publisher)
	return q.settled(false, q.startPublisher), nil
}

func (q *sequence) restartNodes(context.Context) (task, error) {
	stop(q.nodes...)
	return q.settled(false, q.startNodes), nil
}

func (q *sequence) rescan(context.Context) (task, error) {
	return q.settled(true, func(context.Context) error { return nil }), nil
}

func (q *sequence) single(ctx context.Context) (task, error) {
	load := q.load()
	if err := load.PrepareSingles(ctx); err != nil {
		return task{}, err
	}
	_, err := q.Daemons.Quiet(ctx, q.Settle)
	return task{do: func(ctx context.Context) (outcome, error) {
		all, err := load.Singles(ctx, q.Singles, q.Patience)
		return outcome{all, len(all)}, err
	}}, err
}

func (q *sequence) overwrite(context.Context) (task, error) {
	names := q.layout.some(q.Overwrites)
	c, err := q.load().Rewrite(names, "r")
	return q.one(len(names), c), err
}

func (q *sequence) log(context.Context) (task, error) {
	file, err := q.load().StartLog()
	return task{do: func(ctx context.Context) (outcome, error) {
		n, took, err := file.Append(ctx, q.Log)
		return outcome{[]time.Duration{took}, n}, err
	}}, err
}

func (q *sequence) writers(context.Context) (task, error) {
	const each = 50
	c, err := q.load().Writers(each)
	return q.one(rig.Writers*(each+1), c), err // with their directories
}

const moved = "moved"

func (q *sequence) rename(context.Context) (task, error) {
	old := topName(0)
	all, err := rig.Everything(q.Trees.Source, old)
	for i := range all {
		all[i].Path = moved + strings.TrimPrefix(all[i].Path, old)
	}
	return q.one(len(all), rig.Change{Known: all, Absent: []string{old}, Apply: func(context.Context) error {
		return os.Rename(filepath.Join(q.Trees.Source, old), filepath.Join(q.Trees.Source, moved))
	}}), err
}

func (q *sequence) remove(context.Context) (task, error) {
	all, err := rig.Everything(q.Trees.Source, moved)
	return q.one(len(all), rig.Change{Absent: []string{moved}, Apply: func(context.Context) error {
		return os.RemoveAll(filepath.Join(q.Trees.Source, moved))
	}}), err
}
