package stream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"treecast/internal/events"
)

func TestPublishCompactsToOneMessageAPath(t *testing.T) {
	_, c := newSite(t, nil)
	l := acquire(t, c, "a")
	for round := range 3 {
		for _, n := range []int{1, plainMax, plainMax + 1, 2500} {
			publish(t, l, messages(t, n, fmt.Sprint("round ", round))...)
		}
	}
	info, err := c.StreamInfo(t.Context(), site)
	if err != nil {
		t.Fatal(err)
	}
	if info.Msgs != 2500+1 { // and the lease
		t.Errorf("%d messages live, want one a path and the lease", info.Msgs)
	}
	if info.LastSeq != l.LastSeq() {
		t.Errorf("last sequence %d, acknowledged %d", info.LastSeq, l.LastSeq())
	}
}

func TestPublishKeepsTheOrder(t *testing.T) {
	_, c := newSite(t, nil)
	l := acquire(t, c, "a")
	for _, n := range []int{plainMax, 1700} {
		msgs := messages(t, n, "x")
		rand.Shuffle(n, func(i, j int) { msgs[i], msgs[j] = msgs[j], msgs[i] })
		publish(t, l, msgs...)
		var got []string
		if _, err := c.Snapshot(t.Context(), site, func(_ uint64, subject, _ string) error {
			got = append(got, subject)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for i, subject := range got[len(got)-n:] {
			if subject != msgs[i].Subject {
				t.Fatalf("of %d, number %d is %s, want %s", n, i, subject, msgs[i].Subject)
			}
		}
	}
}

func TestPublishSplitsBatchesBySize(t *testing.T) {
	_, c := newSite(t, nil)
	l := acquire(t, c, "a")
	msgs := messages(t, 40, strings.Repeat("x", 500<<10)) // 20 MB
	publish(t, l, msgs...)
	if n := len(snapshotOf(t, c)); n != 40 {
		t.Errorf("%d stored, want 40", n)
	}
}

func TestPublishRefusedAfterTakeover(t *testing.T) {
	s, c := newSite(t, nil)
	for _, n := range []int{1, 5, 400} {
		old := acquire(t, c, "old")
		publish(t, old, message(t, "a", "old"))
		next, err := s.connect("second").Acquire(t.Context(), site, Holder{Host: "new", PID: 2}, true)
		if err != nil {
			t.Fatal(err)
		}
		if next.Epoch() <= old.Epoch() {
			t.Errorf("epoch %d after %d", next.Epoch(), old.Epoch())
		}
		for range 2 { // found out, and remembered
			for i, err := range old.Publish(t.Context(), messages(t, n, "late")) {
				if !errors.Is(err, ErrFenced) {
					t.Fatalf("message %d of %d: %v", i, n, err)
				}
				if f, ok := errors.AsType[*FencedError](err); !ok || f.Holder.Host != "new" {
					t.Fatalf("who took over is missing in %v", err)
				}
			}
		}
		publish(t, next, messages(t, n, "new")...)
		if err := next.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for subject, header := range snapshotOf(t, c) {
		if header == "" {
			t.Errorf("%s has no entry", subject)
		}
	}
}

func TestPublishTombstoneHasTTL(t *testing.T) {
	_, c := newSite(t, nil)
	l := acquire(t, c, "a")
	for _, n := range []int{1, 50} {
		msgs := messages(t, n, "")
		for i := range msgs {
			msgs[i].TTL = 1500 * time.Millisecond
		}
		publish(t, l, msgs...)
	}
	publish(t, l, message(t, "stays", ""))
	eventually(t, "tombstones expire", func() bool {
		info, err := c.StreamInfo(t.Context(), site)
		return err == nil && info.Msgs == 2
	})
	if seen := snapshotOf(t, c); len(seen) != 1 { // the tail of the stream is empty
		t.Errorf("snapshot has %d, want what stays", len(seen))
	}
}

func TestPublishHoldsTombstonesBackAfterAFailure(t *testing.T) {
	_, c := newSite(t, nil)
	l := acquire(t, c, "a")
	for _, n := range []int{0, 30} {
		msgs := append(messages(t, n, "x"), message(t, "new", strings.Repeat("x", 2<<20)), message(t, "other", "x"), message(t, "old", ""))
		msgs[n+2].TTL = time.Hour
		errs := l.Publish(t.Context(), msgs)
		want(t, errs[n], ErrTooLarge)
		want(t, errs[n+2], ErrNotSent)
		if errs[n+1] != nil {
			t.Errorf("what has nothing to do with it: %v", errs[n+1])
		}
		if errors.Is(errs[n+2], ErrTooLarge) {
			t.Errorf("the tombstone takes the other's error: %v", errs[n+2])
		}
	}
}

func TestPublishFull(t *testing.T) {
	s, c := newSite(t, nil)
	ctx := t.Context()
	if _, err := c.EnsureStream(ctx, site, Config{MaxBytes: 200 << 10}); err != nil {
		t.Fatal(err)
	}
	l := acquire(t, c, "a")
	big := strings.Repeat("x", 20<<10)
	for _, n := range []int{10, 40} { // one by one, and as a batch
		stored, full := 0, 0
		errs := l.Publish(ctx, messages(t, n, big))
		for _, err := range errs {
			switch {
			case err == nil:
				stored++
			case errors.Is(err, ErrFull):
				full++
			default:
				t.Fatal(err)
			}
		}
		if stored < 8 || full != n-stored || full == 0 {
			t.Errorf("of %d, %d stored and %d found it full", n, stored, full)
		}
	}
	// Overwriting with no more bytes needs no room, in a batch neither.
	publish(t, l, messages(t, 8, big)...)
	small := messages(t, 8, "x")
	for len(small) <= plainMax {
		small = append(small, small[0])
	}
	publish(t, l, small...)
	publish(t, l, message(t, "fits again", big))

	if _, err := c.EnsureStream(ctx, site, Config{MaxBytes: 1 << 10}); !errors.Is(err, ErrConfig) {
		t.Errorf("limit below what is used: %v", err)
	}
	if _, err := c.EnsureStream(ctx, site, Config{MaxBytes: 4 << 20}); err != nil {
		t.Fatal(err)
	}
	publish(t, l, messages(t, 40, big)...)
	_ = s
}

func TestPublishServerFull(t *testing.T) {
	_, c := newSite(t, func(o *server.Options) { o.JetStreamMaxStore = 300 << 10 })
	l := acquire(t, c, "a")
	for round := range 3 {
		full := 0
		for _, err := range l.Publish(t.Context(), messages(t, plainMax, strings.Repeat("x", 30<<10))) {
			if errors.Is(err, ErrFull) {
				full++
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if full == 0 {
			t.Errorf("round %d: the server's limit was not met", round)
		}
	}
}

func TestPublishWithSmallMaxPayload(t *testing.T) {
	_, c := newSite(t, func(o *server.Options) { o.MaxPayload = 1_000_000 })
	l := acquire(t, c, "a")
	inline := message(t, "inline", string(make([]byte, events.MaxInlineBytes+1024)))
	inline.Header = strings.Repeat("h", events.MaxHeaderBytes)
	publish(t, l, inline)
	errs := l.Publish(t.Context(), []Message{message(t, "large", string(make([]byte, 1_000_000)))})
	want(t, errs[0], ErrTooLarge)
	if n := len(snapshotOf(t, c)); n != 1 {
		t.Errorf("%d stored", n)
	}
}

// A server takes less than the one before it: what fits goes on, as before.
func TestPublishWithLesserMaxPayload(t *testing.T) {
	limit := int32(server.MAX_PAYLOAD_SIZE)
	s, c := newSite(t, func(o *server.Options) { o.MaxPayload = limit })
	l := acquire(t, c, "a")
	b := openBucket(t, l, Config{})
	s.restart(func() { limit = 100_000 }, c)
	publish(t, l, message(t, "small", "x"))
	errs := l.Publish(t.Context(), []Message{message(t, "large", string(make([]byte, 100_000)))})
	want(t, errs[0], ErrTooLarge)
	data := make([]byte, 1<<20)
	if err := b.Put(t.Context(), events.Sum(data), data, false); err != nil {
		t.Error(err)
	}
}

func TestPublishNotConnected(t *testing.T) {
	s, c := newSite(t, nil)
	l := acquire(t, c, "a")
	s.stop()
	eventually(t, "the loss is noticed", func() bool { return !c.Connected() })
	for _, n := range []int{1, 50} {
		for _, err := range l.Publish(t.Context(), messages(t, n, "x")) {
			if !errors.Is(err, ErrDisconnected) && !errors.Is(err, ErrNotSent) {
				t.Fatal(err)
			}
		}
	}
}

// What nil means must be true, whenever the server goes away.
func TestPublishThroughRestarts(t *testing.T) {
	s, c := newSite(t, nil)
	l := acquire(t, c, "a")
	acked := map[string]string{} // subject to the header that was acknowledged last
	maybe := map[string][]string{}
	restarts, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for range restarts {
			time.Sleep(rand.N(30 * time.Millisecond))
			s.stop()
			s.start()
		}
	}()
	unknown := 0
	for round := range 120 {
		if round%25 == 10 {
			restarts <- struct{}{}
		}
		n := []int{1, 6, 40, 300}[round%4]
		msgs := messages(t, n, "x")
		for i := range msgs {
			msgs[i].Header = fmt.Sprintf(`{"round":%d}`, round)
		}
		for i, err := range l.Publish(t.Context(), msgs) {
			subject := msgs[i].Subject
			switch {
			case err == nil:
				acked[subject], maybe[subject] = msgs[i].Header, nil
			case errors.Is(err, ErrUnknown):
				unknown++
				maybe[subject] = append(maybe[subject], msgs[i].Header)
			case errors.Is(err, ErrNotSent), errors.Is(err, ErrDisconnected), errors.Is(err, ErrNoStream),
				errors.Is(err, ErrUnavailable), errors.Is(err, ErrTooMany):
			default:
				t.Fatal(err)
			}
		}
		if err := c.waitUp(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	close(restarts)
	<-done
	eventually(t, "it comes back", c.Connected)
	t.Logf("%d outcomes unknown, %d reconnects", unknown, c.Reconnects())
	var seen map[string]string
	eventually(t, "a snapshot", func() bool {
		seen = map[string]string{}
		_, err := c.Snapshot(t.Context(), site, func(_ uint64, subject, header string) error {
			seen[subject] = header
			return nil
		})
		return err == nil
	})
	for subject, header := range acked {
		ok := seen[subject] == header
		for _, m := range maybe[subject] {
			ok = ok || seen[subject] == m
		}
		if !ok {
			t.Errorf("%s is %q, acknowledged was %q, after it perhaps %q", subject, seen[subject], header, maybe[subject])
		}
	}
}

// A publish of unknown outcome cannot land on top of the next one.
func TestPublishAfterUnknownIsFenced(t *testing.T) {
	_, c := newSite(t, nil)
	l := acquire(t, c, "a")
	publish(t, l, message(t, "f", "1"))
	late := &publication{l: l, msgs: []Message{message(t, "f", "late")}}
	onItsWay := late.encode(0, true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	errs := l.Publish(ctx, []Message{message(t, "g", "1")})
	want(t, errs[0], ErrUnknown)
	publish(t, l, message(t, "f", "2"))
	_, err := c.js.PublishMsg(t.Context(), onItsWay)
	if apiCode(err) != codeWrongLast {
		t.Fatalf("a publish from before the unknown outcome: %v", err)
	}
	publish(t, l, message(t, "f", "3"), message(t, "g", "2"))
}

func TestPublishFindsThatTheStreamWentBack(t *testing.T) {
	t.Run("wiped and made anew", func(t *testing.T) {
		s, c := newSite(t, nil)
		l := acquire(t, c, "a")
		publish(t, l, messages(t, 30, "x")...)
		s.restart(s.wipe, c)
		errs := l.Publish(t.Context(), messages(t, 1, "x"))
		want(t, errs[0], ErrNoStream)
		if _, err := c.EnsureStream(t.Context(), site, Config{}); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{1, 20} {
			errs := l.Publish(t.Context(), messages(t, n, "x"))
			want(t, errs[n-1], ErrWentBack)
		}
	})
	t.Run("lost its tail", func(t *testing.T) {
		_, c := newSite(t, nil)
		l := acquire(t, c, "a")
		publish(t, l, messages(t, 3, "x")...)
		l.mu.Lock()
		l.lastSeq += 100 // as if more had been acknowledged
		l.mu.Unlock()
		errs := l.Publish(t.Context(), messages(t, 1, "x"))
		want(t, errs[0], ErrWentBack)
		errs = l.Publish(t.Context(), messages(t, 20, "x"))
		want(t, errs[19], ErrWentBack)
	})
}

func TestPublishWithoutTheRight(t *testing.T) {
	s := startServer(t, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "p", Password: "p"},
			{Username: "b", Password: "b", Permissions: &server.Permissions{
				Publish:   &server.SubjectPermission{Allow: []string{"$JS.API.>", "treecast.web.lease", "treecast.web.holder"}},
				Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX_b.>", "treecast.web.holder"}},
			}},
		}
	})
	c := s.connectAs("publisher", "p")
	if _, err := c.EnsureStream(t.Context(), site, Config{}); err != nil {
		t.Fatal(err)
	}
	l := acquire(t, s.connectAs("b", "b"), "b")
	start := time.Now()
	for _, n := range []int{1, 20} {
		errs := l.Publish(t.Context(), messages(t, n, "x"))
		want(t, errs[0], ErrDenied)
	}
	if took := time.Since(start); took > ackTimeout {
		t.Errorf("found out after %s only", took)
	}
}

func (s *testServer) connectAs(name, user string) *Conn {
	s.t.Helper()
	file := writeFile(s.t, user+"\n")
	c, err := Connect(s.t.Context(), ConnectOptions{InProcess: s, Name: name, User: user, PasswordFile: file, Log: quiet()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

// However many messages nobody took, the server is asked once why: where it has
// no leader each question may take seconds.
func TestNobodyIsAskedForOnce(t *testing.T) {
	s, c := newSite(t, nil)
	l := acquire(t, c, "a")
	bucket, err := l.OpenBucket(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{streamName(site), bucketStream(site)} {
		if err := c.js.DeleteStream(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	b := s.connect("b").nc
	asked, err := b.SubscribeSync(apiPrefix + "STREAM.INFO.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := asked.SetPendingLimits(-1, -1); err != nil {
		t.Fatal(err)
	}
	if err := b.Flush(); err != nil { // the server has the subscription
		t.Fatal(err)
	}
	l.full = true // else they are a batch
	for _, err := range l.Publish(t.Context(), messages(t, 40, "x")) {
		want(t, err, ErrNoStream)
	}
	_, err = bucket.upload(t.Context(), "name", "nuid", make([]byte, 8*partBytes))
	want(t, err, ErrNoStream)
	if _, err := c.StreamInfo(t.Context(), "end"); !errors.Is(err, ErrNoStream) {
		t.Fatal(err)
	}
	n := 0
	for {
		m, err := asked.NextMsgWithContext(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if m.Subject == apiPrefix+"STREAM.INFO.end" {
			break
		}
		n++
	}
	if n != 2 {
		t.Errorf("asked %d times", n)
	}
}
