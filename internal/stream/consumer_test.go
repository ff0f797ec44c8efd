package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

func openConsumer(t *testing.T, c *Conn, node string, cfg NodeConfig) *Consumer {
	t.Helper()
	k, err := c.OpenConsumer(t.Context(), site, node, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A runner is a Run in the background.
type runner struct {
	t      *testing.T
	cancel context.CancelFunc
	done   chan error

	mu  sync.Mutex
	got []Delivery
}

func run(t *testing.T, k *Consumer, fn func(Delivery)) *runner {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &runner{t: t, cancel: cancel, done: make(chan error, 1)}
	go func() {
		r.done <- k.Run(ctx, 100, 8<<20, func(d Delivery) {
			if fn != nil {
				fn(d)
			}
			r.mu.Lock()
			r.got = append(r.got, d)
			r.mu.Unlock()
		})
	}()
	t.Cleanup(func() { cancel() })
	return r
}

func (r *runner) deliveries() []Delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Delivery(nil), r.got...)
}

func (r *runner) stop() []Delivery {
	r.t.Helper()
	r.cancel()
	if err := <-r.done; err != nil {
		r.t.Errorf("run: %v", err)
	}
	return r.deliveries()
}

func ack(t *testing.T) func(Delivery) {
	return func(d Delivery) {
		if err := d.Ack(); err != nil && !errors.Is(err, ErrDisconnected) {
			t.Errorf("ack: %v", err)
		}
	}
}

func inOrder(t *testing.T, got []Delivery) {
	t.Helper()
	for i := 1; i < len(got); i++ {
		if got[i].Seq <= got[i-1].Seq {
			t.Fatalf("sequence %d after %d", got[i].Seq, got[i-1].Seq)
		}
	}
}

func TestConsumerDeliversWhatThereIsAndWhatComes(t *testing.T) {
	s, c := newSite(t, nil)
	l := acquire(t, c, "a")
	publish(t, l, messages(t, 1500, "1")...)
	k := openConsumer(t, s.connect("b"), "b", NodeConfig{Version: "1", Host: "h"})
	r := run(t, k, ack(t))
	eventually(t, "what there is", func() bool { return len(r.deliveries()) == 1501 })
	publish(t, l, messages(t, 3, "2")...)
	eventually(t, "what comes", func() bool { return len(r.deliveries()) == 1504 })
	eventually(t, "everything acked", func() bool {
		p, err := k.Position(t.Context())
		return err == nil && p.AckFloor == l.LastSeq() && p.AckPending == 0 && p.Pending == 0 && p.Delivered == l.LastSeq()
	})
	got := r.stop()
	inOrder(t, got)
	if d := got[1]; d.Header == "" || string(d.Payload) != "1" || d.Pending != 1499 || d.Redelivered || d.Time.IsZero() {
		t.Errorf("delivered %+v", d)
	}
	if got[0].Header != "" || site.IsFile(got[0].Subject) {
		t.Errorf("the lease came as %+v", got[0])
	}
	// A second one goes on where the first stopped.
	k = openConsumer(t, s.connect("b"), "b", NodeConfig{Version: "2", Host: "h"})
	publish(t, l, message(t, "last", "x"))
	r = run(t, k, ack(t))
	eventually(t, "the rest", func() bool { return len(r.deliveries()) == 1 })
	r.stop()
}

