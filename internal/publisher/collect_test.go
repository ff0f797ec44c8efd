package publisher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"treecast/internal/broker"
	"treecast/internal/events"
	"treecast/internal/stream"
)

const site = events.Site("web")

// newTestSession returns the session of a publisher with a broker of its own.
// Nothing runs: no rounds, no uploads, no collection.
func newTestSession(t *testing.T) *session {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	b, err := broker.Start(t.Context(), broker.Options{StoreDir: t.TempDir(), DontListen: true, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	c, err := stream.Connect(t.Context(), stream.ConnectOptions{InProcess: b.InProcess(), Name: "publisher", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	p, err := open(c, &Options{Site: site, Root: t.TempDir(), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
	s, err := p.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.end)
	bucket, err := s.lease.OpenBucket(t.Context(), s.Stream)
	if err != nil {
		t.Fatal(err)
	}
	s.collection = newCollection(s, bucket)
	s.uploads = newUploads(t.Context(), s, bucket, nil)
	return s
}

// A body is what a file's pieces are.
type body []string

// digests names the pieces.
func (b body) digests() []events.Digest {
	digests := make([]events.Digest, len(b))
	for i, piece := range b {
		digests[i] = events.Sum([]byte(piece))
	}
	return digests
}

// store uploads a body without publishing it.
func store(t *testing.T, s *session, b body) *upload {
	t.Helper()
	j := &upload{}
	for i, d := range b.digests() {
		pack := func() ([]byte, bool) { return []byte(b[i]), false }
		if err := s.uploads.store(t.Context(), j, d, pack, nil); err != nil {
			t.Fatal(err)
		}
	}
	return j
}

// publish publishes the entry of a file that has that body; of none, that it is
// deleted.
func publish(t *testing.T, s *session, name string, b body) {
	t.Helper()
	path, err := events.ParsePath(name)
	if err != nil {
		t.Fatal(err)
	}
	e := events.Entry{Path: path, Kind: events.Tombstone, Epoch: s.lease.Epoch()}
	var payload []byte
	if b != nil {
		e = events.Entry{Path: path, Kind: events.File, Mode: 0o644, Epoch: e.Epoch, Body: events.ChunksBody, Average: events.AverageFor(1, 0)}
		var list events.ChunkList
		for i, d := range b.digests() {
			list = append(list, events.Chunk{Digest: d, Size: int64(len(b[i]))})
			e.Size += int64(len(b[i]))
		}
		payload = s.codec.PackList(list).Payload
	}
	m, err := s.message(&e, payload)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.lease.Publish(t.Context(), []stream.Message{*m})...); err != nil {
		t.Fatal(err)
	}
}

// has fails the test unless all of a body is in the bucket, or nothing of it.
func has(t *testing.T, s *session, b body, want bool) {
	t.Helper()
	got := 0
	err := s.conn.Bodies(site).Get(t.Context(), b.digests(), func(i int, data []byte, _ bool) error {
		if string(data) != b[i] {
			t.Errorf("%q is %q", b[i], data)
		}
		got++
		return nil
	})
	if err != nil && !errors.Is(err, stream.ErrNoObject) || want != (err == nil) || !want && got > 0 {
		t.Fatalf("%d of %q are there: %v", got, b, err)
	}
}

// swept sweeps once.
func swept(ctx context.Context, s *session, urgent bool) (sweep, error) {
	sw := sweep{collection: s.collection, urgent: urgent, start: time.Now()}
	err := sw.run(ctx)
	return sw, err
}

func sweepOnce(t *testing.T, s *session, urgent bool) sweep {
	t.Helper()
	sw, err := swept(t.Context(), s, urgent)
	if err != nil {
		t.Fatal(err)
	}
	return sw
}

func TestSweepRemovesWhatHasNoName(t *testing.T) {
	s := newTestSession(t)
	one, two, shared := body{"a", "b"}, body{"b", "c"}, body{"b"}
	s.collection.pins.Release(&store(t, s, one).pinned, 0)
	s.collection.pins.Release(&store(t, s, two).pinned, 0)
	publish(t, s, "one", one)
	publish(t, s, "two", two)
	if sw := sweepOnce(t, s, true); sw.removed+sw.marked > 0 {
		t.Fatalf("%+v", sw)
	}
	publish(t, s, "two", nil)
	s.GCGrace = time.Hour
	if sw := sweepOnce(t, s, false); sw.removed > 0 || sw.marked != 1 || time.Until(sw.due) > time.Hour || time.Until(sw.due) < 50*time.Minute {
		t.Fatalf("%+v", sw)
	}
	has(t, s, two, true)
	// It is put back, and gone again: the grace begins anew.
	s.collection.pins.Release(&store(t, s, two).pinned, 0)
	if sw := sweepOnce(t, s, false); sw.removed > 0 || sw.marked != 1 {
		t.Fatalf("%+v", sw)
	}
	s.GCGrace = 0
	if sw := sweepOnce(t, s, false); sw.removed != 1 || sw.waiting > 0 {
		t.Fatalf("%+v", sw)
	}
	has(t, s, body{"c"}, false)
	has(t, s, one, true)
	has(t, s, shared, true)
}

// What an upload relies on stays until its entry is there, and so does, without
// an entry that can be read, everything.
func TestSweepLeavesWhatMayBeNamed(t *testing.T) {
	s := newTestSession(t)
	b := body{"a", "b"}
	j := store(t, s, b)
	sweepOnce(t, s, true)
	has(t, s, b, true)
	s.collection.pins.Release(&j.pinned, 0)
	path, err := events.ParsePath("later")
	if err != nil {
		t.Fatal(err)
	}
	foreign := []stream.Message{{Path: path, Subject: site.Subject(path), Header: `{"v":9,"path":"later"}`}}
	if err := errors.Join(s.lease.Publish(t.Context(), foreign)...); err != nil {
		t.Fatal(err)
	}
	if _, err := swept(t.Context(), s, true); !errors.Is(err, errUnread) {
		t.Fatal(err)
	}
	has(t, s, b, true)
	publish(t, s, "later", nil)
	sweepOnce(t, s, true)
	has(t, s, b, false)
}

// A bucket that is found full while a sweep goes on does not wait for its end.
func TestAFullBucketHurriesTheSweep(t *testing.T) {
	s := newTestSession(t)
	s.GCGrace = time.Hour
	b := body{"a", "b"}
	s.collection.pins.Release(&store(t, s, b).pinned, 0)
	if sw := sweepOnce(t, s, false); sw.marked != len(b) {
		t.Fatalf("%+v", sw)
	}
	s.collection.MakeRoom(events.Path{})
	if sw := sweepOnce(t, s, false); sw.removed != len(b) {
		t.Fatalf("%+v", sw)
	}
	has(t, s, b, false)
}

// TestNothingNamedIsCollected: files of a few bodies come, go, move and come
// back while sweep follows sweep without a grace. At no time does an entry that
// lives lack an object.
func TestNothingNamedIsCollected(t *testing.T) {
	s := newTestSession(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	removed := 0
	var sweeping errgroup.Group
	sweeping.Go(func() error {
		for ctx.Err() == nil {
			sw, err := swept(ctx, s, true)
			if err != nil && ctx.Err() == nil {
				return err
			}
			removed += sw.removed
		}
		return nil
	})
	r := rand.New(rand.NewPCG(1, 2))
	live := map[string]body{}
	for range 600 {
		name := fmt.Sprint("file", r.IntN(3))
		switch other := fmt.Sprint("file", r.IntN(3)); r.IntN(4) {
		case 0:
			publish(t, s, name, nil)
			delete(live, name)
		case 1:
			if live[name] == nil || name == other {
				continue
			}
			publish(t, s, other, live[name]) // renamed
			s.collection.pins.Moved()
			publish(t, s, name, nil)
			live[other] = live[name]
			delete(live, name)
		default:
			b := body{fmt.Sprint(r.IntN(5)), fmt.Sprint(r.IntN(5)), fmt.Sprint(r.IntN(5))}
			j := store(t, s, b)
			publish(t, s, name, b)
			s.collection.pins.Release(&j.pinned, 0)
			live[name] = b
		}
		for _, b := range live {
			has(t, s, b, true)
		}
	}
	stop()
	if err := sweeping.Wait(); err != nil {
		t.Fatal(err)
	}
	if removed == 0 {
		t.Fatal("nothing was removed: this has shown nothing")
	}
}
