package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

func TestPutAndGet(t *testing.T) {
	s, l, b := newBucketSite(t, Config{})
	node := s.connect("b")
	var digests []events.Digest
	var bodies [][]byte
	for i, size := range []int{1, 1000, partBytes - 1, partBytes, partBytes + 1, 4 << 20, 9 << 20} {
		bodies = append(bodies, body(i, size))
		digests = append(digests, events.Sum(bodies[i]))
	}
	var g errgroup.Group
	for i, data := range bodies {
		g.Go(func() error { return b.Put(t.Context(), digests[i], data, false) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	got, err := get(t, node, digests...)
	if err != nil {
		t.Fatal(err)
	}
	for i, data := range bodies {
		if !bytes.Equal(got[i], data) {
			t.Errorf("object of %d bytes: got %d", len(data), len(got[i]))
		}
		wantBody(t, node, data)
	}
	if o := object(t, b, digests[4]); o.Size != partBytes+1 || o.Compressed || o.chunks != 2 || !o.Unnamed.IsZero() || time.Since(o.Stored) > time.Minute {
		t.Errorf("looked up %+v", o)
	}
	got, err = get(t, node, digests[0], digests[1], digests[0])
	if err != nil || len(got) != 3 || !bytes.Equal(got[0], got[2]) {
		t.Errorf("one that is wanted twice: %d, %v", len(got), err)
	}
	if got, err = get(t, node); err != nil || len(got) != 0 {
		t.Errorf("nothing wanted: %d, %v", len(got), err)
	}
	for _, data := range [][]byte{nil, make([]byte, maxObjectBytes+1)} {
		want(t, b.Put(t.Context(), events.Sum(data), data, false), ErrTooLarge)
	}
	_ = l
}

// Stock tools read what we write, and we what they write.
func TestBucketIsAnObjectStore(t *testing.T) {
	_, l, b := newBucketSite(t, Config{})
	codec, err := events.NewCodec(1)
	if err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("abcdefgh"), 100_000)
	frame, compressed := codec.PackChunk(text)
	d := events.Sum(text)
	if err := b.Put(t.Context(), d, frame, compressed); err != nil || !compressed {
		t.Fatal(err, compressed)
	}
	store, err := l.c.js.ObjectStore(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	info, err := store.GetInfo(t.Context(), d.String())
	if err != nil || info.Metadata[encodingKey] != "zstd" || info.Size != uint64(len(frame)) || info.Bucket != "web" {
		t.Errorf("info %+v, %v", info, err)
	}
	if data, err := store.GetBytes(t.Context(), d.String()); err != nil || !bytes.Equal(data, frame) {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	raw := body(1, 300<<10)
	if _, err := store.PutBytes(t.Context(), events.Sum(raw).String(), raw); err != nil {
		t.Fatal(err)
	}
	if _, err := store.PutString(t.Context(), "notes.txt", "an operator's own"); err != nil {
		t.Fatal(err)
	}
	wantBody(t, l.c, raw)
	list, err := store.List(t.Context())
	if err != nil || len(list) != 3 {
		t.Errorf("list of %d, %v", len(list), err)
	}
	seen := map[events.Digest]bool{}
	if err := b.Objects(t.Context(), nil, func(o Object) error {
		seen[o.Digest] = true
		if o.Compressed != (o.Digest == d) {
			t.Errorf("%+v", o)
		}
		return nil
	}); err != nil || len(seen) != 2 {
		t.Errorf("objects %v, %v", seen, err)
	}
	if err := store.Delete(t.Context(), d.String()); err != nil {
		t.Fatal(err)
	}
	absent(t, b, d)
}

func TestPutAgainReplaces(t *testing.T) {
	s, l, b := newBucketSite(t, Config{})
	data := body(1, 1<<20)
	d := put(t, b, data)
	first := object(t, b, d)
	var g errgroup.Group
	for range 8 {
		g.Go(func() error { return b.Put(t.Context(), d, data, false) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if now := object(t, b, d); now.nuid == first.nuid {
		t.Error("it is the old one")
	}
	if n := uploadsOf(t, l.c); n != 1 {
		t.Errorf("data of %d uploads", n)
	}
	if n := subjects(t, l.c, metaSubjects(site)); len(n) != 1 || n[metaSubject(site, d.String())] != 1 {
		t.Errorf("metas %v", n)
	}
	wantBody(t, s.connect("b"), data)
	want(t, b.SetUnnamed(t.Context(), first, time.Now()), ErrChanged)
	want(t, b.Delete(t.Context(), first), ErrChanged)
	wantBody(t, l.c, data)
}

// A node gets all that is whole, and is told what is not.
func TestGetWhatIsMissing(t *testing.T) {
	s, l, b := newBucketSite(t, Config{})
	node := s.connect("b")
	digests := make([]events.Digest, 5)
	for i := range digests {
		digests[i] = put(t, b, body(i, 1<<20))
	}
	stream, err := l.c.js.Stream(t.Context(), bucketStream(site))
	if err != nil {
		t.Fatal(err)
	}
	never := events.Sum([]byte("never stored"))
	if err := b.purge(t.Context(), object(t, b, digests[1]).nuid); err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject(dataSubject(site, object(t, b, digests[2]).nuid)), jetstream.WithPurgeKeep(1)); err != nil {
		t.Fatal(err)
	}
	// One message too much.
	if _, err := l.c.js.Publish(t.Context(), dataSubject(site, object(t, b, digests[3]).nuid), []byte("x")); err != nil {
		t.Fatal(err)
	}
	// A meta that claims more than there is, and more than anyone may.
	o := object(t, b, digests[4])
	for _, size := range []uint64{1<<20 + 1, 1 << 40, 1 << 63} {
		info := jetstream.ObjectInfo{ObjectMeta: jetstream.ObjectMeta{Name: o.Digest.String()}, NUID: o.nuid, Size: size, Chunks: 1 << 31}
		if err := b.publishMeta(t.Context(), &info, 0); err != nil {
			t.Fatal(err)
		}
		got, err := get(t, node, append(slices.Clone(digests), never)...)
		missing, ok := errors.AsType[*MissingError](err)
		if !ok || !errors.Is(err, ErrNoObject) || !slices.Equal(missing.Digests, []events.Digest{digests[1], digests[2], digests[4], never}) {
			t.Errorf("size %d: missing %v", size, err)
		}
		if len(got) != 2 || events.Sum(got[0]) != digests[0] || events.Sum(got[3]) != digests[3] {
			t.Errorf("size %d: got %d objects", size, len(got))
		}
	}
	// Putting them again mends them.
	for i, d := range digests {
		if err := b.Put(t.Context(), d, body(i, 1<<20), false); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := get(t, node, digests...); err != nil || len(got) != len(digests) {
		t.Errorf("mended: %d, %v", len(got), err)
	}
	// Data that is not what its name says is handed over all the same.
	if err := b.Put(t.Context(), digests[0], []byte("altered"), false); err != nil {
		t.Fatal(err)
	}
	if got, err := get(t, node, digests[0]); err != nil || string(got[0]) != "altered" {
		t.Errorf("altered: %q, %v", got[0], err)
	}
	stop := errors.New("enough")
	err = node.Bodies(site).Get(t.Context(), digests, func(int, []byte, bool) error { return stop })
	want(t, err, stop)
}

// A node that reads while objects are replaced finds each of them.
func TestGetWhilePutReplaces(t *testing.T) {
	s, _, b := newBucketSite(t, Config{})
	digests := make([]events.Digest, 8)
	for i := range digests {
		digests[i] = put(t, b, body(i, 600<<10))
	}
	node := s.connect("b")
	var g errgroup.Group
	g.Go(func() error {
		for i := range 40 {
			if err := b.Put(t.Context(), digests[i%8], body(i%8, 600<<10), false); err != nil {
				return err
			}
		}
		return nil
	})
	for range 20 {
		got, err := get(t, node, digests...)
		if err != nil && !errors.Is(err, ErrNoObject) { // replaced twice in a row
			t.Error(err)
		}
		for i, data := range got {
			if events.Sum(data) != digests[i] {
				t.Errorf("object %d is mixed", i)
			}
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestBodiesWithoutABucket(t *testing.T) {
	_, c := newSite(t, nil)
	_, err := get(t, c, events.Sum(nil))
	want(t, err, ErrNoStream)
	_, err = c.ReadBucket(t.Context(), site)
	want(t, err, ErrNoStream)
}

func TestManyObjects(t *testing.T) {
	s, l, b := newBucketSite(t, Config{})
	const n = 2500
	digests := make([]events.Digest, n)
	var g errgroup.Group
	g.SetLimit(32)
	for i := range digests {
		data := fmt.Append(nil, "object ", i)
		digests[i] = events.Sum(data)
		g.Go(func() error { return b.Put(t.Context(), digests[i], data, false) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	read, err := l.c.ReadBucket(t.Context(), site)
	if err != nil {
		t.Fatal(err)
	}
	never := events.Sum([]byte("never stored"))
	for _, b := range []*Bucket{b, read} {
		seen := map[events.Digest]bool{}
		if err := b.Objects(t.Context(), nil, func(o Object) error { seen[o.Digest] = true; return nil }); err != nil || len(seen) != n {
			t.Errorf("%d objects, %v", len(seen), err)
		}
		found, err := b.Lookup(t.Context(), slices.Concat(digests, []events.Digest{never, never}))
		if err != nil || len(found) != n {
			t.Errorf("%d found, %v", len(found), err)
		}
		stop := errors.New("enough")
		want(t, b.Objects(t.Context(), nil, func(Object) error { return stop }), stop)
	}
	if got, err := get(t, s.connect("b"), digests...); err != nil || len(got) != n {
		t.Errorf("got %d, %v", len(got), err)
	}
}

func TestSetUnnamed(t *testing.T) {
	_, l, b := newBucketSite(t, Config{})
	data := body(1, 1<<20)
	d := put(t, b, data)
	o := object(t, b, d)
	since := time.Now().Add(-time.Hour)
	if err := b.SetUnnamed(t.Context(), o, since); err != nil {
		t.Fatal(err)
	}
	marked := object(t, b, d)
	if !marked.Unnamed.Equal(since) || !marked.Stored.Equal(o.Stored) || marked.Size != o.Size || marked.nuid != o.nuid {
		t.Errorf("%+v is now %+v", o, marked)
	}
	wantBody(t, l.c, data)
	want(t, b.Delete(t.Context(), o), ErrChanged) // it was read before it was marked
	if err := b.SetUnnamed(t.Context(), marked, time.Time{}); err != nil {
		t.Fatal(err)
	}
	want(t, b.Delete(t.Context(), marked), ErrChanged)
	if again := object(t, b, d); again != o {
		t.Errorf("%+v is now %+v", o, again)
	}
	wantBody(t, l.c, data)
}

func TestDelete(t *testing.T) {
	_, l, b := newBucketSite(t, Config{})
	kept := body(1, 1<<20)
	put(t, b, kept)
	d := put(t, b, body(2, 1<<20))
	o := object(t, b, d)
	if err := b.Delete(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	absent(t, b, d)
	if n := uploadsOf(t, l.c); n != 1 {
		t.Errorf("data of %d uploads", n)
	}
	store, err := l.c.js.ObjectStore(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.GetInfo(t.Context(), d.String())
	want(t, err, jetstream.ErrObjectNotFound)
	stream, err := l.c.js.Stream(t.Context(), bucketStream(site))
	if err != nil {
		t.Fatal(err)
	}
	msg, err := stream.GetLastMsgForSubject(t.Context(), metaSubject(site, d.String()))
	if err != nil || msg.Header.Get(jetstream.MsgTTLHeader) != "3600" && msg.Header.Get(jetstream.MsgTTLHeader) != "1h0m0s" {
		t.Errorf("what says that it was deleted stays: %v, %v", msg, err)
	}
	if err := b.Objects(t.Context(), nil, func(o Object) error {
		if o.Digest == d {
			t.Error("it is still listed")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	want(t, b.Delete(t.Context(), o), ErrChanged)
	want(t, b.SetUnnamed(t.Context(), o, time.Now()), ErrChanged)
	put(t, b, body(2, 1<<20)) // and again
	wantBody(t, l.c, body(2, 1<<20))
	wantBody(t, l.c, kept)
}

func TestInterruptedPut(t *testing.T) {
	s, l, b := newBucketSite(t, Config{})
	data := body(1, 4<<20)
	d := events.Sum(data)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	want(t, b.Put(ctx, d, data, false), context.Canceled)
	absent(t, b, d)
	var errs []error
	for i := range 6 {
		var g errgroup.Group
		for n := range 8 {
			data := body(100*i+n, 4<<20)
			g.Go(func() error { return b.Put(t.Context(), events.Sum(data), data, false) })
		}
		g.Go(func() error {
			time.Sleep(time.Duration(i) * 5 * time.Millisecond)
			s.restart(nil, l.c)
			return nil
		})
		errs = append(errs, g.Wait())
		for n := range 8 { // whole, or not there
			data := body(100*i+n, 4<<20)
			got, err := get(t, l.c, events.Sum(data))
			if err == nil && !bytes.Equal(got[0], data) || err != nil && !errors.Is(err, ErrNoObject) {
				t.Errorf("round %d: %d bytes, %v", i, len(got[0]), err)
			}
		}
	}
	for _, err := range errs {
		if err != nil && !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrDisconnected) && !errors.Is(err, ErrUnavailable) &&
			!errors.Is(err, ErrNoStream) {
			t.Errorf("interrupted by a restart: %v", err)
		}
	}
	// What is left of it all is found, and is only that.
	if err := b.Orphans(t.Context(), false, func(nuid string, _ int64, _ time.Time) error { return b.DeleteOrphan(t.Context(), nuid) }); err != nil {
		t.Fatal(err)
	}
	objects := 0
	if err := b.Objects(t.Context(), nil, func(o Object) error {
		objects++
		if got, err := get(t, l.c, o.Digest); err != nil || events.Sum(got[0]) != o.Digest {
			t.Errorf("%d bytes, %v", len(got[0]), err)
		}
		return nil
	}); err != nil || objects != uploadsOf(t, l.c) {
		t.Errorf("%d objects, %d uploads, %v", objects, uploadsOf(t, l.c), err)
	}
}

// What is still on its way after an unknown outcome cannot land any more once
// the bucket was asked again.
func TestLateMetaIsRefused(t *testing.T) {
	_, l, b := newBucketSite(t, Config{})
	data := body(1, 1000)
	d := put(t, b, data)
	o := object(t, b, d)
	late := b.fence
	_ = b.unknown(errors.New("no answer")) // of a deletion, say
	if found := object(t, b, d); found.nuid != o.nuid {
		t.Fatal("another object")
	}
	if b.fence == late {
		t.Fatal("the fence has not moved")
	}
	now := b.fence
	b.fence = late
	_, err := b.fenced(t.Context(), metaSubject(site, d.String()), []byte("{}"), 0)
	b.fence = now
	want(t, err, errRefused)
	wantBody(t, l.c, data)
}

// Uploads beside each other end with the first one's error, as the cause of
// their context: that says nothing of a meta that is on its way.
func TestAnErrorOfAnotherPutIsNotOurs(t *testing.T) {
	_, _, b := newBucketSite(t, Config{})
	for _, cause := range []error{&jetstream.APIError{ErrorCode: codeStoreFailed}, ErrDenied, ErrNoStream} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		_, err := b.fenced(ctx, metaSubject(site, events.Sum(nil).String()), []byte("{}"), 0)
		if err == nil {
			continue // it was answered before that was looked at
		}
		if want(t, err, ErrUnknown); !b.unsure {
			t.Error("nothing is on its way")
		}
		b.unsure = false
	}
}

func TestOrphans(t *testing.T) {
	_, l, b := newBucketSite(t, Config{})
	kept := body(1, 1<<20)
	d := put(t, b, kept)
	deleted := put(t, b, body(2, 1<<20))
	if err := b.Delete(t.Context(), object(t, b, deleted)); err != nil {
		t.Fatal(err)
	}
	crashed := body(3, 1<<20)
	if _, err := b.upload(t.Context(), events.Sum(crashed).String(), "CRASHED", crashed); err != nil {
		t.Fatal(err)
	}
	// A second upload of what there is, one that is under way, and a stranger's.
	if _, err := b.upload(t.Context(), d.String(), "SECOND", kept); err != nil {
		t.Fatal(err)
	}
	landed := b.fly("FLYING")
	if _, err := b.upload(t.Context(), d.String(), "FLYING", kept); err != nil {
		t.Fatal(err)
	}
	if _, err := l.c.js.Publish(t.Context(), dataSubject(site, "FOREIGN"), []byte("x")); err != nil {
		t.Fatal(err)
	}
	orphans := func(b *Bucket) map[string]int64 {
		found := map[string]int64{}
		if err := b.Orphans(t.Context(), false, func(nuid string, bytes int64, newest time.Time) error {
			found[nuid] = bytes
			if time.Since(newest) > time.Minute {
				t.Errorf("newest is of %s", newest)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return found
	}
	if found := orphans(b); len(found) != 2 || found["CRASHED"] != 1<<20 || found["SECOND"] != 1<<20 {
		t.Errorf("orphans %v", found)
	}
	read, err := l.c.ReadBucket(t.Context(), site)
	if err != nil {
		t.Fatal(err)
	}
	if found := orphans(read); len(found) != 3 {
		t.Errorf("orphans, read only: %v", found)
	}
	want(t, read.DeleteOrphan(t.Context(), "CRASHED"), ErrNoLease)
	for _, nuid := range []string{"FLYING", "FOREIGN", ">", "*", "", object(t, b, d).nuid} {
		want(t, b.DeleteOrphan(t.Context(), nuid), ErrNoOrphan)
	}
	for _, nuid := range []string{"CRASHED", "SECOND"} {
		if err := b.DeleteOrphan(t.Context(), nuid); err != nil {
			t.Error(err)
		}
	}
	landed()
	if found := orphans(b); len(found) != 1 || found["FLYING"] == 0 {
		t.Errorf("orphans %v", found)
	}
	wantBody(t, l.c, kept)
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
