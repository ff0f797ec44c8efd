package stream

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"treecast/internal/events"
)

// newBucketSite starts a server with a stream and a bucket on it.
func newBucketSite(t *testing.T, cfg Config) (*testServer, *Lease, *Bucket) {
	t.Helper()
	s, c := newSite(t, nil)
	l := acquire(t, c, "a")
	return s, l, openBucket(t, l, cfg)
}

func openBucket(t testing.TB, l *Lease, cfg Config) *Bucket {
	t.Helper()
	b, err := l.OpenBucket(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// body returns bytes that nothing compresses, the same for the same seed.
func body(seed, size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	_, _ = r.Read(b) // never fails
	return b
}

// put stores data, named by its digest.
func put(t *testing.T, b *Bucket, data []byte) events.Digest {
	t.Helper()
	d := events.Sum(data)
	if err := b.Put(t.Context(), d, data, false); err != nil {
		t.Fatal(err)
	}
	return d
}

func object(t *testing.T, b *Bucket, d events.Digest) Object {
	t.Helper()
	found, err := b.Lookup(t.Context(), []events.Digest{d})
	if err != nil {
		t.Fatal(err)
	}
	o, ok := found[d]
	if !ok {
		t.Fatalf("no object %s", d)
	}
	return o
}

func absent(t *testing.T, b *Bucket, d events.Digest) {
	t.Helper()
	if found, err := b.Lookup(t.Context(), []events.Digest{d}); err != nil || len(found) != 0 {
		t.Fatalf("found %v, %v", found, err)
	}
}

// get returns what a node gets of these objects, by their place.
func get(t *testing.T, c *Conn, digests ...events.Digest) (map[int][]byte, error) {
	t.Helper()
	got := make(map[int][]byte)
	err := c.Bodies(site).Get(t.Context(), digests, func(i int, data []byte, _ bool) error {
		if got[i] != nil {
			t.Errorf("%d comes twice", i)
		}
		got[i] = slices.Clone(data)
		return nil
	})
	return got, err
}

// wantBody wants the object to be there, as a node and as nats.go see it.
func wantBody(t *testing.T, c *Conn, data []byte) {
	t.Helper()
	d := events.Sum(data)
	got, err := get(t, c, d)
	if err != nil || !bytes.Equal(got[0], data) {
		t.Errorf("a node gets %d of %d bytes, %v", len(got[0]), len(data), err)
	}
	store, err := c.js.ObjectStore(t.Context(), string(site))
	if err != nil {
		t.Fatal(err)
	}
	if stock, err := store.GetBytes(t.Context(), d.String()); err != nil || !bytes.Equal(stock, data) {
		t.Errorf("nats.go gets %d of %d bytes, %v", len(stock), len(data), err)
	}
}

// subjects returns how many messages each of the bucket's subjects has.
func subjects(t *testing.T, c *Conn, filter string) map[string]uint64 {
	t.Helper()
	s, err := c.js.Stream(t.Context(), bucketStream(site))
	if err != nil {
		t.Fatal(err)
	}
	si, err := s.Info(t.Context(), jetstream.WithSubjectFilter(filter))
	if err != nil {
		t.Fatal(err)
	}
	return si.State.Subjects
}

// uploadsOf counts the NUIDs that have data.
func uploadsOf(t *testing.T, c *Conn) int {
	t.Helper()
	return len(subjects(t, c, dataSubject(site, ">"))) - 1 // less the lease
}

func TestReadBucketWritesNothing(t *testing.T) {
	_, l, b := newBucketSite(t, Config{})
	data := body(1, 1000)
	o := object(t, b, put(t, b, data))
	read, err := l.c.ReadBucket(t.Context(), site)
	if err != nil {
		t.Fatal(err)
	}
	if object(t, read, o.Digest) != o {
		t.Error("it reads another object")
	}
	want(t, read.Put(t.Context(), o.Digest, data, false), ErrNoLease)
	want(t, read.SetUnnamed(t.Context(), o, time.Now()), ErrNoLease)
	want(t, read.Delete(t.Context(), o), ErrNoLease)
	wantBody(t, l.c, data)
}

func TestFullBucket(t *testing.T) {
	_, l, b := newBucketSite(t, Config{BucketBytes: 5 << 20})
	var stored []events.Digest
	var err error
	for i := 0; err == nil && i < 10; i++ {
		data := body(i, 1<<20)
		if err = b.Put(t.Context(), events.Sum(data), data, false); err == nil {
			stored = append(stored, events.Sum(data))
		}
	}
	want(t, err, ErrFull)
	if n := uploadsOf(t, l.c); n != len(stored) || n != 4 {
		t.Errorf("%d uploads, %d objects", n, len(stored))
	}
	data := body(100, 1<<20)
	if err := b.Delete(t.Context(), object(t, b, stored[0])); err != nil {
		t.Fatal(err)
	}
	put(t, b, data)
	wantBody(t, l.c, data)
	more := body(101, 3<<20)
	want(t, b.Put(t.Context(), events.Sum(more), more, false), ErrFull)
	b = openBucket(t, l, Config{BucketBytes: 20 << 20})
	put(t, b, more)
	if got, err := get(t, l.c, stored[1:]...); err != nil || len(got) != 3 {
		t.Errorf("%d left, %v", len(got), err)
	}
	_, err = l.OpenBucket(t.Context(), Config{BucketBytes: 1 << 20}) // less than there is
	want(t, err, ErrConfig)
}

// A holder that was taken over cannot change anything any more, whatever it
// knew and however late it tries.
func TestBucketFence(t *testing.T) {
	s, old, oldBucket := newBucketSite(t, Config{})
	data := body(1, 1<<20)
	d := put(t, oldBucket, data)
	if _, err := oldBucket.upload(t.Context(), d.String(), "LEFT", data); err != nil {
		t.Fatal(err)
	}
	o := object(t, oldBucket, d)
	next, err := s.connect("next").Acquire(t.Context(), site, Holder{Host: "next"}, true)
	if err != nil {
		t.Fatal(err)
	}
	// Between the two leases the old one may still write: nobody relies on
	// anything yet.
	if err := oldBucket.SetUnnamed(t.Context(), o, time.Now()); err != nil {
		t.Fatal(err)
	}
	b := openBucket(t, next, Config{})
	o = object(t, b, d)
	// sleeper is the old holder as it would be if it had slept until now.
	sleeper := func() *Bucket {
		l := &Lease{c: old.c, js: old.js, site: site, me: old.me, epoch: old.epoch, maxBytes: old.maxBytes, fence: old.fence, lastSeq: old.lastSeq}
		return &Bucket{c: old.c, site: site, l: l, fence: oldBucket.fence, acked: oldBucket.acked, room: oldBucket.room,
			writers: map[string]*writer{}, flying: map[string]bool{}, orphans: map[string]bool{}}
	}
	for what, do := range map[string]func(*Bucket) error{
		"put":         func(b *Bucket) error { return b.Put(t.Context(), d, data, false) },
		"put another": func(b *Bucket) error { return b.Put(t.Context(), events.Sum([]byte("x")), []byte("x"), false) },
		"mark":        func(b *Bucket) error { return b.SetUnnamed(t.Context(), o, time.Time{}) },
		"delete":      func(b *Bucket) error { return b.Delete(t.Context(), o) },
		"open":        func(b *Bucket) error { _, err := b.l.OpenBucket(t.Context(), Config{}); return err },
		"orphans": func(b *Bucket) error {
			return b.Orphans(t.Context(), false, func(string, int64, time.Time) error { t.Error("found"); return nil })
		},
	} {
		sleeping := sleeper()
		for range 2 { // it does not know, and it knows
			if err := do(sleeping); !errors.Is(err, ErrFenced) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if now := object(t, b, d); now != o {
			t.Errorf("%s: %+v is now %+v", what, o, now)
		}
		if n := uploadsOf(t, next.c); n != 2 {
			t.Errorf("%s: %d uploads", what, n)
		}
	}
	wantBody(t, s.connect("b"), data)
	put(t, b, body(2, 1000))
	if err := b.Delete(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// A holder that stalls in the midst of OpenBucket cannot win the bucket back:
// what it read before it proved its lease is out of date once another one has
// opened the bucket.
func TestStalledOpenBucket(t *testing.T) {
	s, old, oldBucket := newBucketSite(t, Config{})
	// It has read the bucket's lease and proven its own, and stalls.
	expected := oldBucket.fence
	if err := old.prove(t.Context()); err != nil {
		t.Fatal(err)
	}
	next, err := s.connect("next").Acquire(t.Context(), site, Holder{Host: "next"}, true)
	if err != nil {
		t.Fatal(err)
	}
	// It may still be first, which harms no one: the next one opens later.
	if err := oldBucket.writeLease(t.Context(), expected); err != nil {
		t.Fatal(err)
	}
	b := openBucket(t, next, Config{})
	want(t, oldBucket.writeLease(t.Context(), expected), errRefused)
	want(t, oldBucket.writeLease(t.Context(), oldBucket.fence), errRefused)
	want(t, oldBucket.refence(t.Context()), ErrFenced)
	put(t, b, body(1, 1000))
}

// A bucket lease that moved under its holder, by an earlier write of its own
// that came late, is taken again.
func TestBucketLeaseMovesOn(t *testing.T) {
	_, l, b := newBucketSite(t, Config{})
	again := openBucket(t, l, Config{})
	var g errgroup.Group
	for i := range 16 {
		bucket := []*Bucket{b, again}[i%2]
		data := body(i, 1000)
		g.Go(func() error {
			for {
				if err := bucket.Put(t.Context(), events.Sum(data), data, false); !errors.Is(err, ErrTooMany) {
					return err
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	wantBody(t, l.c, body(15, 1000))
	publish(t, l, message(t, "f", "x")) // the site's lease has moved with it
}

func TestBucketThatWentBack(t *testing.T) {
	s, l, b := newBucketSite(t, Config{})
	data := body(1, 1000)
	d := put(t, b, data)
	if err := l.c.js.DeleteStream(t.Context(), bucketStream(site)); err != nil {
		t.Fatal(err)
	}
	_, err := b.Lookup(t.Context(), []events.Digest{d})
	want(t, err, ErrNoStream)
	want(t, b.Put(t.Context(), d, data, false), ErrNoStream)
	if _, err := l.c.ensure(t.Context(), bucketConfig(site, Config{}), Config{}, mergeBucket); err != nil {
		t.Fatal(err)
	}
	absent(t, b, d)
	put(t, b, data)
	wantBody(t, s.connect("b"), data)
}

func TestEnsureBucket(t *testing.T) {
	_, l, b := newBucketSite(t, Config{})
	put(t, b, body(1, 1000))
	for _, cfg := range []Config{{}, {BucketBytes: 1 << 20}, {BucketBytes: -1}} {
		openBucket(t, l, cfg)
		si, err := l.c.lookUpStream(t.Context(), bucketStream(site))
		if err != nil {
			t.Fatal(err)
		}
		if _, changed, err := mergeBucket(si.Config, bucketConfig(site, cfg), cfg, si.State.Bytes); err != nil || len(changed) > 0 {
			t.Errorf("%+v: %v still to change, %v", cfg, changed, err)
		}
	}
	// One that `nats object add` has made will do.
	have := bucketConfig(site, Config{})
	have.AllowMsgTTL, have.AllowDirect, have.MaxMsgSize = false, false, 1000
	merged, changed, err := mergeBucket(have, bucketConfig(site, Config{}), Config{}, 0)
	if err != nil || len(changed) != 3 || !merged.AllowMsgTTL || !merged.AllowDirect || merged.MaxMsgSize != -1 {
		t.Errorf("changed %v, %v", changed, err)
	}
	for field, change := range map[string]func(*jetstream.StreamConfig){
		"max_age":              func(sc *jetstream.StreamConfig) { sc.MaxAge = time.Hour },
		"max_msgs_per_subject": func(sc *jetstream.StreamConfig) { sc.MaxMsgsPerSubject = 1 },
		"deny_purge":           func(sc *jetstream.StreamConfig) { sc.DenyPurge = true },
		"sealed":               func(sc *jetstream.StreamConfig) { sc.Sealed = true },
	} {
		have := bucketConfig(site, Config{})
		change(&have)
		_, _, err := mergeBucket(have, bucketConfig(site, Config{}), Config{}, 0)
		if e, ok := errors.AsType[*ConfigError](err); !ok || e.Field != field || e.Kind != "bucket" {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestEntry(t *testing.T) {
	_, c := newSite(t, nil)
	l := acquire(t, c, "a")
	m := message(t, "d/f", "x")
	if d, err := c.Entry(t.Context(), site, m.Path); d != nil || err != nil {
		t.Errorf("%+v, %v", d, err)
	}
	publish(t, l, m)
	d, err := c.Entry(t.Context(), site, m.Path)
	if err != nil || d.Seq != l.LastSeq() || d.Header != m.Header || string(d.Payload) != "x" {
		t.Errorf("%+v, %v", d, err)
	}
}
