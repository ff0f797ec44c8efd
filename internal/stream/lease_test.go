package stream

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

func TestAcquireRefusedWhileTheHolderAnswers(t *testing.T) {
	s, c := newSite(t, nil)
	first := acquire(t, c, "a")
	_, err := s.connect("second").Acquire(t.Context(), site, Holder{Host: "b"}, false)
	want(t, err, ErrHeld)
	if held, ok := errors.AsType[*HeldError](err); !ok || held.Holder.Host != "a" || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("who holds it is missing in %v", err)
	}
	publish(t, first, message(t, "f", "x"))

	msg, err := s.connect("human").nc.Request(site.HolderSubject(), nil, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var h Holder
	if err := json.Unmarshal(msg.Data, &h); err != nil || h.Host != "a" || h.Instance == "" {
		t.Errorf("a human is told %q", msg.Data)
	}
}

func TestAcquireAfterReleaseOrDeathIsAtOnce(t *testing.T) {
	s, c := newSite(t, nil)
	first := acquire(t, c, "a")
	if err := first.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, first.Publish(t.Context(), messages(t, 1, ""))[0], ErrReleased)
	start := time.Now()
	dying := s.connect("second")
	second, err := dying.Acquire(t.Context(), site, Holder{Host: "b"}, false)
	if err != nil {
		t.Fatal(err)
	}
	dying.Close() // as kill -9 would
	third, err := s.connect("third").Acquire(t.Context(), site, Holder{Host: "c"}, false)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > holderPatience {
		t.Errorf("took %s", took)
	}
	if !(first.Epoch() < second.Epoch() && second.Epoch() < third.Epoch()) {
		t.Errorf("epochs %d, %d, %d do not grow", first.Epoch(), second.Epoch(), third.Epoch())
	}
	publish(t, third, message(t, "f", "x"))
}

// A holder that is there but does not answer, as after SIGSTOP.
func TestAcquireFromASleeper(t *testing.T) {
	s, c := newSite(t, nil)
	sleeper := acquire(t, c, "sleeper")
	sub, err := c.nc.SubscribeSync(site.HolderSubject()) // takes requests, like a stopped process
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	sleeper.endMu.Lock()
	_ = sleeper.answers.Unsubscribe()
	sleeper.endMu.Unlock()

	next, err := s.connect("second").Acquire(t.Context(), site, Holder{Host: "next"}, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 100} {
		want(t, sleeper.Publish(t.Context(), messages(t, n, "x"))[n-1], ErrFenced)
	}
	publish(t, next, messages(t, 100, "y")...)
	_, err = s.connect("third").Acquire(t.Context(), site, Holder{Host: "third"}, false)
	want(t, err, ErrHeld) // the woken sleeper does not stand in for it
}

func TestAcquireRace(t *testing.T) {
	s, _ := newSite(t, nil)
	var g errgroup.Group
	leases := make([]*Lease, 6)
	for i := range leases {
		c := s.connect("p")
		g.Go(func() error {
			l, err := c.Acquire(t.Context(), site, Holder{Host: "h"}, false)
			leases[i] = l
			if errors.Is(err, ErrHeld) {
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	winners := 0
	for _, l := range leases {
		if l != nil && l.Publish(t.Context(), messages(t, 1, "x"))[0] == nil {
			winners++
		}
	}
	if winners != 1 {
		t.Errorf("%d publishers can publish", winners)
	}
}

func TestAcquireNeedsAStream(t *testing.T) {
	c := startServer(t, nil).connect("p")
	_, err := c.Acquire(t.Context(), site, Holder{}, false)
	want(t, err, ErrNoStream)
}

func TestLeaseOutlivesTheServer(t *testing.T) {
	s, c := newSite(t, nil)
	l := acquire(t, c, "a")
	publish(t, l, messages(t, 3, "1")...)
	s.restart(nil, c)
	publish(t, l, messages(t, 1, "2")...)
	other := s.connect("second")
	_, err := other.Acquire(t.Context(), site, Holder{Host: "b"}, false)
	want(t, err, ErrHeld)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = other.Acquire(ctx, site, Holder{Host: "b"}, true)
	want(t, err, context.Canceled)
}

// After a publish whose outcome is unknown, Settle moves the fence on, so that
// the message cannot land any more; otherwise it writes nothing.
func TestSettle(t *testing.T) {
	_, l, _ := newBucketSite(t, Config{})
	seq, fence := l.LastSeq(), l.fence
	if err := l.Settle(t.Context()); err != nil || l.LastSeq() != seq {
		t.Fatalf("%v, from %d to %d", err, seq, l.LastSeq())
	}
	l.mu.Lock()
	l.unsure = true
	l.mu.Unlock()
	if err := l.Settle(t.Context()); err != nil || l.fence == fence {
		t.Fatalf("%v, the fence is %d as before", err, l.fence)
	}
	l.finish(ErrReleased)
	if err := l.Settle(t.Context()); !errors.Is(err, ErrReleased) {
		t.Fatal(err)
	}
}

// What a lease says of the root is there for the next holder.
func TestLeaseSaysTheRoot(t *testing.T) {
	_, l, _ := newBucketSite(t, Config{})
	if err := l.SetRoot(t.Context(), "device 1, inode 2"); err != nil {
		t.Fatal(err)
	}
	last, err := l.c.LastHolder(t.Context(), site)
	if err != nil || last.Root != "device 1, inode 2" || last.Instance != l.holder().Instance {
		t.Errorf("%+v, %v", last, err)
	}
	publish(t, l, messages(t, 1, "x")...)
}
