package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"treecast/internal/events"
	"treecast/internal/stream"
)

const site = events.Site("web")

func connectAs(t *testing.T, b *Broker, user string) *stream.Conn {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("pw-"+user+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := stream.Connect(t.Context(), stream.ConnectOptions{URL: b.URL(), Name: user, User: user, PasswordFile: file, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func messages(t *testing.T, n int, body string) []stream.Message {
	t.Helper()
	msgs := make([]stream.Message, n)
	for i := range msgs {
		p, err := events.ParsePath(fmt.Sprintf("d/f%d", i))
		if err != nil {
			t.Fatal(err)
		}
		msgs[i] = stream.Message{Path: p, Subject: site.Subject(p), Header: "{}", Payload: []byte(body)}
	}
	return msgs
}

// The example's users can do their work, and nothing else.
func TestExampleConfiguration(t *testing.T) {
	for _, user := range []string{"publisher", "b", "c", "d", "admin"} {
		t.Setenv("TREECAST_"+map[string]string{"publisher": "PUBLISHER", "b": "B", "c": "C", "d": "D", "admin": "ADMIN"}[user]+"_PASSWORD", "pw-"+user)
	}
	b := start(t, Options{ConfigFile: filepath.Join("..", "..", "deploy", "nats-example.conf"),
		StoreDir: t.TempDir(), Listen: "127.0.0.1:0", Monitor: "127.0.0.1:0", SyncAlways: true})
	ctx := t.Context()

	publisher := connectAs(t, b, "publisher")
	if _, err := publisher.EnsureStream(ctx, site, stream.Config{MaxBytes: -1}); err != nil {
		t.Fatal(err)
	}
	if err := publisher.AddNodes(ctx, site, []string{"b", "c"}, stream.NodeConfig{}); err != nil {
		t.Fatal(err)
	}
	lease, err := publisher.Acquire(ctx, site, stream.Holder{Host: "a"}, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := connectAs(t, b, "publisher").Acquire(ctx, site, stream.Holder{Host: "a2"}, false); !errors.Is(err, stream.ErrHeld) {
		t.Errorf("a second publisher: %v", err)
	}
	for _, n := range []int{1, 300} {
		if err := errors.Join(lease.Publish(ctx, messages(t, n, "x"))...); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := publisher.Snapshot(ctx, site, func(uint64, string, string) error { return nil }); err != nil {
		t.Errorf("publisher's snapshot: %v", err)
	}

	node := connectAs(t, b, "b")
	consumer, err := node.OpenConsumer(ctx, site, "b", stream.NodeConfig{Version: "1"}) // may not change it: no error
	if err != nil {
		t.Fatal(err)
	}
	if err := consumer.Reset(ctx, 1); err != nil {
		t.Fatal(err)
	}
	rctx, stopRun := context.WithCancel(ctx)
	got := 0
	if err := consumer.Run(rctx, 100, 8<<20, func(d stream.Delivery) {
		if err := d.Ack(); err != nil {
			t.Error(err)
		}
		if got++; got == 301 {
			stopRun()
		}
	}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if p, err := consumer.Position(ctx); err == nil && p.AckPending == 0 && p.Pending == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("acks do not arrive")
		}
	}
	seen := 0
	if _, err := node.Snapshot(ctx, site, func(uint64, string, string) error { seen++; return nil }); err != nil || seen != 300 {
		t.Errorf("node's snapshot has %d: %v", seen, err)
	}
	if err := node.Fetch(ctx, site, []stream.Wanted{{Seq: lease.LastSeq()}}, func(stream.Delivery) error { seen++; return nil }); err != nil || seen != 301 {
		t.Errorf("node's fetch: %v", err)
	}
	if err := node.PutStatus(ctx, site, "b", []byte("well")); err != nil {
		t.Error(err)
	}
	statuses, err := connectAs(t, b, "admin").Statuses(ctx, site)
	if err != nil || string(statuses["b"]) != "well" {
		t.Errorf("statuses %q, %v", statuses, err)
	}

	stop, err := node.AnswerAsNode(ctx, site, "b", func() json.RawMessage { return json.RawMessage(`"here"`) })
	if err != nil {
		t.Fatal(err)
	}
	if said, err := publisher.AskNode(ctx, site, "b"); err != nil || string(said) != `"here"` {
		t.Errorf("the node said %s, %v", said, err)
	}
	stop()
	if _, err := publisher.AskNode(ctx, site, "b"); !errors.Is(err, stream.ErrSilent) {
		t.Errorf("a node that is gone: %v", err)
	}
	if stop, err = lease.Barriers(func(r stream.BarrierRequest, answer func(stream.BarrierState)) {
		answer(stream.BarrierState{Seq: 7, Generation: r.Generation})
	}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // another instance's generation is not ours
		if state, err := publisher.Barrier(ctx, site, stream.BarrierRequest{Instance: "x", Generation: 3}); err != nil || state.Seq != 7 || state.Generation != 0 || state.Epoch != lease.Epoch() {
			t.Errorf("barrier %+v, %v", state, err)
		}
	}
	stop()

	if stop, err = lease.AnswerAsSource(func() any { return "well" }); err != nil {
		t.Fatal(err)
	}
	if said, err := publisher.AskSource(ctx, site); err != nil || string(said) != `"well"` {
		t.Errorf("the source said %s, %v", said, err)
	}
	stop()

	denied := map[string]error{
		"another's status": node.PutStatus(ctx, site, "c", []byte("not mine")),
		"add a node":       node.AddNodes(ctx, site, []string{"x"}, stream.NodeConfig{}),
	}
	_, denied["answer as another"] = node.AnswerAsNode(ctx, site, "c", nil)
	_, denied["another's state"] = node.AskNode(ctx, site, "c")
	_, denied["the source"] = node.AskSource(ctx, site)
	_, denied["a barrier"] = node.Barrier(ctx, site, stream.BarrierRequest{})
	_, denied["another's consumer"] = node.OpenConsumer(ctx, site, "c", stream.NodeConfig{})
	_, denied["own consumer that is not there"] = connectAs(t, b, "d").OpenConsumer(ctx, site, "d", stream.NodeConfig{})
	_, denied["the lease"] = node.Acquire(ctx, site, stream.Holder{Host: "b"}, true)
	_, denied["the bucket"] = node.EnsureStream(ctx, site, stream.Config{})
	for what, err := range denied {
		if !errors.Is(err, stream.ErrDenied) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// What the stream package would not even try.
	before, err := publisher.StreamInfo(ctx, site)
	if err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{
		"treecast.web.file.d.f1", "treecast.web.lease", "treecast.web.holder",
		"$JS.API.STREAM.CREATE.web", "$JS.API.STREAM.UPDATE.web", "$JS.API.STREAM.DELETE.web", "$JS.API.STREAM.PURGE.web",
		"$JS.API.STREAM.CREATE.x", "$JS.API.CONSUMER.CREATE.web.b", "$JS.API.CONSUMER.CREATE.web", "$JS.API.CONSUMER.DELETE.web.b",
		"$JS.API.CONSUMER.DELETE.web.c", "$JS.API.CONSUMER.MSG.NEXT.web.c", "$JS.API.CONSUMER.RESET.web.c",
		"$JS.API.CONSUMER.DURABLE.CREATE.web.b", "$JS.ACK.web.c.1.1.1.1.1", "$KV.web-nodes.c",
	} {
		mustNotPublish(t, b, "b", subject)
	}
	for _, subject := range []string{"treecast.>", ">", "_INBOX_c.>", "_INBOX_publisher.>", "$JS.>", "_INBOX.>"} {
		mustNotSubscribe(t, b, "b", subject)
	}
	for _, subject := range []string{"$JS.API.STREAM.DELETE.web", "$JS.API.STREAM.PURGE.web", "$JS.API.STREAM.MSG.DELETE.web", "$KV.web-nodes.b"} {
		mustNotPublish(t, b, "publisher", subject)
	}
	after, err := publisher.StreamInfo(ctx, site)
	after.Now = before.Now
	if err != nil || after != before {
		t.Errorf("the stream was %+v and is %+v, %v", before, after, err)
	}
}

// raw connects without the stream package; refusals come on the channel.
func raw(t *testing.T, b *Broker, user string) (*nats.Conn, <-chan error) {
	t.Helper()
	refusals := make(chan error, 8)
	nc, err := nats.Connect(b.URL(), nats.UserInfo(user, "pw-"+user), nats.CustomInboxPrefix("_INBOX_"+user),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refusals <- err }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc, refusals
}

func refused(t *testing.T, what string, nc *nats.Conn, refusals <-chan error) {
	t.Helper()
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-refusals:
		if !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("%s: %v", what, err)
		}
	case <-time.After(5 * time.Second):
		t.Errorf("%s: allowed", what)
	}
}

func mustNotPublish(t *testing.T, b *Broker, user, subject string) {
	t.Helper()
	nc, refusals := raw(t, b, user)
	if err := nc.Publish(subject, nil); err != nil {
		t.Fatal(err)
	}
	refused(t, user+" publishes to "+subject, nc, refusals)
}

func mustNotSubscribe(t *testing.T, b *Broker, user, subject string) {
	t.Helper()
	nc, refusals := raw(t, b, user)
	if _, err := nc.SubscribeSync(subject); err != nil {
		t.Fatal(err)
	}
	refused(t, user+" subscribes to "+subject, nc, refusals)
}
