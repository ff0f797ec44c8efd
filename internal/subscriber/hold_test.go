package subscriber

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"treecast/internal/apply"
	"treecast/internal/events"
	"treecast/internal/stream"
)

func entry(t *testing.T, path string, kind events.Kind) events.Entry {
	t.Helper()
	p, err := events.ParsePath(path)
	if err != nil {
		t.Fatal(err)
	}
	return events.Entry{Path: p, Kind: kind}
}

// TestARenamedFileKeepsItsOldName: while a large body is fetched, what it was
// renamed from must not go.
func TestARenamedFileKeepsItsOldName(t *testing.T) {
	var h holdings
	renamed := entry(t, "new", events.File)
	from := entry(t, "d/old", events.Tombstone)
	renamed.From = &from.Path
	h.Add(stream.Delivery{Seq: 5}, renamed, errFetching)
	for path, want := range map[string]bool{"d/old": true, "d": true, "d/older": false, "e": false} {
		e := entry(t, path, events.Tombstone)
		if got := h.Blocks(6, &e); got != want {
			t.Errorf("tombstone of %s: blocked %v", path, got)
		}
		if h.Blocks(4, &e) {
			t.Errorf("tombstone of %s from before: blocked", path)
		}
	}
	if dir := entry(t, "d", events.Dir); h.Blocks(6, &dir) {
		t.Error("a directory takes nothing away")
	}
	if !h.Release(5) || h.Release(5) || h.Blocks(6, &from) {
		t.Error("not released")
	}
}

// TestHoldingsKeepTheWatermarkBelow: what is held comes again after a crash.
func TestHoldingsKeepTheWatermarkBelow(t *testing.T) {
	var h holdings
	if got := h.Before(7); got != 7 {
		t.Errorf("nothing held: %d", got)
	}
	cause := errors.New("no space")
	h.Add(stream.Delivery{Seq: 9, Payload: []byte("x")}, entry(t, "b", events.File), cause)
	h.Add(stream.Delivery{Seq: 5}, entry(t, "a", events.File), cause)
	h.Add(stream.Delivery{Seq: 9}, entry(t, "b", events.File), cause)
	if len(h.list) != 2 || h.list[0].delivery.Seq != 5 || h.list[1].delivery.Payload != nil {
		t.Fatalf("not in stream order, once each, without payload: %+v", h.list)
	}
	if got := h.Before(20); got != 4 {
		t.Errorf("5 is held: %d", got)
	}
	if old := h.Supersede(20, entry(t, "a", events.File).Path); len(old) != 1 || old[0].Seq != 5 {
		t.Errorf("superseded: %+v", old)
	}
	if got := h.Before(20); got != 8 || h.Holds(5) || !h.Holds(9) {
		t.Errorf("9 is held: %d", got)
	}
}

// TestHoldingsBlockWhatOrderMatters: kin waits, unless the upper one is wanted
// as a directory.
func TestHoldingsBlockWhatOrderMatters(t *testing.T) {
	for _, c := range []struct {
		held, comes events.Entry
		blocks      bool
	}{
		{entry(t, "a/b", events.File), entry(t, "a/b", events.File), true},
		{entry(t, "a/b", events.File), entry(t, "a", events.File), true},
		{entry(t, "a/b", events.File), entry(t, "a", events.Tombstone), true},
		{entry(t, "a/b", events.File), entry(t, "a", events.Dir), false},
		{entry(t, "a/b", events.File), entry(t, ".", events.Dir), false},
		{entry(t, "a", events.Tombstone), entry(t, "a/b", events.File), true},
		{entry(t, "a", events.Dir), entry(t, "a/b", events.File), false},
		{entry(t, "a/b", events.File), entry(t, "a/c", events.File), false},
		{entry(t, "a/b", events.File), entry(t, "a/bc", events.File), false},
	} {
		var h holdings
		h.Add(stream.Delivery{Seq: 1}, c.held, apply.ErrBehind)
		if got := h.Blocks(2, &c.comes); got != c.blocks {
			t.Errorf("%v %v held, %v %v comes: blocks %v", c.held.Kind, c.held.Path, c.comes.Kind, c.comes.Path, got)
		}
	}
}

