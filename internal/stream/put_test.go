package stream

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"treecast/internal/events"
)

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
