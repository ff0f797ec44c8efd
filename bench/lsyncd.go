package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"treecast/bench/internal/rig"
)

// lsyncd is one process at the source, with a sync for each node.
type lsyncd struct{ rsyncds }

func lsyncdNotes() []string {
	return []string{
		"lsyncd -nodaemon FILE, with insist = true, maxProcesses = the number of nodes; for each node default.rsync with delay = 0, archive = true, compress = true",
		rig.RsyncdNote,
	}
}

func (l *lsyncd) startSource(ctx context.Context) error {
	var conf strings.Builder
	fmt.Fprintf(&conf, "settings { insist = true, maxProcesses = %d }\n", len(l.all))
	for _, d := range l.all {
		fmt.Fprintf(&conf, "sync { default.rsync, source = %q, target = %q, delay = 0, rsync = { archive = true, compress = true } }\n", l.trees.Source, d.URL)
	}
	file := filepath.Join(l.trees.Dir, "lsyncd.lua")
	if err := os.WriteFile(file, []byte(conf.String()), 0o644); err != nil {
		return err
	}
	_, err := l.daemons.Start(ctx, "lsyncd", "lsyncd", "lsyncd", "-nodaemon", file)
	return err
}