// TestDueIsWhatATryMayHelp: neither what is being fetched nor what waits behind
// another; what waited is due when that one is gone.
func TestDueIsWhatATryMayHelp(t *testing.T) {
	var h holdings
	large := entry(t, "d/large", events.File)
	from := entry(t, "old/large", events.Tombstone)
	large.From = &from.Path
	h.Add(stream.Delivery{Seq: 3}, large, errFetching)
	h.Add(stream.Delivery{Seq: 5}, from, apply.ErrBehind)
	h.Add(stream.Delivery{Seq: 6}, entry(t, "old", events.Tombstone), apply.ErrBehind)
	h.Add(stream.Delivery{Seq: 7}, entry(t, "full", events.File), errors.New("no space"))
	due := func(got []*hold, want ...uint64) {
		t.Helper()
		var seqs []uint64
		for _, x := range got {
			seqs = append(seqs, x.delivery.Seq)
		}
		if !slices.Equal(seqs, want) {
			t.Errorf("due: %v, want %v", seqs, want)
		}
	}
	due(h.Due(9), 7)
	due(h.Freed())
	h.Release(3)
	due(h.Freed(), 5) // old has old/large in it
	due(h.Freed())
	h.Release(5)
	due(h.Freed(), 6)
	due(h.Due(9), 6, 7)
	h.Supersede(9, from.Path)
	h.Supersede(9, entry(t, "old", events.File).Path)
	h.Supersede(9, entry(t, "full", events.File).Path)
	if h.Freed(); len(h.list)+len(h.at)+len(h.below) > 0 {
		t.Errorf("something is left: %+v", h)
	}
}

// TestCutLeavesTheRestToTheConsumer: what a reconcile cannot hold comes again,
// and so must all after it.
func TestCutLeavesTheRestToTheConsumer(t *testing.T) {
	var h holdings
	for seq := uint64(1); seq <= 10; seq++ {
		cause := errors.New("no space")
		if seq%2 == 0 {
			cause = errFetching
		}
		h.Add(stream.Delivery{Seq: seq}, entry(t, fmt.Sprint("p", seq), events.File), cause)
	}
	if last := h.Cut(9, 5); last != 9 || h.Holds(10) || len(h.list) != 9 {
		t.Errorf("what is newer than the snapshot comes anyway: %d, %+v", last, h.list)
	}
	if last := h.Cut(9, 2); last != 4 || len(h.list) != 4 || h.Before(last) != 0 {
		t.Errorf("two failed ones and what is before the third stay: %d, %+v", last, h.list)
	}
	if !h.bodies[4].gone || h.bodies[1].gone || len(h.at) != 4 {
		t.Errorf("not forgotten: %+v", h)
	}
}

// TestManyAreLetGo: the broker waits for few of those that are held; all of them are
// held, and the watermark stays below.
func TestManyAreLetGo(t *testing.T) {
	var h holdings
	add := func(seq uint64) {
		h.Add(stream.Delivery{Seq: seq}, entry(t, fmt.Sprint("p", seq), events.File), errors.New("no space"))
	}
	for seq := uint64(1); seq <= 4; seq++ {
		add(seq)
	}
	if acks := h.LetGo(4); acks != nil || !h.Unacked(1) {
		t.Errorf("few: %+v", acks)
	}
	add(5)
	add(5) // with another cause
	h.Release(2)
	add(6)
	acks := h.LetGo(4)
	if len(acks) != 5 || acks[4].Seq != 1 || h.Unacked(1) || !h.Holds(1) || h.Before(9) != 0 || h.unacked != 0 {
		t.Errorf("many: %+v, %+v", acks, h)
	}
	add(8)
	if !h.Unacked(8) || h.Unacked(2) || h.unacked != 1 || h.LetGo(1) != nil {
		t.Errorf("one more: %+v", h)
	}
	h.Release(1)
	h.Release(8)
	if h.unacked != 0 || len(h.list) != 4 {
		t.Errorf("released: %+v", h)
	}
}

// TestEachGetsItsTry: where many are held each try takes the next ones.
func TestEachGetsItsTry(t *testing.T) {
	var h holdings
	for seq := uint64(1); seq <= 5; seq++ {
		h.Add(stream.Delivery{Seq: seq}, entry(t, fmt.Sprint("p", seq), events.File), errors.New("no space"))
	}
	var tried []uint64
	for i := range 4 {
		for _, x := range h.Due(2) {
			tried = append(tried, x.delivery.Seq)
		}
		if i == 1 {
			h.Release(4) // the last one that was tried
		}
	}
	if want := []uint64{1, 2, 3, 4, 5, 1, 2, 3}; !slices.Equal(tried, want) {
		t.Errorf("tried %v, want %v", tried, want)
	}
	if n := len(h.Due(100)); n != 4 {
		t.Errorf("of 4 %d are due", n)
	}
}
