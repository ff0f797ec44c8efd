package publisher

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"treecast/internal/events"
	"treecast/internal/source"
)

// A diff is a world that changed since an index was made of it.
type diff struct {
	t     *rapid.T
	w     *world
	p     *Publisher
	index *index
	node  replica // has what the index has
}

// newDiff draws a tree, and another one that it became.
func newDiff(t *rapid.T) *diff {
	log := slog.New(slog.DiscardHandler)
	w := newWorld(append(planted(t), someOps(t, 10)...))
	d := &diff{
		t: t, w: w, index: newIndex(), node: w.replica(),
		p: &Publisher{Options: Options{Log: log}, src: w, dirty: newDirtySet(0), report: newReport(log)},
	}
	for p := range w.things {
		e := w.meta(p, true).Entry
		d.index.Put(&e)
	}
	w.tasks()
	w.do(someOps(t, 20))
	return d
}

func (d *diff) examine(tasks []task) (plan, error) {
	return d.p.examine(d.t.Context(), d.index, tasks, nil)
}

// send applies a plan to the node and the index. Entries that the world cannot
// give any more are left out.
func (d *diff) send(pl plan) (left []events.Path) {
	renamed := map[events.Digest]events.Path{} // content, by the name that is to go
	for _, p := range pl.tombstones {
		if r := d.index.Get(p); r.kind == events.File && d.keepsParents(p) {
			renamed[r.digest] = p
		}
	}
	for _, c := range pl.changes {
		m, err := d.w.look(c.meta.Entry.Path, true)
		if err == nil && m.Entry.Kind == events.File {
			m, _, err = d.w.Read(c.meta.Entry.Path, nil)
		}
		if err != nil || m.Entry.Kind != c.meta.Entry.Kind {
			left = append(left, c.meta.Entry.Path)
			continue
		}
		if p := c.meta.Entry.Path; !p.IsRoot() && d.node[p.Parent()].Kind != events.Dir {
			d.t.Logf("%q", p)
			d.t.Fatal("a path comes before its directory")
		}
		d.node.apply(m.Entry)
		d.index.Put(&m.Entry)
		for digest, p := range renamed {
			if _, has := d.node[p]; !has {
				d.t.Logf("%q, of %v", p, digest)
				d.t.Fatal("what is to be deleted last is gone before")
			}
		}
	}
	for _, p := range pl.tombstones {
		for q := range d.node {
			if q != p && q.Within(p) {
				d.t.Logf("%q, which has %q", p, q)
				d.t.Fatal("a directory is deleted before what is in it")
			}
		}
		e := events.Entry{Path: p, Kind: events.Tombstone}
		d.node.apply(e)
		d.index.Put(&e)
	}
	return left
}

// keepsParents reports whether the directories that p was in still are such.
func (d *diff) keepsParents(p events.Path) bool {
	for !p.IsRoot() {
		p = p.Parent()
		if at, ok := d.w.things[p]; ok && at.kind != events.Dir {
			return false
		}
	}
	return true
}

// proven fails if the plan deletes what is, or was, there while it was made.
func (d *diff) proven(pl plan, was replica) {
	for _, p := range pl.tombstones {
		_, before := was[p]
		if _, ok := d.w.things[p]; ok && before {
			d.t.Logf("%q", p)
			d.t.Fatal("a path is deleted, but stands there")
		}
	}
}

func (d *diff) equal(what string) {
	d.t.Helper()
	if text := d.node.differs(d.w.replica()); text != "" {
		d.t.Log(text)
		d.t.Fatalf("%s, and not equal", what)
	}
}

// deep is a scan of the whole.
var deep = []task{{deep: true}}

// TestDiffLeadsToTheSource: whatever a tree became, what a round finds, applied
// in its order, makes that of it; no file is seen in a directory that is not
// there, and none that was renamed is gone under both names.
func TestDiffLeadsToTheSource(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDiff(t)
		tasks := d.w.tasks()
		if rapid.Bool().Draw(t, "scan") {
			tasks = slices.Clone(deep)
		}
		pl, err := d.examine(tasks)
		if err != nil {
			t.Fatal(err)
		}
		d.proven(pl, d.w.replica())
		d.send(pl)
		d.equal("applied")
		if pl, err = d.examine(slices.Clone(deep)); err != nil || len(pl.names()) > 0 {
			t.Logf("%q, %v", pl.names(), err)
			t.Fatal("once more there is something to send")
		}
	})
}

