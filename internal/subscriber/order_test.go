package subscriber

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"treecast/internal/apply"
	"treecast/internal/events"
	"treecast/internal/stream"
)

// An order is a site's entries on their way to a tree: the stream, of which a
// consumer delivers what lives, and a tree that does not take some of it for now.
type order struct {
	stream []events.Entry // by sequence
	newest map[events.Path]uint64
	tree   map[events.Path]uint64
	refuse map[uint64]bool // what the tree does not take
	held   holdings
	last   uint64
	acked  map[uint64]bool
}

var orderPaths = []string{"a", "b", "a/a", "a/b", "a/a/a", "b/a", "."}

func randomEntry(t *rapid.T) events.Entry {
	draw := func(label string) events.Path {
		p, err := events.ParsePath(rapid.SampledFrom(orderPaths).Draw(t, label))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	e := events.Entry{Path: draw("path"), Kind: events.Dir}
	if !e.Path.IsRoot() {
		e.Kind = rapid.SampledFrom([]events.Kind{events.File, events.File, events.Dir, events.Symlink, events.Tombstone}).Draw(t, "kind")
	}
	if from := draw("from"); e.Kind == events.File && !from.IsRoot() && rapid.Bool().Draw(t, "renamed") {
		e.From = &from
	}
	return e
}

// publish stores an entry in place of the path's older one.
func (o *order) publish(e events.Entry) {
	o.stream = append(o.stream, e)
	o.newest[e.Path] = uint64(len(o.stream))
}

// lives reports whether the stream still has the message seq.
func (o *order) lives(seq uint64) bool { return o.newest[o.stream[seq-1].Path] == seq }

// apply is what happens to an entry that nothing holds up.
func (o *order) apply(t *rapid.T, seq uint64, e *events.Entry) {
	if o.tree[e.Path] > seq {
		t.Fatal("an older entry over a newer one")
	}
	for p, at := range o.tree {
		if at > seq && events.Ordered(e, &o.stream[at-1]) && p != e.Path {
			t.Fatal("an entry after kin that came later")
		}
	}
	o.tree[e.Path] = seq
	o.acked[seq] = true
}

// try applies an entry or holds it, as settle does.
func (o *order) try(t *rapid.T, seq uint64) {
	e := o.stream[seq-1]
	d := stream.Delivery{Seq: seq}
	for _, old := range o.held.Supersede(seq, e.Path) {
		o.acked[old.Seq] = true
	}
	switch {
	case o.held.Blocks(seq, &e):
		o.held.Add(d, e, apply.ErrBehind)
	case o.refuse[seq]:
		o.held.Add(d, e, errors.New("no space"))
	default:
		o.apply(t, seq, &e)
		o.held.Release(seq)
	}
}

// again tries what is due, and what is freed by that.
func (o *order) again(t *rapid.T, due []*hold) {
	for ; len(due) > 0; due = o.held.Freed() {
		for _, x := range due {
			if seq := x.delivery.Seq; !o.lives(seq) {
				o.held.Release(seq)
				o.acked[seq] = true
			} else {
				o.try(t, seq)
			}
		}
	}
}

// check compares the holdings with what they should be.
func (o *order) check(t *rapid.T) {
	for i, x := range o.held.list {
		if i > 0 && o.held.list[i-1].delivery.Seq >= x.delivery.Seq {
			t.Fatal("not in stream order")
		}
		if o.acked[x.delivery.Seq] {
			t.Fatal("acked, and held")
		}
	}
	mark := o.held.Before(o.last)
	for seq := uint64(1); seq <= o.last; seq++ {
		if !o.lives(seq) || o.acked[seq] {
			continue
		}
		if !o.held.Holds(seq) {
			t.Fatal("neither applied nor held")
		}
		if seq <= mark {
			t.Fatal("the watermark is past what is held")
		}
	}
	e := randomEntry(t)
	blocked := slices.ContainsFunc(o.held.list, func(x *hold) bool { return x.blocks(o.last+1, &e) })
	if o.held.Blocks(o.last+1, &e) != blocked {
		t.Fatal("Blocks is not what each hold says")
	}
	for _, x := range o.held.Due(len(o.held.list)) {
		if o.held.Blocks(x.delivery.Seq, &x.entry) {
			t.Fatal("due, and waits behind another")
		}
	}
}

// TestHeldEntriesKeepTheOrder: whatever is held, superseded, tried again or, by a
// crash, delivered again, no entry comes after kin that is newer, the watermark
// stays below what is not applied, and in the end the tree is the stream.
func TestHeldEntriesKeepTheOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := &order{newest: map[events.Path]uint64{}, tree: map[events.Path]uint64{}, refuse: map[uint64]bool{}, acked: map[uint64]bool{}}
		t.Repeat(map[string]func(*rapid.T){
			"":        o.check,
			"publish": func(t *rapid.T) { o.publish(randomEntry(t)) },
			"deliver": func(t *rapid.T) {
				for o.last < uint64(len(o.stream)) {
					if o.last++; o.lives(o.last) {
						o.refuse[o.last] = rapid.Bool().Draw(t, "refused")
						o.try(t, o.last)
						o.again(t, o.held.Freed())
						return
					}
				}
				t.Skip("all is delivered")
			},
			"retry": func(t *rapid.T) { o.again(t, o.held.Due(len(o.held.list))) },
			"mend": func(t *rapid.T) {
				clear(o.refuse)
				o.again(t, o.held.Due(len(o.held.list)))
			},
			"crash": func(*rapid.T) {
				mark := o.held.Before(o.last)
				o.held, o.last = holdings{}, mark
				maps.DeleteFunc(o.acked, func(seq uint64, _ bool) bool { return seq > mark })
				maps.DeleteFunc(o.tree, func(_ events.Path, seq uint64) bool { return seq > mark })
			},
		})
		clear(o.refuse)
		o.again(t, o.held.Due(len(o.held.list)))
		for o.last < uint64(len(o.stream)) {
			if o.last++; o.lives(o.last) {
				o.try(t, o.last)
				o.again(t, o.held.Freed())
			}
		}
		o.check(t)
		if len(o.held.list)+len(o.held.at)+len(o.held.below) > 0 {
			t.Fatal("something is left")
		}
		if !maps.Equal(o.tree, o.newest) {
			t.Fatal("the tree is not the stream")
		}
	})
}

