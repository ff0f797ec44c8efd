package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"treecast/bench/internal/rig"
)

// TestRun measures a small file with what needs no broker, and looks at what is
// printed and at what is left.
func TestRun(t *testing.T) {
	systems := []string{"copy"}
	if rig.Has("rsync") {
		systems = append(systems, "rsync")
	}
	work, raw := t.TempDir(), filepath.Join(t.TempDir(), "raw.csv")
	var out, log bytes.Buffer
	err := run(t.Context(), []string{
		"--size", "64KiB", "--nodes", "2", "--rounds", "2", "--kinds", "text", "--systems", strings.Join(systems, ","), "--work", work, "--csv", raw,
	}, &out, &log)
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	for _, s := range steps {
		if !strings.Contains(out.String(), "\n"+s.name) {
			t.Errorf("no line of %q in\n%s", s.name, &out)
		}
	}
	text, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if want := 1 + 2*len(systems)*len(steps); err != nil || len(rows) != want {
		t.Errorf("%d rows, want %d; %v\n%s", len(rows), want, err, text)
	}
	empty(t, work)
}

func TestRunIsStopped(t *testing.T) {
	work := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := run(ctx, []string{"--size", "64KiB", "--systems", "copy", "--work", work}, &bytes.Buffer{}, &bytes.Buffer{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	empty(t, work)
}

func TestRunRefuses(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // what is not refused gets no further
	for _, args := range []string{
		"--size 1KiB", "--size 256", "--size much", "--nodes 0", "--rounds 0", "--kinds video", "--kinds text,text",
		"--systems scp", "--work /no/such/directory", "--size 1000000GiB", "more",
	} {
		err := run(ctx, strings.Fields(args), &bytes.Buffer{}, &bytes.Buffer{})
		if err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v", args, err)
		}
	}
}

// TestSameBytes shows that a node's file with the right size and time and other
// bytes is found.
func TestSameBytes(t *testing.T) {
	trees, err := rig.NewTrees(filepath.Join(t.TempDir(), "t"), 2)
	if err != nil {
		t.Fatal(err)
	}
	for i, dir := range append([]string{trees.Source}, trees.Nodes...) {
		text := "right"
		if i == 2 {
			text = "wrong"
		}
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := sameBytes(t.Context(), trees, "f"); err == nil || !strings.Contains(err.Error(), trees.Nodes[1]) {
		t.Errorf("got %v", err)
	}
	trees.Nodes = trees.Nodes[:1]
	if err := sameBytes(t.Context(), trees, "f"); err != nil {
		t.Error(err)
	}
}

func empty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
