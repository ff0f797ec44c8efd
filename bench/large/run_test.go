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
)

// TestRun measures a small file with what needs no broker, and looks at what is
// printed and at what is left.
func TestRun(t *testing.T) {
	systems := []string{"copy"}
	if has("rsync") {
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
	trees, err := newTrees(filepath.Join(t.TempDir(), "t"), "text", 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	for i, dir := range append([]string{trees.source}, trees.nodes...) {
		text := "right"
		if i == 2 {
			text = "wrong"
		}
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := sameBytes(t.Context(), trees, "f"); err == nil || !strings.Contains(err.Error(), trees.nodes[1]) {
		t.Errorf("got %v", err)
	}
	trees.nodes = trees.nodes[:1]
	if err := sameBytes(t.Context(), trees, "f"); err != nil {
		t.Error(err)
	}
}

// TestDaemonsEnd shows that one that ends by itself is an error, and one that is
// stopped is not.
func TestDaemonsEnd(t *testing.T) {
	failed := make(chan error, 2)
	d := &daemons{dir: t.TempDir(), fail: func(err error) { failed <- err }}
	if _, err := d.start(t.Context(), "stays", "sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.start(t.Context(), "ends", "sh", "-c", "echo why; exit 3"); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, errEnded) || !strings.Contains(err.Error(), "ends") {
		t.Errorf("got %v", err)
	}
	d.stop()
	if len(failed) > 0 {
		t.Errorf("got %v", <-failed)
	}
	var log bytes.Buffer
	d.printLogs(&log)
	if !strings.Contains(log.String(), "why") {
		t.Errorf("log: %q", &log)
	}
}

func empty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
