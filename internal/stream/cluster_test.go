package stream

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sync/errgroup"

	"treecast/internal/events"
)

// startCluster starts three servers, and returns one of them.
func startCluster(t *testing.T) []*testServer {
	t.Helper()
	// Not on 127.0.0.1, where any connection may take a port before it is used.
	host := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	var routes []*url.URL // of all: a server without one starts no cluster
	for range 3 {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", host+":0")
		if err != nil {
			t.Fatal(err)
		}
		routes = append(routes, &url.URL{Scheme: "nats", Host: l.Addr().String()})
		_ = l.Close()
	}
	servers := make([]*testServer, 3)
	for i := range servers {
		port, err := strconv.Atoi(routes[i].Port())
		if err != nil {
			t.Fatal(err)
		}
		s := &testServer{t: t, dir: t.TempDir(), adjust: func(o *server.Options) {
			o.DontListen, o.Host, o.Port = false, "127.0.0.1", server.RANDOM_PORT
			o.ServerName = fmt.Sprintf("s%d", i)
			o.Cluster = server.ClusterOpts{Name: "test", Host: host, Port: port}
			o.Routes = routes
		}}
		s.start()
		t.Cleanup(s.stop)
		servers[i] = s
	}
	eventually(t, "a leader", func() bool {
		for _, s := range servers {
			if s.srv.JetStreamIsLeader() && len(s.srv.JetStreamClusterPeers()) == 3 {
				return true
			}
		}
		return false
	})
	return servers
}

