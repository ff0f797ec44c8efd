package stream

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"treecast/internal/events"
)

func newBucket(t *testing.T, cfg Config) (*testServer, *Conn, *Bucket) {
	t.Helper()
	s, c := newSite(t, nil)
	b, err := c.OpenBucket(t.Context(), site, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s, c, b
}

func bytesOf(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

// get fetches objects as a node does.
func get(t *testing.T, c *Conn, names ...events.Digest) (map[int][]byte, error) {
	t.Helper()
	var mu sync.Mutex
	got := map[int][]byte{}
	err := c.Bodies(site).Get(t.Context(), names, func(i int, data []byte, _ bool) error {
		mu.Lock()
		defer mu.Unlock()
		got[i] = data
		return nil
	})
	return got, err
}

func TestObjectsComeBack(t *testing.T) {
	s, c, b := newBucket(t, Config{})
	node := s.connect("b")
	var names []events.Digest
	var bodies [][]byte
	for i, size := range []int{1, 1000, 512 << 10, 512<<10 + 1, 1 << 20, 4 << 20, 100, 200, 300} {
		bodies = append(bodies, bytesOf(size, byte(i)))
		names = append(names, events.Sum(bodies[i]))
	}
	for _, want := range []int64{int64(len(names)), 0} { // the second time it is there
		var g errgroup.Group
		var packed atomic.Int64
		for i := range names {
			g.Go(func() error {
				return b.Ensure(t.Context(), names[i], func() ([]byte, bool) { packed.Add(1); return bodies[i], i%2 == 0 })
			})
		}
		if err := g.Wait(); err != nil || packed.Load() != want {
			t.Fatalf("%d packed, want %d, %v", packed.Load(), want, err)
		}
	}
	for range 2 {
		got, err := get(t, node, names...)
		if err != nil {
			t.Fatal(err)
		}
		for i := range names {
			if !bytes.Equal(got[i], bodies[i]) {
				t.Errorf("object %d: %d bytes of %d", i, len(got[i]), len(bodies[i]))
			}
		}
		// Putting again replaces the data and leaves no old one behind.
		before, err := c.lookUpStream(t.Context(), bucketStream(site))
		if err != nil {
			t.Fatal(err)
		}
		for i := range names {
			if err := b.Put(t.Context(), names[i], bodies[i], i%2 == 0); err != nil {
				t.Fatal(err)
			}
		}
		if after, err := c.lookUpStream(t.Context(), bucketStream(site)); err != nil || after.State.Msgs != before.State.Msgs {
			t.Errorf("%d messages after %d, %v", after.State.Msgs, before.State.Msgs, err)
		}
	}
}

// TestStockObjectStore: what we write nats.go reads, and lists.
func TestStockObjectStore(t *testing.T) {
	_, c, b := newBucket(t, Config{})
	body := bytesOf(1<<20, 1)
	name := events.Sum(body)
	if err := b.Put(t.Context(), name, body, true); err != nil {
		t.Fatal(err)
	}
	store, err := c.js.ObjectStore(t.Context(), string(site))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := store.GetBytes(t.Context(), name.String()); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	list, err := store.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != name.String() || list[0].Size != 1<<20 {
		t.Errorf("%+v, %v", list, err)
	}
	if err := store.Delete(t.Context(), name.String()); err != nil {
		t.Fatal(err)
	}
	if o, err := c.lookUp(t.Context(), site, name); err != nil || o != nil {
		t.Errorf("deleted: %v, %v", o, err)
	}
}

func TestMissingAndBrokenObjects(t *testing.T) {
	_, c, b := newBucket(t, Config{})
	var names []events.Digest
	for i := range 4 {
		body := bytesOf(1<<20, byte(i))
		names = append(names, events.Sum(body))
		if i == 0 {
			continue // never put
		}
		if err := b.Put(t.Context(), names[i], body, false); err != nil {
			t.Fatal(err)
		}
	}
	o, err := c.lookUp(t.Context(), site, names[1])
	if err != nil {
		t.Fatal(err)
	}
	b.purge(t.Context(), o.nuid) // no data
	if o, err = c.lookUp(t.Context(), site, names[2]); err != nil {
		t.Fatal(err)
	}
	stream, err := c.js.Stream(t.Context(), bucketStream(site))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject(dataSubject(site, o.nuid)), jetstream.WithPurgeKeep(1)); err != nil { // half
		t.Fatal(err)
	}
	got, err := get(t, c, names...)
	var missing *MissingError
	if !errors.As(err, &missing) || !errors.Is(err, ErrNoObject) || len(missing.Digests) != 3 || slices.Contains(missing.Digests, names[3]) {
		t.Errorf("missing: %v", err)
	}
	if len(got) != 1 || events.Sum(got[3]) != names[3] {
		t.Errorf("got %d", len(got))
	}
	for i, want := range []bool{false, false, false, true} {
		ok, err := b.Check(t.Context(), names[i], func(data []byte, _ bool) bool { return events.Sum(data) == names[i] })
		if err != nil || ok != want {
			t.Errorf("check of %d: %v, %v", i, ok, err)
		}
	}
	if _, err := get(t, c, slices.Repeat(names[3:], 50)...); err != nil {
		t.Errorf("the rest: %v", err)
	}
}

func TestAFullBucketSaysSo(t *testing.T) {
	_, c, b := newBucket(t, Config{BucketBytes: 3 << 20})
	var err error
	var last []byte
	for i := 0; err == nil && i < 10; i++ {
		last = bytesOf(1<<20, byte(i))
		err = b.Put(t.Context(), events.Sum(last), last, false)
	}
	want(t, err, ErrFull)
	if b, err = c.OpenBucket(t.Context(), site, Config{BucketBytes: 30 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), events.Sum(last), last, false); err != nil {
		t.Error(err)
	}
}

func TestNodesWantChunks(t *testing.T) {
	s, c, _ := newBucket(t, Config{})
	l := acquire(t, c, "a")
	heard := make(chan string, 10)
	stop, err := l.Wants(func(p events.Path, digests []events.Digest) { heard <- fmt.Sprint(p, len(digests)) })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if err := c.flush(t.Context(), func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	node := s.connect("b")
	for _, junk := range []string{"", "{", `{"path":"../x","digests":["sha256:` + fmt.Sprintf("%064x", 1) + `"]}`, `{"path":"x"}`, `{"path":"x","digests":["y"]}`} {
		if err := node.nc.Publish(site.WantSubject(), []byte(junk)); err != nil {
			t.Fatal(err)
		}
	}
	p, err := events.ParsePath("a\xff")
	if err != nil {
		t.Fatal(err)
	}
	many := make([]events.Digest, 1000)
	for i := range many {
		many[i] = events.Sum([]byte{byte(i), byte(i >> 8)})
	}
	if err := node.Bodies(site).Want(t.Context(), "b", p, many); err != nil {
		t.Fatal(err)
	}
	if got := <-heard; got != fmt.Sprint(p, maxWanted) {
		t.Errorf("heard %q", got)
	}
}
