package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"treecast/bench/internal/rig"
)

// TestRun takes a small tree through all works, and looks at what is printed,
// what is written and what is left.
func TestRun(t *testing.T) {
	if testing.Short() || !rig.Has("rsync") {
		t.Skip("takes a while, and rsync")
	}
	systems := []string{"treecast", "copy"}
	if rig.Has("inotifywait") {
		systems = append(systems, "loop")
	}
	work, written := t.TempDir(), filepath.Join(t.TempDir(), "out")
	var out, log bytes.Buffer
	err := run(t.Context(), []string{
		"--files", "30", "--bytes", "100KiB", "--size", "1MiB", "--singles", "2", "--upload", "2MiB", "--behind", "30", "--nodes", "2", "--fanout", "1", "--rounds", "1",
		"--systems", strings.Join(systems, ","), "--work", work, "--out", written, "--settle", "1ms", "--rest", "1ms", "--log", "100ms", "--patience", "2m",
	}, &out, &log)
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	for _, line := range []string{"| first sync of all nodes (30 files, ", "| one 4 KiB file, p99 | ", "| rm -r of it | ", "| node back ", "| 4 KiB page during that upload of 2 MiB, p99 | ", "| 4 KiB page at the other nodes, p99 before | ", "| treecast | publisher | ", "| treecast | 1 | "} {
		if !strings.Contains(out.String(), "\n"+line) {
			t.Errorf("no line %q in\n%s\n%s", line, &out, &log)
		}
	}

	table, err := os.ReadFile(filepath.Join(written, "bench.md"))
	if err != nil || !bytes.Equal(table, out.Bytes()) {
		t.Errorf("bench.md is not what was printed: %v\n%s", err, table)
	}
	text, err := os.ReadFile(filepath.Join(written, "bench.csv"))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, system := range systems {
		// The loop loses what is made in a new directory before it watches that,
		// and is measured no further.
		if system == "loop" && slices.ContainsFunc(rows, func(r []string) bool { return r[1] == "loop" && strings.HasPrefix(r[4], "not in ") }) {
			continue
		}
		for _, w := range works {
			found := slices.ContainsFunc(rows, func(r []string) bool { return r[1] == system && r[2] == "2" && r[3] == w.name && r[5] != "" })
			if want := system != "copy" || w.name != "back" && w.name != "behind"; found != want {
				t.Errorf("%s, %s: there is a number: %v, want %v\n%s\n%s", system, w.name, found, want, text, &log)
			}
		}
	}
	drawing, err := os.ReadFile(filepath.Join(written, "bench.svg"))
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, drawing)
	empty(t, work)
}

func TestRunIsStopped(t *testing.T) {
	work := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := run(ctx, []string{"--files", "30", "--systems", "copy", "--work", work}, &bytes.Buffer{}, &bytes.Buffer{})
	if !errors.Is(err, context.Canceled) && rig.Has("rsync") {
		t.Errorf("got %v", err)
	}
	empty(t, work)
}

func TestRunRefuses(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // what is not refused gets no further
	for _, args := range []string{
		"--nodes 0", "--rounds 0", "--files 0", "--fanout 1,0", "--size 0", "--behind 0", "--systems scp", "--systems copy,copy", "--works first,rename",
		"--works single", "--tree /no/such/directory", "--work /no/such/directory", "more",
	} {
		err := run(ctx, strings.Fields(args), &bytes.Buffer{}, &bytes.Buffer{})
		if err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v", args, err)
		}
	}
}

func wellFormed(t *testing.T, text []byte) {
	t.Helper()
	for d := xml.NewDecoder(bytes.NewReader(text)); ; {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
	}
}

func empty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
