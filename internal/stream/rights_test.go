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

// A node may make the consumer of its snapshots, one at a time, and no other.
func TestSnapshotUnderTheExamplesRights(t *testing.T) {
	as := exampleUsers(t)
	publisher, node := as("publisher"), as("b")
	if _, err := publisher.EnsureStream(t.Context(), site, Config{}); err != nil {
		t.Fatal(err)
	}
	publish(t, acquire(t, publisher, "a"), messages(t, 20, "x")...)
	read := func(during func()) (n int) {
		t.Helper()
		if _, err := node.Snapshot(t.Context(), site, func(uint64, string, string) error {
			if n++; n == 10 && during != nil {
				during()
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		return n
	}
	const theirs = "b+snapshot"
	first := read(func() {
		info, err := publisher.consumerInfo(t.Context(), site, theirs)
		if err != nil || !info.Config.HeadersOnly {
			t.Errorf("the node reads without a consumer of headers: %v", err)
		}
		if second := read(nil); second != 20 { // by direct get
			t.Errorf("%d entries read beside", second)
		}
	})
	if first != 20 || node.snapshotBy.Load() != ownConsumer {
		t.Errorf("%d entries read", first)
	}
	if _, err := publisher.consumerInfo(t.Context(), site, theirs); !errors.Is(err, ErrNoConsumer) {
		t.Errorf("the consumer is left: %v", err)
	}
	if n := read(nil); n != 20 || node.snapshotBy.Load() != ownConsumer {
		t.Errorf("%d entries read again", n)
	}
	s := &snapshot{c: node, site: site, next: 1}
	for _, name := range []string{"b", "c", "c+snapshot", "snapshot-x"} {
		want(t, s.createConsumer(t.Context(), name), ErrDenied)
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
