package subscriber

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"treecast/internal/apply"
	"treecast/internal/events"
	"treecast/internal/stream"
)

// A stream whose lease is written anew while the first snapshot is read.
type renewed struct {
	Stream
	lease, last uint64
	snapshots   int
}

func (r *renewed) LeaseSeq(context.Context, events.Site) (uint64, error) { return r.lease, nil }

func (r *renewed) Snapshot(context.Context, events.Site, func(seq uint64, subject, header string) error) (stream.Info, error) {
	if r.snapshots++; r.snapshots == 1 {
		r.last++
		r.lease = r.last
	}
	return stream.Info{LastSeq: r.last}, nil
}

// TestLeaseIsOfTheSnapshot: a lease that is older than the snapshot's end and not
// known with it would be taken for a stream that went back.
func TestLeaseIsOfTheSnapshot(t *testing.T) {
	s := &subscriber{stream: &renewed{lease: 1, last: 1}}
	v, err := s.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if v.lease != 2 || v.info.LastSeq != 2 {
		t.Errorf("lease %d, the snapshot ends at %d", v.lease, v.info.LastSeq)
	}
}

// growing is a stream that gets three messages before a snapshot of it begins,
// and three more while it is read.
type growing struct {
	Stream
	t       *testing.T
	fetched []uint64
}

func (g *growing) StreamInfo(context.Context, events.Site) (stream.Info, error) {
	return stream.Info{LastSeq: 3, Created: time.Unix(1, 0), Now: time.Now()}, nil
}

func (g *growing) LeaseSeq(context.Context, events.Site) (uint64, error) { return 0, nil }

func (g *growing) message(seq uint64) stream.Delivery {
	p, err := events.ParsePath(fmt.Sprint("f", seq))
	if err != nil {
		g.t.Fatal(err)
	}
	e := events.Entry{Path: p, Kind: events.Symlink, Mode: 0o777, Target: "x"}
	header, err := e.MarshalHeader()
	if err != nil {
		g.t.Fatal(err)
	}
	return stream.Delivery{Seq: seq, Subject: events.Site("web").Subject(p), Header: header}
}

func (g *growing) Snapshot(ctx context.Context, site events.Site, fn func(uint64, string, string) error) (stream.Info, error) {
	for seq := uint64(1); seq <= 6; seq++ {
		d := g.message(seq)
		if err := fn(d.Seq, d.Subject, d.Header); err != nil {
			return stream.Info{}, err
		}
	}
	return g.StreamInfo(ctx, site)
}

func (g *growing) Fetch(_ context.Context, _ events.Site, wanted []stream.Wanted, fn func(stream.Delivery) error) error {
	for _, w := range wanted {
		g.fetched = append(g.fetched, w.Seq)
		if err := fn(g.message(w.Seq)); err != nil {
			return err
		}
	}
	return nil
}

// TestNothingIsFetchedTwice: what is stored while a snapshot is read comes by the
// consumer, and by that alone.
func TestNothingIsFetchedTwice(t *testing.T) {
	if seq, fetched := began(t, true); seq != 3 || !slices.Equal(fetched, []uint64{1, 2, 3}) {
		t.Errorf("the reconcile fetched %v, and the consumer begins after %d; want 1, 2, 3, and 3", fetched, seq)
	}
}

// TestAnEmptyTreeIsNotCompared: it gets all of the stream by the consumer.
func TestAnEmptyTreeIsNotCompared(t *testing.T) {
	if seq, fetched := began(t, false); seq != 0 || len(fetched) > 0 {
		t.Errorf("an empty tree fetched %v, and the consumer begins after %d; want nothing, and 0", fetched, seq)
	}
}

// began returns where a node without a watermark begins to follow a stream that
// grows, and what it fetched before; stands says whether something is in its root.
func began(t *testing.T, stands bool) (seq uint64, fetched []uint64) {
	t.Helper()
	codec, err := events.NewCodec(1)
	if err != nil {
		t.Fatal(err)
	}
	defer codec.Close()
	root := t.TempDir()
	if stands {
		if err := os.WriteFile(filepath.Join(root, "foreign"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := apply.Open(apply.Options{Root: root, Site: "web", Node: "b", Codec: codec})
	if err != nil {
		t.Fatal(err)
	}
	g := &growing{t: t}
	r, err := NewReplica(g, nil, tree, Options{Site: "web", Node: "b", Root: root, Log: slog.New(slog.DiscardHandler)}, func(uint64) {})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if seq, err = r.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	return seq, g.fetched
}
