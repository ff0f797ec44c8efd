package subscriber

import (
	"maps"
	"testing"

	"pgregory.net/rapid"

	"treecast/internal/events"
)

// What a snapshot says is what its entries leave when they are applied one after
// the other.
func TestSupersedeIsTheStreamsOrder(t *testing.T) {
	names := []string{"a", "b", "a/a", "a/b", "a/a/a", "a/a/b", "b/a"}
	rapid.Check(t, func(t *rapid.T) {
		want := map[events.Path]*events.Entry{}
		seqOf := map[events.Path]uint64{}
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
			want[p], seqOf[p] = &events.Entry{Path: p, Kind: kind}, uint64(i+1)
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
		supersede(want, seqOf)
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