// TestDiffProvesDeletes (P4): whatever cannot be looked at or listed, and
// whatever changes under a round, nothing is deleted that stands there; and what
// was missed is sent when it can be.
func TestDiffProvesDeletes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDiff(t)
		was := d.w.replica()
		d.w.breakSome(t)
		meanwhile := someOps(t, 3)
		d.w.atCall = rapid.IntRange(0, 20).Draw(t, "at call")
		lost := rapid.Bool().Draw(t, "root is lost")
		d.w.happens = func() {
			d.w.do(meanwhile)
			d.w.lost = lost
		}
		tasks := slices.Clone(deep)
		if rapid.Bool().Draw(t, "hints") {
			tasks = d.w.tasks()
		}
		pl, err := d.examine(tasks)
		if d.w.lost != errors.Is(err, source.ErrRootLost) || err != nil && !d.w.lost {
			t.Logf("root is lost: %v, error %v", d.w.lost, err)
			t.Fatal("a lost root and no error, or the other way round")
		}
		if err != nil && len(pl.changes)+len(pl.tombstones) > 0 {
			t.Fatal("a lost root proves something")
		}
		d.proven(pl, was)
		d.send(pl)
		d.w.mend()
		// What was not told at once is found by the hints, the retries, or, where
		// only a change of rights could help, by a scan.
		for range 3 {
			if pl, err = d.examine(append(append(pl.failed, d.w.tasks()...), deep...)); err != nil {
				t.Fatal(err)
			}
			d.proven(pl, d.w.replica())
			d.send(pl)
		}
		d.equal("mended")
	})
}

// TestGuardCountsWhatIsLost (P4): a scan whose plan the guard lets pass deletes
// at most the floor, or half of the files, but for those that have another name;
// and never everything at once.
func TestGuardCountsWhatIsLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDiff(t)
		floor := rapid.IntRange(0, 3).Draw(t, "floor")
		pl, err := d.examine(slices.Clone(deep))
		if err != nil {
			t.Fatal(err)
		}
		lost, arrived := 0, 0
		for p, e := range d.node {
			if _, ok := d.w.things[p]; !ok && e.Kind != events.Dir && d.keepsParents(p) {
				lost++
			}
		}
		for p, at := range d.w.things {
			if d.index.Get(p) == nil && at.kind != events.Dir {
				arrived++
			}
		}
		limit := max(floor, d.index.Files()/2)
		err = pl.check(d.index.Files(), floor)
		switch {
		case err == nil && lost-arrived > limit:
			t.Logf("%d of %d, %d arrived", lost, d.index.Files(), arrived)
			t.Fatal("too many files may go")
		case err == nil && len(d.w.things) == 1 && len(d.node) > 1 && lost > 0:
			t.Fatal("all of it may go")
		case err != nil && lost <= limit && len(d.w.things) > 1:
			t.Logf("%d of %d: %v", lost, d.index.Files(), err)
			t.Fatal("few files may not go")
		}
	})
}

// A replica is a node in a few lines: what stands at each path after entries
// were applied, in the order in which they came.
type replica map[events.Path]events.Entry

func (r replica) apply(e events.Entry) {
	if e.Kind != events.Dir {
		for p := range r {
			if p.Within(e.Path) {
				delete(r, p)
			}
		}
	}
	if e.Kind == events.Tombstone {
		return
	}
	r[e.Path] = plain(e)
}

// plain is e without what does not show on a node.
func plain(e events.Entry) events.Entry {
	e.Ctime, e.Epoch, e.From, e.Whole = events.Time{}, 0, nil, false
	return e
}

// replica is the node that is equal to the world.
func (w *world) replica() replica {
	r := replica{}
	for p := range w.things {
		r.apply(w.meta(p, true).Entry)
	}
	return r
}

// differs says where two replicas are not equal, "" if nowhere.
func (r replica) differs(want replica) string {
	for p, e := range want {
		if have, ok := r[p]; !ok || have != e {
			return fmt.Sprintf("%q is %+v, want %+v", p, have, e)
		}
	}
	for p, e := range r {
		if _, ok := want[p]; !ok {
			return fmt.Sprintf("%q is left: %+v", p, e)
		}
	}
	return ""
}