// nats.md 0.1: a delivered message that is compacted counts as acknowledged.
// With explicit acks only that one does.
func TestConsumerCompactionAcksNothingElse(t *testing.T) {
	s, c := newSite(t, nil)
	l := acquire(t, c, "a")
	publish(t, l, message(t, "a", "1"), message(t, "b", "1"), message(t, "c", "1"))
	k := openConsumer(t, s.connect("b"), "b", NodeConfig{})
	r := run(t, k, nil)
	eventually(t, "delivery", func() bool { return len(r.deliveries()) == 4 })
	publish(t, l, message(t, "b", "2"))
	eventually(t, "redelivery", func() bool { return len(r.deliveries()) == 5 })
	p, err := k.Position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p.AckPending != 4 { // the lease, a, c and the new b
		t.Errorf("%d pending", p.AckPending)
	}
	r.stop()
	if err := k.Reset(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	r = run(t, k, ack(t))
	eventually(t, "what was not acked comes again", func() bool { return len(r.deliveries()) == 4 })
	got := r.stop()
	inOrder(t, got)
	var subjects []string
	for _, d := range got[1:] {
		subjects = append(subjects, strings.TrimPrefix(d.Subject, "treecast.web.file.")+string(d.Payload))
	}
	if s := strings.Join(subjects, " "); s != "a1 c1 b2" {
		t.Errorf("came again: %s", s)
	}
}

func TestConsumerReset(t *testing.T) {
	s, c := newSite(t, nil)
	l := acquire(t, c, "a")
	publish(t, l, messages(t, 20, "1")...)
	k := openConsumer(t, s.connect("b"), "b", NodeConfig{})
	first := func() uint64 {
		t.Helper()
		r := run(t, k, ack(t))
		eventually(t, "delivery", func() bool { return len(r.deliveries()) > 0 })
		return r.stop()[0].Seq
	}
	reset := func(seq uint64) {
		t.Helper()
		if err := k.Reset(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
	}
	reset(7)
	if seq := first(); seq != 7 {
		t.Errorf("reset to 7, first is %d", seq)
	}
	publish(t, l, messages(t, 10, "2")...) // 2 to 11 are gone
	reset(3)
	if seq := first(); seq != 12 {
		t.Errorf("reset to 3, first is %d, want the first that lives, 12", seq)
	}
	reset(1)
	if seq := first(); seq != 1 {
		t.Errorf("reset to 1, first is %d", seq)
	}
	last := l.LastSeq()
	reset(last + 5)
	p, err := k.Position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p.Pending != 0 || p.AckFloor != last+4 {
		t.Errorf("beyond the end: %+v, last is %d", p, last)
	}
	r := run(t, k, ack(t))
	publish(t, l, messages(t, 8, "3")...)
	eventually(t, "delivery", func() bool { return len(r.deliveries()) == 4 })
	if got := r.stop(); got[0].Seq != last+5 {
		t.Errorf("beyond the end: first is %d, want %d", got[0].Seq, last+5)
	}
}

func TestConsumerThroughRestarts(t *testing.T) {
	s, c := newSite(t, nil)
	l := acquire(t, c, "a")
	k := openConsumer(t, s.connect("b"), "b", NodeConfig{})
	var wrong atomic.Value
	newest := map[string]uint64{}
	var mu sync.Mutex
	r := run(t, k, func(d Delivery) {
		mu.Lock()
		if d.Seq < newest[d.Subject] {
			wrong.Store(fmt.Sprintf("%s: %d after %d", d.Subject, d.Seq, newest[d.Subject]))
		}
		newest[d.Subject] = d.Seq
		mu.Unlock()
		ack(t)(d)
	})
	for range 4 {
		publish(t, l, messages(t, 300, "x")...)
		s.restart(nil, c)
		publish(t, l, messages(t, 1, "y")...)
	}
	eventually(t, "everything", func() bool {
		p, err := k.Position(t.Context())
		return err == nil && p.AckFloor == l.LastSeq() && p.AckPending == 0
	})
	r.stop()
	if w := wrong.Load(); w != nil {
		t.Error("an older version came after a newer one: ", w)
	}
}

// A node that is slow gets everything, holds little, and nothing is dropped.
func TestConsumerBackpressure(t *testing.T) {
	s, c := newSite(t, nil)
	l := acquire(t, c, "a")
	publish(t, l, messages(t, 80, strings.Repeat("x", 900<<10))...) // 73 MB, beyond nats.go's 64 MiB
	k := openConsumer(t, s.connect("b"), "b", NodeConfig{})
	gate := make(chan struct{})
	var once sync.Once
	var most atomic.Uint64
	r := run(t, k, func(d Delivery) {
		once.Do(func() { <-gate })
		ack(t)(d)
	})
	for range 20 {
		p, err := k.Position(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		most.Store(max(most.Load(), p.AckPending))
		time.Sleep(5 * time.Millisecond)
	}
	close(gate)
	eventually(t, "everything", func() bool { return len(r.deliveries()) == 81 })
	inOrder(t, r.stop())
	if n := most.Load(); n > 20 {
		t.Errorf("%d messages of 900 KB on their way, 8 MiB are allowed", n)
	}
}

func TestConsumerGone(t *testing.T) {
	for _, how := range []string{"consumer deleted", "stream deleted", "made anew", "store wiped"} {
		t.Run(how, func(t *testing.T) {
			s, c := newSite(t, nil)
			k := openConsumer(t, s.connect("b"), "b", NodeConfig{})
			r := run(t, k, ack(t))
			eventually(t, "it waits", func() bool {
				info, err := c.consumerInfo(t.Context(), site, "b")
				return err == nil && info.NumWaiting > 0
			})
			sentinel := ErrNoConsumer
			switch how {
			case "consumer deleted":
				if err := c.js.DeleteConsumer(t.Context(), "web", "b"); err != nil {
					t.Fatal(err)
				}
			case "stream deleted":
				sentinel = ErrNoStream
				if err := c.js.DeleteStream(t.Context(), "web"); err != nil {
					t.Fatal(err)
				}
			case "made anew":
				s.restart(s.wipe, c)
				if _, err := c.EnsureStream(t.Context(), site, Config{}); err != nil {
					t.Fatal(err)
				}
				if err := c.AddNodes(t.Context(), site, []string{"b"}, NodeConfig{}); err != nil {
					t.Fatal(err)
				}
			case "store wiped":
				sentinel = ErrNoStream
				s.restart(s.wipe, c)
			}
			select {
			case err := <-r.done:
				if how == "made anew" && errors.Is(err, ErrNoStream) {
					return // it was faster than the stream
				}
				want(t, err, sentinel)
				r.done <- nil
			case <-time.After(20 * time.Second):
				t.Fatal("run goes on")
			}
		})
	}
}

func TestConsumerSettings(t *testing.T) {
	s, c := newSite(t, nil)
	ctx := t.Context()
	if err := c.AddNodes(ctx, site, []string{"b", "c"}, NodeConfig{AckWait: time.Second}); err != nil {
		t.Fatal(err)
	}
	openConsumer(t, s.connect("b"), "b", NodeConfig{AckWait: 5 * time.Second, MaxAckPending: 7, InactiveThreshold: time.Hour, Version: "9", Host: "hb"})
	info, err := c.consumerInfo(ctx, site, "b")
	if err != nil {
		t.Fatal(err)
	}
	if cc := info.Config; cc.AckWait != 5*time.Second || cc.MaxAckPending != 7 || cc.InactiveThreshold != time.Hour ||
		cc.Metadata["treecast.version"] != "9" || cc.Metadata["treecast.host"] != "hb" {
		t.Errorf("not updated: %+v", cc)
	}
	for name, cc := range map[string]jetstream.ConsumerConfig{
		"ackall": {Durable: "ackall", AckPolicy: jetstream.AckAllPolicy},
		"new":    {Durable: "new", AckPolicy: jetstream.AckExplicitPolicy, DeliverPolicy: jetstream.DeliverNewPolicy},
		"filter": {Durable: "filter", AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: "treecast.web.file.x.>"},
	} {
		if _, err := c.js.CreateConsumer(ctx, "web", cc); err != nil {
			t.Fatal(err)
		}
		_, err := c.OpenConsumer(ctx, site, name, NodeConfig{})
		want(t, err, ErrConfig)
	}
	_, err = c.OpenConsumer(ctx, "nosite", "b", NodeConfig{})
	want(t, err, ErrNoStream)
	if _, err = c.OpenConsumer(ctx, site, "b.c", NodeConfig{}); err == nil {
		t.Error("a node's name with a dot")
	}
}

func TestTwentyConsumers(t *testing.T) {
	s, c := newSite(t, nil)
	l := acquire(t, c, "a")
	g, ctx := errgroup.WithContext(t.Context())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var caught atomic.Int32
	const last = "the very last"
	for i := range 20 {
		nc := s.connect(fmt.Sprintf("n%d", i))
		g.Go(func() error {
			k, err := nc.OpenConsumer(ctx, site, fmt.Sprintf("n%d", i), NodeConfig{})
			if err != nil {
				return err
			}
			seen := map[string]bool{}
			return k.Run(ctx, 200, 4<<20, func(d Delivery) {
				_ = d.Ack()
				seen[d.Subject] = true
				if string(d.Payload) == last && len(seen) == 501+1 {
					caught.Add(1)
				}
			})
		})
	}
	for range 3 {
		publish(t, l, messages(t, 500, "x")...)
	}
	publish(t, l, message(t, "end", last))
	eventually(t, "all nodes have all of it", func() bool { return caught.Load() == 20 })
	cancel()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestStatuses(t *testing.T) {
	s, c := newSite(t, nil)
	ctx := t.Context()
	for i := range 3 {
		for _, node := range []string{"b", "c", "d"} {
			if err := s.connect(node).PutStatus(ctx, site, node, fmt.Appendf(nil, "%s %d", node, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	kv, err := c.js.KeyValue(ctx, "web-nodes")
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Delete(ctx, "d"); err != nil {
		t.Fatal(err)
	}
	got, err := c.Statuses(ctx, site)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || string(got["b"]) != "b 2" || string(got["c"]) != "c 2" {
		t.Errorf("statuses %q", got)
	}
	want(t, c.PutStatus(ctx, "nosite", "b", nil), ErrNoStream)
	_, err = c.Statuses(ctx, "nosite")
	want(t, err, ErrNoStream)
	if err := c.PutStatus(ctx, site, "b", make([]byte, maxStatusBytes+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a large status: %v", err)
	}
}
