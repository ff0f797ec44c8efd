package subscriber

import (
	"errors"
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

// TestHoldingsAreTriedInParts: what is not tried yet stays held, so that the
// watermark stays below it.
func TestHoldingsAreTriedInParts(t *testing.T) {
	var h holdings
	for seq := uint64(1); seq <= 10; seq++ {
		h.Add(stream.Delivery{Seq: seq}, entry(t, "p", events.File), apply.ErrBehind)
	}
	part := h.Take(0, 4)
	if len(part) != 4 || part[0].delivery.Seq != 1 || h.Before(100) != 4 {
		t.Fatalf("first part %+v, watermark %d", part, h.Before(100))
	}
	h.Add(part[2].delivery, part[2].entry, apply.ErrBehind) // it fails again
	if part = h.Take(1, 4); len(part) != 4 || part[0].delivery.Seq != 5 || h.Before(100) != 2 {
		t.Fatalf("second part %+v, watermark %d", part, h.Before(100))
	}
	if part = h.Take(1, 4); len(part) != 2 || part[0].delivery.Seq != 9 || len(h.Take(1, 4)) != 0 {
		t.Fatalf("last part %+v", part)
	}
}
