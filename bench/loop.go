package main

import (
	"context"
	_ "embed"
	"os"
	"path/filepath"

	"treecast/bench/internal/rig"
)

//go:embed loop.sh
var loopScript string

// loop is the script as people use it.
type loop struct{ rsyncds }

func loopNotes() []string {
	return []string{"sh loop.sh SOURCE rsync://HOST:PORT/tree/ … (bench/loop.sh: after each event one rsync -az --delete to each node, in turn)", rig.RsyncdNote}
}

func (l *loop) startSource(ctx context.Context) error {
	script := filepath.Join(l.trees.Dir, "loop.sh")
	if err := os.WriteFile(script, []byte(loopScript), 0o644); err != nil {
		return err
	}
	args := []string{script, l.trees.Source}
	for _, d := range l.all {
		args = append(args, d.URL)
	}
	_, err := l.daemons.Start(ctx, "loop", "loop", "sh", args...)
	return err
}