// With three replicas the server refuses a second conditional publish while
// one is compared, answers Direct Get from replicas that may lag, and changes
// leaders.
func TestReplicatedStream(t *testing.T) {
	if testing.Short() {
		t.Skip("a cluster takes some seconds")
	}
	servers := startCluster(t)
	c := servers[0].connect("p")
	eventually(t, "a stream with three replicas", func() bool {
		_, err := c.EnsureStream(t.Context(), site, Config{Replicas: 3})
		return err == nil
	})
	var l *Lease
	eventually(t, "the lease", func() bool {
		var err error
		l, err = c.Acquire(t.Context(), site, Holder{Host: "a"}, false)
		return err == nil
	})
	for _, n := range []int{1, 5, 40, 1500} {
		publish(t, l, messages(t, n, "x")...)
	}
	want(t, func() error {
		_, err := servers[1].connect("q").Acquire(t.Context(), site, Holder{Host: "b"}, false)
		return err
	}(), ErrHeld)
	for i, s := range servers {
		reader := s.connect("b")
		publish(t, l, messages(t, 40, fmt.Sprint(i))...)
		if seen := snapshotOf(t, reader); len(seen) != 1500 {
			t.Errorf("snapshot has %d", len(seen))
		}
		reader.noSnapshot.Store(true)
		if seen := snapshotOf(t, reader); len(seen) != 1500 {
			t.Errorf("snapshot by direct get has %d", len(seen))
		}
		publish(t, l, messages(t, 30, "y")...)
		wanted := make([]Wanted, 30)
		for n := range wanted {
			wanted[n].Seq = l.LastSeq() - uint64(n)
		}
		fetched := 0
		if err := reader.Fetch(t.Context(), site, wanted, func(Delivery) error { fetched++; return nil }); err != nil || fetched != 30 {
			t.Errorf("fetched %d, %v", fetched, err)
		}
	}
	testReplicatedBucket(t, servers, l)
	k := openConsumer(t, servers[2].connect("b"), "b", NodeConfig{})
	if err := k.Reset(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	for range 5 { // a leader that goes in the midst of it
		if err := c.api(t.Context(), "CONSUMER.LEADER.STEPDOWN.web.b", nil, &struct{}{}); err != nil {
			t.Error(err)
		}
		for tries := 1; ; tries++ { // an election may take longer on a loaded machine
			err := k.Reset(t.Context(), 1)
			if err == nil {
				break
			}
			if tries == 3 {
				t.Fatal(err)
			}
		}
	}
	r := run(t, k, ack(t))
	eventually(t, "everything", func() bool { return len(r.deliveries()) >= 1501 })
	// The stream's leader goes away.
	leader := ""
	if si, err := c.lookUpStream(t.Context(), "web"); err == nil && si.Cluster != nil {
		leader = si.Cluster.Leader
	}
	for i, s := range servers[1:] {
		if leader == fmt.Sprintf("s%d", i+1) {
			s.stop()
		}
	}
	stored := false
	for end := time.Now().Add(40 * time.Second); !stored && time.Now().Before(end); {
		err := l.Publish(t.Context(), []Message{message(t, "after", strings.Repeat("z", 10))})[0]
		stored = err == nil
		if err != nil && (errors.Is(err, ErrFenced) || errors.Is(err, ErrWentBack)) {
			t.Fatal(err)
		}
	}
	if !stored {
		t.Error("no publishing after a leader is gone")
	}
}

// Metas are published one at a time there, and look-ups wait for a replica
// that has what was written before.
func testReplicatedBucket(t *testing.T, servers []*testServer, l *Lease) {
	t.Helper()
	var b *Bucket
	eventually(t, "a bucket with three replicas", func() bool {
		var err error
		b, err = l.OpenBucket(t.Context(), Config{Replicas: 3})
		return err == nil
	})
	digests := make([]events.Digest, 60)
	var g errgroup.Group
	g.SetLimit(8)
	for i := range digests {
		data := body(i, 20_000)
		digests[i] = events.Sum(data)
		g.Go(func() error {
			if err := b.Put(t.Context(), digests[i], data, false); err != nil {
				return err
			}
			found, err := b.Lookup(t.Context(), digests[i:i+1])
			if err == nil && len(found) != 1 {
				err = fmt.Errorf("object %d is not there", i)
			}
			if err == nil && i%2 == 1 {
				err = b.Delete(t.Context(), found[digests[i]])
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if found, err := b.Lookup(t.Context(), digests); err != nil || len(found) != len(digests)/2 {
		t.Errorf("%d found, %v", len(found), err)
	}
	if err := b.Orphans(t.Context(), false, func(nuid string, _ int64, _ time.Time) error { t.Errorf("orphan %s", nuid); return nil }); err != nil {
		t.Error(err)
	}
	seen := map[events.Digest]bool{}
	if err := b.Objects(t.Context(), nil, func(o Object) error { seen[o.Digest] = true; return nil }); err != nil || len(seen) < len(digests)/2 {
		t.Errorf("%d objects, %v", len(seen), err)
	}
	for i, s := range servers {
		node := s.connect("b")
		eventually(t, fmt.Sprintf("node at server %d has all objects and no deleted one", i), func() bool {
			got, err := get(t, node, digests...)
			return len(got) == len(digests)/2 && errors.Is(err, ErrNoObject)
		})
	}
}

// The stream is there, but the only server that has it is not: as while a
// leader is elected, that is worth another try, and no loss of the stream.
func TestNobodyAnswersForTheStream(t *testing.T) {
	if testing.Short() {
		t.Skip("a cluster takes some seconds")
	}
	servers := startCluster(t)
	c := servers[0].connect("p")
	eventually(t, "a stream", func() bool {
		_, err := c.EnsureStream(t.Context(), site, Config{})
		return err == nil
	})
	l := acquire(t, c, "a")
	publish(t, l, messages(t, 40, "x")...)
	si, err := c.lookUpStream(t.Context(), streamName(site))
	if err != nil {
		t.Fatal(err)
	}
	var home, other *testServer
	for i, s := range servers {
		if si.Cluster.Leader == fmt.Sprintf("s%d", i) {
			home = s
		} else {
			other = s
		}
	}
	if home == servers[0] { // the lease is held by way of another server
		c = other.connect("q")
		if l, err = c.Acquire(t.Context(), site, Holder{Host: "b"}, true); err != nil {
			t.Fatal(err)
		}
	}
	read := func() error {
		r, err := c.openDirect(t.Context(), streamName(site))
		if err != nil {
			return err
		}
		defer r.close()
		_, _, err = r.read(directRequest{Seq: 1, Next: ">", Batch: directBatch, MaxBytes: directBytes}, func(*Delivery) error { return nil })
		return err
	}
	home.stop()
	eventually(t, "nobody to read from", func() bool { return errors.Is(read(), ErrUnavailable) })
	for _, n := range []int{1, 40} {
		for _, err := range l.Publish(t.Context(), messages(t, n, "y")) {
			if err == nil || errors.Is(err, ErrNoStream) {
				t.Errorf("published while nobody takes it: %v", err)
			}
		}
	}
	home.start()
	eventually(t, "all of it again", func() bool {
		return read() == nil && l.Publish(t.Context(), messages(t, 1, "z"))[0] == nil
	})
}