// A past is what a stream was: of each message when it was stored, and whether
// it was a lease.
type past struct {
	created time.Time
	times   []time.Time
	leases  []uint64
}

func (p past) lease() uint64 {
	if len(p.leases) == 0 {
		return 0
	}
	return p.leases[len(p.leases)-1]
}

// TestWatermarkIsOfThisStream: a watermark that fits is of the stream that is
// there, message for message, whatever older state was put back, or made anew,
// since, as long as each publisher takes a lease first; one of this stream always
// fits.
func TestWatermarkIsOfThisStream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clock := time.Now().Add(-time.Hour)
		tick := func() time.Time { clock = clock.Add(time.Millisecond); return clock }
		now := past{created: tick()}
		backups := []past{now}
		var mark apply.Watermark
		var of past    // the stream when the mark was made
		fresh := false // no publisher has found the stream as it is
		store := func(lease bool) {
			lease, fresh = lease || fresh, false
			now.times = append(slices.Clone(now.times), tick())
			if lease {
				now.leases = append(slices.Clone(now.leases), uint64(len(now.times)))
			}
		}
		store(true)
		t.Repeat(map[string]func(*rapid.T){
			"message": func(*rapid.T) { store(false) },
			"lease":   func(*rapid.T) { store(true) },
			"backup":  func(*rapid.T) { backups = append(backups, now) },
			"restore": func(t *rapid.T) {
				i := rapid.IntRange(0, len(backups)-1).Draw(t, "backup")
				now, backups, fresh = backups[i], backups[:i+1], true
			},
			"wipe": func(*rapid.T) {
				now, fresh = past{created: tick()}, true
				backups = []past{now}
			},
			"mark": func(t *rapid.T) {
				seq := rapid.IntRange(0, len(now.times)).Draw(t, "seq")
				mark = apply.Watermark{Site: "web", Stream: now.created, Seq: uint64(seq), Time: clock}
				for _, at := range now.times[:seq] {
					mark.Last = at
				}
				for _, lease := range now.leases {
					if lease <= mark.Seq {
						mark.Epoch = lease
					}
				}
				of = now
			},
			"": func(t *rapid.T) {
				if mark.Site == "" {
					return
				}
				newer := uint64(0)
				if !mark.Last.IsZero() {
					if i := slices.IndexFunc(now.times, func(at time.Time) bool { return at.After(mark.Last) }); i >= 0 {
						newer = uint64(i) + 1
					}
				}
				why := unfit(mark, true, "web", stream.Info{Created: now.created, LastSeq: uint64(len(now.times))}, now.lease(), newer)
				same := now.created.Equal(of.created) && uint64(len(now.times)) >= mark.Seq && slices.Equal(now.times[:min(int(mark.Seq), len(now.times))], of.times[:mark.Seq])
				if same != (why == "") {
					t.Logf("mark %+v, stream %+v, was %+v: %q", mark, now, of, why)
					t.Fatal("a watermark fits another stream, or not its own")
				}
			},
		})
	})
}
