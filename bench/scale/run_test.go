package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"treecast/bench/internal/rig"
)

// TestRun takes small trees through all works, and looks at what is printed,
// what is written and what is left.
func TestRun(t *testing.T) {
	if testing.Short() || !rig.Has("rsync") {
		t.Skip("takes a while, and rsync")
	}
	work, written := t.TempDir(), filepath.Join(t.TempDir(), "out")
	var out, log bytes.Buffer
	err := run(t.Context(), []string{
		"--nodes", "2", "--files", "20,60", "--scale-nodes", "2", "--singles", "2", "--log", "100ms", "--settle", "1ms", "--work", work, "--out", written,
	}, &out, &log)
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	lines := []string{"| 2 | 2 | ", "| nodes restarted | 60 | 67 | "}
	for _, w := range treeWorks {
		lines = append(lines, "| "+titles[w.name]+" | 20 | ", "| "+titles[w.name]+" | 60 | ")
	}
	for _, line := range lines {
		if !strings.Contains(out.String(), "\n"+line) {
			t.Errorf("no line %q in\n%s\n%s", line, &out, &log)
		}
	}

	table, err := os.ReadFile(filepath.Join(written, "scale.md"))
	if err != nil || !bytes.Equal(table, out.Bytes()) {
		t.Errorf("scale.md is not what was printed: %v\n%s", err, table)
	}
	text, err := os.ReadFile(filepath.Join(written, "scale.csv"))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range [][]string{
		{"nodes", "1000", "2", "single", "changes", "2"},
		{"empty", "0", "2", "first", "paths", "1"},
		{"files", "60", "2", "first", "paths", "67"}, // with the root, two directories at the top, and one in one in each
		{"files", "60", "2", "overwrite", "changes", "60"},
		{"files", "20", "2", "remove", "cpu publisher"},
		{"files", "20", "2", "rescan", "rss node"},
	} {
		if !slices.ContainsFunc(rows, func(r []string) bool { return slices.Equal(r[:len(want)], want) }) {
			t.Errorf("no line %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", text)
	}
	nothingLeft(t, work)
}

// TestRunIsLate shows that a work that takes longer than it may is named.
func TestRunIsLate(t *testing.T) {
	if testing.Short() || !rig.Has("rsync") {
		t.Skip("takes a while, and rsync")
	}
	work := t.TempDir()
	err := run(t.Context(), []string{"--nodes", "", "--files", "20", "--patience", "1ns", "--settle", "1ms", "--work", work}, &bytes.Buffer{}, &bytes.Buffer{})
	if !errors.Is(err, rig.ErrLate) || !strings.Contains(err.Error(), "first: late: not done after 1ns") {
		t.Errorf("got %v", err)
	}
	nothingLeft(t, work)
}

func TestRunIsStopped(t *testing.T) {
	work := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := run(ctx, []string{"--files", "20", "--work", work}, &bytes.Buffer{}, &bytes.Buffer{})
	if !errors.Is(err, context.Canceled) && rig.Has("rsync") {
		t.Errorf("got %v", err)
	}
	nothingLeft(t, work)
}

func TestRunRefuses(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // what is not refused gets no further
	for _, args := range [][]string{
		{"--nodes", "0"}, {"--nodes", "1,101"}, {"--nodes", "3,3"}, {"--files", "1"}, {"--files", "20,20"}, {"--files", "99999999"}, {"--files", "9999999", "--size", "1MiB"},
		{"--scale-nodes", "0"}, {"--singles", "0"}, {"--size", "2MiB"}, {"--nodes", "", "--files", ""}, {"--works", "rescan"}, {"--works", "first,remove"}, {"--works", "first,sleep"}, {"--work", "/no/such/directory"}, {"more"},
	} {
		err := run(ctx, args, &bytes.Buffer{}, &bytes.Buffer{})
		if err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("%q: got %v", args, err)
		}
	}
}

func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
