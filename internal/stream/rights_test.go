package stream

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"treecast/internal/events"
)

// exampleUsers returns how to connect as a user of deploy/nats-example.conf.
func exampleUsers(t *testing.T) (as func(user string) *Conn) {
	t.Helper()
	for _, user := range []string{"PUBLISHER", "ADMIN", "B", "C", "D"} {
		t.Setenv("TREECAST_"+user+"_PASSWORD", "pw-"+strings.ToLower(user))
	}
	conf, err := server.ProcessConfigFile(filepath.Join("..", "..", "deploy", "nats-example.conf"))
	if err != nil {
		t.Fatal(err)
	}
	s := startServer(t, func(o *server.Options) { o.Users = conf.Users })
	return func(user string) *Conn {
		t.Helper()
		c, err := Connect(t.Context(), ConnectOptions{InProcess: s, Name: user, User: user, PasswordFile: writeFile(t, "pw-"+user), Log: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
}

// A node may create no consumer. The publisher lends it one that reads headers.
func TestSnapshotUnderTheExamplesRights(t *testing.T) {
	as := exampleUsers(t)
	publisher, node := as("publisher"), as("b")
	if _, err := publisher.EnsureStream(t.Context(), site, Config{}); err != nil {
		t.Fatal(err)
	}
	if err := publisher.AddNodes(t.Context(), site, []string{"b"}, NodeConfig{}); err != nil {
		t.Fatal(err)
	}
	l := acquire(t, publisher, "a")
	publish(t, l, messages(t, 20, "x")...)
	read := func(name string, during func()) {
		t.Helper()
		n := 0
		if _, err := node.NodeSnapshot(t.Context(), site, name, func(uint64, string, string) error {
			if n++; n == 10 && during != nil {
				during()
			}
			return nil
		}); err != nil || n != 20 {
			t.Errorf("%d entries, %v", n, err)
		}
	}
	lent := func(name string) bool {
		t.Helper()
		info, err := publisher.consumerInfo(t.Context(), site, lentConsumer(name))
		if err != nil && !errors.Is(err, ErrNoConsumer) {
			t.Fatal(err)
		}
		return err == nil && info.Config.HeadersOnly && info.Config.DeliverSubject == "" && info.Config.Durable == ""
	}
	read("b", nil)
	if lent("b") {
		t.Error("lent by nobody")
	}
	stop, err := l.LendConsumers()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	read("b", func() {
		if !lent("b") {
			t.Error("nothing is lent to the node")
		}
		read("b", nil) // the second reader has it not, and reads all the same
	})
	// Forgotten in the midst: Direct Get goes on from there.
	eventually(t, "the server forgets it", func() bool { return !lent("b") })
	read("b", func() {
		if err := publisher.js.DeleteConsumer(t.Context(), streamName(site), lentConsumer("b")); err != nil {
			t.Error(err)
		}
	})
	read("c", nil)
	if lent("c") {
		t.Error("lent to one who is no node")
	}
	for _, name := range []string{"b", "c", "snapshot-x", lentConsumer("b")} {
		want(t, node.createHeaders(t.Context(), site, name, 1, ownIdle), ErrDenied)
	}
}

// The rights of deploy/nats-example.conf are enough for the bucket, and a node
// can change nothing in it.
func TestBucketUnderTheExamplesRights(t *testing.T) {
	as := exampleUsers(t)
	publisher, node := as("publisher"), as("b")
	if _, err := publisher.EnsureStream(t.Context(), site, Config{}); err != nil {
		t.Fatal(err)
	}
	l := acquire(t, publisher, "a")
	openBucket(t, l, Config{})
	b := openBucket(t, l, Config{BucketBytes: 100 << 20})
	heard := make(chan Want, 1)
	stop, err := l.Wants(func(w Want) { heard <- w })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	data := body(1, 1<<20)
	d := put(t, b, data)
	put(t, b, data)
	if got, err := get(t, node, d); err != nil || len(got) != 1 {
		t.Errorf("got %d, %v", len(got), err)
	}
	if err := node.Bodies(site).Want(t.Context(), "b", path(t, "x"), []events.Digest{d}); err != nil {
		t.Error(err)
	}
	<-heard
	if err := b.SetUnnamed(t.Context(), object(t, b, d), time.Now()); err != nil {
		t.Error(err)
	}
	left := body(2, 1000)
	if _, err := b.upload(t.Context(), events.Sum(left).String(), "LEFT", left); err != nil {
		t.Fatal(err)
	}
	found := 0
	if err := b.Orphans(t.Context(), false, func(nuid string, _ int64, _ time.Time) error {
		found++
		return b.DeleteOrphan(t.Context(), nuid)
	}); err != nil || found != 1 {
		t.Errorf("%d orphans, %v", found, err)
	}
	read, err := publisher.ReadBucket(t.Context(), site)
	if err != nil {
		t.Fatal(err)
	}
	if err := read.Objects(t.Context(), nil, func(Object) error { return nil }); err != nil {
		t.Error(err)
	}
	b.serial = true // reads the end from the leader
	if err := b.Objects(t.Context(), nil, func(Object) error { return nil }); err != nil {
		t.Error(err)
	}
	b.serial = false
	if err := b.Delete(t.Context(), object(t, b, d)); err != nil {
		t.Error(err)
	}
	if _, err := node.Entry(t.Context(), site, path(t, "x")); err != nil {
		t.Error(err)
	}

	// A node: with the lease it would be a publisher, so one is made up.
	thief := &Bucket{c: node, site: site, room: b.room, fence: b.fence, acked: b.acked,
		l:       &Lease{c: node, js: node.js, site: site, me: l.me, fence: l.fence},
		writers: map[string]*writer{}, flying: map[string]bool{}, orphans: map[string]bool{}}
	_, err = thief.upload(t.Context(), "x", "STOLEN", data)
	want(t, err, ErrDenied)
	_, err = thief.fenced(t.Context(), metaSubject(site, d.String()), []byte("{}"), 0)
	want(t, err, ErrDenied)
	want(t, thief.writeLease(t.Context(), thief.fence), ErrDenied)
	want(t, thief.purge(t.Context(), ">"), ErrDenied)
	_, err = node.ReadBucket(t.Context(), site)
	want(t, err, ErrDenied)
	_, err = (&Lease{c: node, site: site}).Wants(func(Want) {})
	want(t, err, ErrDenied)
	want(t, publisher.Bodies(site).Want(t.Context(), "b", path(t, "x"), []events.Digest{d}), ErrDenied)
}
