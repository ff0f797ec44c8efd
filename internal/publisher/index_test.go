package publisher

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"treecast/internal/events"
)

// TestIndexIsAMap: whatever is put, doubted and removed, the index answers as
// a map of entries would, and forgets nodes that hold nothing.
func TestIndexIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := newIndex()
		model := map[events.Path]events.Entry{}
		names := rapid.SampledFrom([]string{"a", "b", "a/b", "a/b/c", "a/d", "b/c", "."})
		for range rapid.IntRange(1, 60).Draw(t, "ops") {
			p, err := events.ParsePath(names.Draw(t, "path"))
			if err != nil {
				t.Fatal(err)
			}
			if rapid.Bool().Draw(t, "delete") && !p.IsRoot() {
				x.Put(&events.Entry{Path: p, Kind: events.Tombstone})
				delete(model, p)
				continue
			}
			e := events.Entry{Path: p, Kind: events.File, Size: rapid.Int64Range(0, 9).Draw(t, "size"), Owner: rapid.SampledFrom([]string{"", "root", "www"}).Draw(t, "owner")}
			x.Put(&e)
			model[p] = e
		}
		if x.Len() != len(model) {
			t.Fatalf("len %d, want %d", x.Len(), len(model))
		}
		got := map[events.Path]events.Entry{}
		for p := range x.Subtree(events.Path{}) {
			got[p] = model[p]
			if e := model[p]; !x.Same(x.Get(p), &e) {
				t.Fatalf("%v is not what was put", p)
			}
		}
		if !maps.Equal(got, model) {
			t.Fatalf("have %v, want %v", got, model)
		}
		for p := range model {
			x.Put(&events.Entry{Path: p, Kind: events.Tombstone})
		}
		if x.Len() != 0 || len(slices.Collect(x.Children(events.Path{}))) != 0 {
			t.Fatal("nodes are left")
		}
	})
}

// TestDoubtIsNeverEqual: after an unknown outcome a path is sent again,
// whatever stands there.
func TestDoubtIsNeverEqual(t *testing.T) {
	x := newIndex()
	for _, kind := range []events.Kind{events.File, events.Dir, events.Symlink} {
		e := events.Entry{Path: path(t, kind.String()), Kind: kind}
		x.Put(&e)
		if !x.Same(x.Get(e.Path), &e) || !x.Matches(x.Get(e.Path), &e) {
			t.Errorf("%v: not the same before", kind)
		}
		x.Doubt(&e)
		if x.Same(x.Get(e.Path), &e) || x.Matches(x.Get(e.Path), &e) {
			t.Errorf("%v: the same after", kind)
		}
	}
	fresh := events.Entry{Path: path(t, "new"), Kind: events.File}
	x.Doubt(&fresh)
	if x.Get(fresh.Path) == nil {
		t.Error("a new path that may be in the stream must be known, for its tombstone")
	}
}

// TestAnyOtherTimeIsAChange: a clock that steps back gives what is changed then
// older times than before.
func TestAnyOtherTimeIsAChange(t *testing.T) {
	x := newIndex()
	e := events.Entry{Path: path(t, "f"), Kind: events.File, Mtime: events.Time{Sec: 1e9}, Ctime: events.Time{Sec: 2e9, Nsec: 5}}
	x.Put(&e)
	for _, by := range []int64{-3600, -1, 1, 3600} {
		written, touched := e, e
		written.Mtime.Sec += by
		touched.Ctime.Sec += by // by a write whose mtime was set back
		for _, now := range []events.Entry{written, touched} {
			if x.Matches(x.Get(e.Path), &now) {
				t.Errorf("%v, %v is taken for %v, %v", now.Mtime, now.Ctime, e.Mtime, e.Ctime)
			}
		}
	}
}

// BenchmarkIndexMemory prints the bytes for each of a million paths.
func BenchmarkIndexMemory(b *testing.B) {
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		x := newIndex()
		for i := range 1_000_000 {
			p, err := events.ParsePath(fmt.Sprintf("dir%d/sub%d/file-name-%d.html", i/10000, i/100, i))
			if err != nil {
				b.Fatal(err)
			}
			x.Put(&events.Entry{Path: p, Kind: events.File, Owner: "www-data", Group: "www-data"})
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(x.Len()), "B/path")
	}
}
