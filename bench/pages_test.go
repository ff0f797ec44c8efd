package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"treecast/bench/internal/rig"
)

// blocked is a system that carries nothing for a while, and then all at once.
type blocked struct {
	system
	trees rig.Trees
	until time.Time
	kept  []string
}

func (b *blocked) carry(_ context.Context, c rig.Change) error {
	b.kept = append(b.kept, c.Present...)
	if time.Now().Before(b.until) {
		return nil
	}
	for _, name := range b.kept {
		from := filepath.Join(b.trees.Source, name)
		fi, err := os.Lstat(from)
		if err != nil {
			return err
		}
		for _, node := range b.trees.Nodes {
			to := filepath.Join(node, name)
			if err := errors.Join(os.WriteFile(to, make([]byte, fi.Size()), 0o600), os.Chtimes(to, fi.ModTime(), fi.ModTime())); err != nil {
				return err
			}
		}
	}
	b.kept = nil
	return nil
}

// TestPagesDoNotWaitForEachOther shows that a system that stands still for a
// second is late with each page of that second, not with the first alone.
func TestPagesDoNotWaitForEachOther(t *testing.T) {
	trees, err := rig.NewTrees(filepath.Join(t.TempDir(), "trees"), 2)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		const still = time.Second
		q := &sequence{
			bench: &bench{command: command{Patience: time.Minute}}, trees: trees,
			system: &blocked{trees: trees, until: time.Now().Add(still)},
		}
		took, err := q.during(t.Context(), trees.Nodes, ".", func(ctx context.Context) error { return rig.Sleep(ctx, 2*still) })
		if err != nil {
			t.Fatal(err)
		}
		late := len(slices.DeleteFunc(slices.Clone(took), func(d time.Duration) bool { return d < still/20 }))
		if len(took) < 15 || late < 7 || late > 11 || slices.Max(took) < still*9/10 {
			t.Errorf("%d of %d pages are late: %v", late, len(took), took)
		}
	})
}

func TestPagesEnd(t *testing.T) {
	trees, err := rig.NewTrees(filepath.Join(t.TempDir(), "trees"), 1)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	synctest.Test(t, func(t *testing.T) {
		q := &sequence{bench: &bench{command: command{Patience: time.Minute}}, trees: trees, system: &blocked{trees: trees, until: time.Now().Add(time.Hour)}}
		if _, err := q.during(t.Context(), trees.Nodes, ".", func(context.Context) error { return broken }); !errors.Is(err, broken) {
			t.Errorf("what it is done beside fails: %v", err)
		}
		if _, err := q.during(t.Context(), trees.Nodes, ".", func(context.Context) error { return nil }); !errors.Is(err, rig.ErrLate) {
			t.Errorf("a page does not come: %v", err)
		}
	})
}
