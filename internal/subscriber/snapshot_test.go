package subscriber

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"treecast/internal/events"
)

// A path that is published while the stream is read may come twice.
func TestSnapshotHasEachPathOnce(t *testing.T) {
	var s snapshot
	for i, name := range []string{"b", "a", "b", "a/c"} {
		p, err := events.ParsePath(name)
		if err != nil {
			t.Fatal(err)
		}
		s = append(s, &known{seq: uint64(i + 1), entry: events.Entry{Path: p, Kind: events.Dir}})
	}
	a, b := s[1].entry.Path, s[0].entry.Path
	s = s.inForce()
	var seqs []uint64
	for _, k := range s {
		seqs = append(seqs, k.seq)
	}
	if want := []uint64{2, 4, 3}; !slices.Equal(seqs, want) {
		t.Errorf("in force: %v, want %v", seqs, want)
	}
	if len(s.after(a)) != 2 || len(s.after(b)) != 0 {
		t.Errorf("after %v: %d, after %v: %d", a, len(s.after(a)), b, len(s.after(b)))
	}
}

// What a snapshot says is what its entries leave when they are applied one after
// the other.
func TestSnapshotIsTheStreamsOrder(t *testing.T) {
	names := []string{"a", "b", "a/a", "a/b", "a/a/a", "a/a/b", "b/a"}
	rapid.Check(t, func(t *rapid.T) {
		var all snapshot
		tree := map[events.Path]events.Kind{}
		for i, name := range rapid.Permutation(names).Draw(t, "order") {
			p, err := events.ParsePath(name)
			if err != nil {
				t.Fatal(err)
			}
			kind := rapid.SampledFrom([]events.Kind{0, events.File, events.Dir, events.Tombstone}).Draw(t, name)
			if kind == 0 {
				continue
			}
			all = append(all, &known{seq: uint64(i + 1), entry: events.Entry{Path: p, Kind: kind}})
			if kind != events.Dir {
				maps.DeleteFunc(tree, func(q events.Path, _ events.Kind) bool { return q.Within(p) })
			}
			if kind == events.Tombstone {
				continue
			}
			tree[p] = kind
			for q := p.Parent(); !q.IsRoot(); q = q.Parent() {
				tree[q] = events.Dir
			}
		}
		want := map[events.Path]*events.Entry{}
		for _, e := range all.inForce().entries() {
			want[e.Path] = e
		}
		got := map[events.Path]events.Kind{}
		for p, e := range want {
			if e.Kind == events.Tombstone {
				continue
			}
			got[p] = e.Kind
			for q := p.Parent(); !q.IsRoot(); q = q.Parent() {
				if e := want[q]; e != nil && e.Kind == events.File {
					t.Fatalf("%q is wanted in the file %q", p, q)
				}
				got[q] = events.Dir
			}
		}
		// A directory that was made on the way to what is gone by now may be missing,
		// or left: it has no entry.
		bare := func(m map[events.Path]events.Kind) {
			maps.DeleteFunc(m, func(p events.Path, k events.Kind) bool {
				return k == events.Dir && (want[p] == nil || want[p].Kind != events.Dir)
			})
		}
		bare(got)
		bare(tree)
		if !maps.Equal(got, tree) {
			t.Fatalf("got %v, want %v", got, tree)
		}
	})
}
