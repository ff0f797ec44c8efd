package subscriber

import (
	"strings"
	"testing"
	"time"

	"treecast/internal/apply"
	"treecast/internal/stream"
)

// TestUnfit is every way in which a watermark does not tell where a tree stands.
func TestUnfit(t *testing.T) {
	created := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now := created.Add(300 * 24 * time.Hour) // of the server: this host's clock is not asked
	for name, c := range map[string]struct {
		change       func(*apply.Watermark, *stream.Info)
		none         bool
		lease, newer uint64
		want         string // part of the reason; "": it fits
	}{
		"as it was":                     {lease: 90},
		"a lease after it":              {lease: 120},
		"messages after it":             {lease: 90, newer: 101},
		"none":                          {none: true, want: "no watermark"},
		"another site":                  {change: func(m *apply.Watermark, _ *stream.Info) { m.Site = "other" }, want: "site other"},
		"long ago":                      {change: func(m *apply.Watermark, _ *stream.Info) { m.Time = now.Add(-29 * 24 * time.Hour) }, want: "longer than deletions"},
		"long ago for this stream":      {change: func(_ *apply.Watermark, i *stream.Info) { i.TombstoneTTL = time.Minute }, want: "longer than deletions"},
		"another stream":                {change: func(_ *apply.Watermark, i *stream.Info) { i.Created = created.Add(1) }, want: "another one"},
		"the stream ends before it":     {change: func(_ *apply.Watermark, i *stream.Info) { i.LastSeq = 99 }, want: "went back from 100 to 99"},
		"a lease before it that is new": {lease: 95, want: "the lease 95 is new"},
		"messages before it that are":   {lease: 120, newer: 97, want: "message 97"},
		"it ends before what came after what is held":              {change: func(m *apply.Watermark, i *stream.Info) { m.Seq, m.Known, i.LastSeq = 50, 100, 99 }, want: "went back from 100 to 99"},
		"a lease that is new, before what came after what is held": {change: func(m *apply.Watermark, _ *stream.Info) { m.Seq, m.Known, m.Epoch = 50, 100, 40 }, lease: 95, want: "the lease 95 is new"},
		"its own message came again new":                           {lease: 120, newer: 100, want: "message 100"},
	} {
		mark := apply.Watermark{Site: "web", Stream: created, Epoch: 90, Seq: 100, Time: now.Add(-time.Hour)}
		info := stream.Info{Created: created, Now: now, LastSeq: 200}
		if c.change != nil {
			c.change(&mark, &info)
		}
		got := unfit(mark, !c.none, "web", info, c.lease, c.newer)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestVouches: a root's entry from before what the node knew is not believed; one
// that came later is, whatever the server's clock says.
func TestVouches(t *testing.T) {
	last := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	mark := apply.Watermark{Seq: 100, Last: last}
	for name, c := range map[string]struct {
		root *stream.Delivery
		want bool
	}{
		"none":                       {nil, false},
		"from before":                {&stream.Delivery{Seq: 50, Time: last.Add(-time.Hour)}, false},
		"the one that it knows":      {&stream.Delivery{Seq: 100, Time: last}, false},
		"later, in a shorter stream": {&stream.Delivery{Seq: 60, Time: last.Add(1)}, true},
		"later, by a slow clock":     {&stream.Delivery{Seq: 101, Time: last.Add(-time.Hour)}, true},
	} {
		if got := vouches(c.root, mark); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
