package rig

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAwait shows that every path counts, by its kind, size and time, or by its
// absence, at every node.
func TestAwait(t *testing.T) {
	source, nodes := t.TempDir(), []string{t.TempDir(), t.TempDir()}
	when := time.Date(2026, 1, 2, 3, 4, 5, 600_000_007, time.UTC)
	put := func(root, name, text string, when time.Time) {
		t.Helper()
		name = filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644), os.Chtimes(name, when, when)); err != nil {
			t.Fatal(err)
		}
	}
	link := func(root string) {
		t.Helper()
		name, times := filepath.Join(root, "link"), []unix.Timespec{unix.NsecToTimespec(when.UnixNano()), unix.NsecToTimespec(when.UnixNano())}
		if err := errors.Join(os.Symlink("c", name), unix.UtimesNanoAt(unix.AT_FDCWD, name, times, unix.AT_SYMLINK_NOFOLLOW)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"d/a", "d/e/b", "c"} {
		for _, root := range append(nodes, source) {
			put(root, name, "text", when)
		}
	}
	link(source)
	all, err := Everything(source, "d", "link")
	if err != nil || len(all) != 5 {
		t.Fatalf("%v, %v", all, err)
	}
	all = append(all, Wanted{Path: "gone", Gone: true})

	last := nodes[1]
	for _, root := range nodes {
		link(root)
	}
	if err := Await(t.Context(), nodes, all); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(){
		"time":    func() { put(last, "d/a", "text", when.Add(1)) },
		"size":    func() { put(last, "d/a", "texts", when) },
		"missing": func() { os.RemoveAll(filepath.Join(last, "d")) },
		"kind":    func() { os.Remove(filepath.Join(last, "link")); put(last, "link", "c", when) },
		"there":   func() { put(last, "gone", "", when) },
	} {
		spoil()
		left := pending{node: last, all: append([]Wanted(nil), all...)}
		left.look()
		if len(left.all) == 0 {
			t.Errorf("%s: was not seen", name)
		}
		os.RemoveAll(filepath.Join(last, "gone"))
		os.Remove(filepath.Join(last, "link"))
		link(last)
		put(last, "d/a", "text", when)
		put(last, "d/e/b", "text", when)
	}

	put(last, "gone", "", when)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(ErrLate)
	if err := Await(ctx, nodes, all); !errors.Is(err, ErrLate) {
		t.Errorf("got %v", err)
	}
}

// TestLookGoesOn shows that what has come is crossed off, though many others are
// missing.
func TestLookGoesOn(t *testing.T) {
	node := t.TempDir()
	var p pending
	for i := range 1000 {
		name := string(rune('A'+i%26)) + time.Duration(i).String()
		if err := os.WriteFile(filepath.Join(node, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Lstat(filepath.Join(node, name))
		if err != nil {
			t.Fatal(err)
		}
		p.all = append(p.all, wanted(name, fi))
		if i%2 == 0 {
			os.Remove(filepath.Join(node, name))
		}
	}
	p.node = node
	for range 1000 {
		p.look()
	}
	if len(p.all) != 500 {
		t.Errorf("%d left of 500 that are missing", len(p.all))
	}
}
