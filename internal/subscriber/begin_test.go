package subscriber

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"treecast/internal/apply"
	"treecast/internal/events"
	"treecast/internal/stream"
)

// A stored stream, whose first message is the lease.
type stored struct {
	Stream
	t         *testing.T
	created   time.Time
	messages  []stream.Delivery
	snapshots int
}

const day = 24 * time.Hour

func newStored(t *testing.T, age time.Duration) *stored {
	s := &stored{t: t, created: time.Now().Add(-age).UTC()}
	s.messages = []stream.Delivery{{Seq: 1, Subject: events.Site("web").LeaseSubject(), Time: s.created}}
	return s
}

// add stores an entry of a symlink, or of a large file, under seq.
func (s *stored) add(seq uint64, name string, large bool) {
	s.t.Helper()
	path, err := events.ParsePath(name)
	if err != nil {
		s.t.Fatal(err)
	}
	e := events.Entry{Path: path, Kind: events.Symlink, Mode: 0o777, Target: fmt.Sprint(seq)}
	if large {
		e = events.Entry{Path: path, Kind: events.File, Mode: 0o644, Size: 5 << 20, Digest: events.Sum(nil), Body: events.ChunksBody, Average: 512 << 10}
	}
	header, err := e.MarshalHeader()
	if err != nil {
		s.t.Fatal(err)
	}
	s.messages = append(s.messages, stream.Delivery{
		Seq: seq, Subject: events.Site("web").Subject(path), Header: header, Time: s.created.Add(time.Duration(seq) * time.Second),
	})
}

func (s *stored) StreamInfo(context.Context, events.Site) (stream.Info, error) {
	last := s.messages[len(s.messages)-1]
	return stream.Info{Created: s.created, Now: time.Now(), LastSeq: last.Seq, LastTime: last.Time, Msgs: uint64(len(s.messages))}, nil
}

func (s *stored) LeaseSeq(context.Context, events.Site) (uint64, error) { return 1, nil }

func (s *stored) FirstAfter(_ context.Context, _ events.Site, t time.Time) (uint64, error) {
	for _, d := range s.messages {
		if d.Time.After(t) {
			return d.Seq, nil
		}
	}
	return 0, nil
}

func (s *stored) Entry(context.Context, events.Site, events.Path) (*stream.Delivery, error) {
	return nil, nil
}

func (s *stored) Snapshot(ctx context.Context, site events.Site, _ func(uint64, string, string) error) (stream.Info, error) {
	s.snapshots++
	return s.StreamInfo(ctx, site)
}

// node returns a node of an empty tree in root, or of what it has become.
func (s *stored) node(root string) *Replica {
	s.t.Helper()
	codec, err := events.NewCodec(1)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(codec.Close)
	tree, err := apply.Open(apply.Options{Root: root, Site: "web", Node: "b", Codec: codec})
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := NewReplica(s, nil, tree, Options{Site: "web", Node: "b", Root: root, Log: slog.New(slog.DiscardHandler)}, func(uint64) {})
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// begins begins, and wants to get what comes after seq.
func begins(t *testing.T, r *Replica, seq uint64) {
	t.Helper()
	if got, err := r.Begin(t.Context()); got != seq || err != nil {
		t.Fatalf("it begins after %d, %v; want %d", got, err, seq)
	}
}

func delivers(t *testing.T, r *Replica, messages ...stream.Delivery) {
	t.Helper()
	if err := r.Deliver(t.Context(), messages); err != nil {
		t.Fatal(err)
	}
}

// TestGoingBackBeforeItHasCaughtUp: what an empty tree has not got yet may be
// what it got the place of, in a stream from a backup.
func TestGoingBackBeforeItHasCaughtUp(t *testing.T) {
	s, root := newStored(t, time.Hour), t.TempDir()
	for i, name := range []string{"a", "x", "b", "c", "d"} {
		s.add(uint64(i+2), name, false) //nolint:gosec // small
	}
	backup := s.messages
	s.messages = append([]stream.Delivery{}, backup[0], backup[1], backup[3], backup[4], backup[5]) // x has moved
	s.add(7, "e", false)
	s.add(8, "x", false)
	r := s.node(root)
	begins(t, r, 0)
	delivers(t, r, s.messages[:4]...) // to 5
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	s.messages = backup
	r = s.node(root)
	defer r.Close()
	if seq, err := r.Begin(t.Context()); !errors.Is(err, ErrUnvouched) {
		t.Errorf("it begins after %d of a stream that lost what it was to get: %v", seq, err)
	}
}

// TestAnEmptyTreeKnowsWhereItStands before anything is delivered, and however
// old what is delivered is.
func TestAnEmptyTreeKnowsWhereItStands(t *testing.T) {
	s, root := newStored(t, 300*day), t.TempDir()
	s.add(2, "a", false)
	s.add(3, "b", false)
	for _, stands := range []uint64{0, 2} {
		r := s.node(root)
		begins(t, r, stands)
		delivers(t, r, s.messages[:stands/2+2]...)
		mark, ok := r.s.tree.Watermark()
		info, _ := s.StreamInfo(t.Context(), "web")
		if why := unfit(mark, ok, "web", info, 1, 0); why != "" {
			t.Errorf("it is to be compared: %s", why)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if s.snapshots > 0 {
		t.Error("it was compared")
	}
}

// TestLackingIsTold whether what is held is delivered with what is before it, or
// not, and while the first publisher fills the stream: all that comes later would
// be delivered again after a crash.
func TestLackingIsTold(t *testing.T) {
	for _, first := range []int{4, 1} {
		for _, filled := range []bool{true, false} {
			s := newStored(t, time.Hour)
			r := s.node(t.TempDir())
			if !filled {
				begins(t, r, 0)
			}
			s.add(2, "large", true)
			s.add(3, "a", false)
			s.add(4, "b", false)
			if filled {
				begins(t, r, 0)
			}
			for i := range s.messages {
				s.messages[i].Pending = uint64(len(s.messages) - i - 1) //nolint:gosec // small
			}
			delivers(t, r, s.messages[:first]...)
			if first < 4 {
				delivers(t, r, s.messages[first:]...)
			}
			if mark, _ := r.s.tree.Watermark(); mark.Seq != 1 || mark.Known != 4 || !mark.Lacking || r.Held() != 1 {
				t.Errorf("first %d, filled %v: %d held, %+v", first, filled, r.Held(), mark)
			}
			_ = r.Close()
		}
	}
}
