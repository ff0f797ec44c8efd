package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sync/errgroup"
)

// bothWays runs a test with a user that may create consumers and one that may
// not.
func bothWays(t *testing.T, test func(t *testing.T, writer, reader *Conn, s *testServer)) {
	for _, user := range []string{"p", "b"} {
		t.Run(map[string]string{"p": "by consumer", "b": "by direct get"}[user], func(t *testing.T) {
			s := startServer(t, func(o *server.Options) {
				o.Users = []*server.User{
					{Username: "p", Password: "p"},
					{Username: "b", Password: "b", Permissions: &server.Permissions{
						Publish: &server.SubjectPermission{
							Allow: []string{"$JS.API.STREAM.INFO.web", "$JS.API.STREAM.MSG.GET.web", "$JS.API.DIRECT.GET.web"}},
						Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX_b.>"}},
					}},
				}
			})
			writer := s.connectAs("publisher", "p")
			if _, err := writer.EnsureStream(t.Context(), site, Config{}); err != nil {
				t.Fatal(err)
			}
			test(t, writer, s.connectAs("b", user), s)
		})
	}
}

func TestSnapshot(t *testing.T) {
	bothWays(t, func(t *testing.T, writer, reader *Conn, _ *testServer) {
		if seen := snapshotOf(t, reader); len(seen) != 0 {
			t.Errorf("an empty stream has %v", seen)
		}
		l := acquire(t, writer, "a")
		if seen := snapshotOf(t, reader); len(seen) != 0 {
			t.Errorf("a stream with a lease has %v", seen)
		}
		const n = 6000
		publish(t, l, messages(t, n, "some bytes")...)
		publish(t, l, messages(t, n/2, "other bytes")...)
		seen := map[string]string{}
		info, err := reader.Snapshot(t.Context(), site, func(_ uint64, subject, header string) error {
			seen[subject] = header
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(seen) != n || info.LastSeq != l.LastSeq() || info.Msgs != n+1 || info.Created.IsZero() {
			t.Errorf("%d paths, %+v", len(seen), info)
		}
		for _, m := range messages(t, n, "") {
			if seen[m.Subject] != m.Header {
				t.Fatalf("%s has %q", m.Subject, seen[m.Subject])
			}
		}
		stop := errors.New("enough")
		calls := 0
		_, err = reader.Snapshot(t.Context(), site, func(uint64, string, string) error { calls++; return stop })
		want(t, err, stop)
		if calls != 1 {
			t.Errorf("called %d times after an error", calls)
		}
		_, err = reader.Snapshot(t.Context(), "nosite", func(uint64, string, string) error { return nil })
		if !errors.Is(err, ErrNoStream) && !errors.Is(err, ErrDenied) {
			t.Error(err)
		}
	})
}

// Every path that lives is seen while all of them are rewritten. (With the
// consumer's own count as the end, one run in ten missed a batch.)
func TestSnapshotWhileWritesGoOn(t *testing.T) {
	bothWays(t, func(t *testing.T, writer, reader *Conn, _ *testServer) {
		l := acquire(t, writer, "a")
		const n = 3000
		publish(t, l, messages(t, n, "0")...)
		ctx, cancel := context.WithCancel(t.Context())
		var g errgroup.Group
		g.Go(func() error {
			for round := 1; ctx.Err() == nil; round++ {
				msgs := messages(t, n, fmt.Sprint(round))
				for chunk := range slices.Chunk(msgs, 1+round%40*25) {
					if err := errors.Join(l.Publish(t.Context(), chunk)...); err != nil {
						return err
					}
				}
			}
			return nil
		})
		for range 4 {
			if seen := snapshotOf(t, reader); len(seen) != n {
				t.Errorf("%d paths seen of %d that live", len(seen), n)
			}
		}
		cancel()
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestFetch(t *testing.T) {
	bothWays(t, func(t *testing.T, writer, reader *Conn, _ *testServer) {
		l := acquire(t, writer, "a")
		publish(t, l, messages(t, 3000, "1")...)                               // 2 to 3001
		publish(t, l, messages(t, 100, "2")...)                                // 2 to 101 are superseded
		publish(t, l, message(t, "large", strings.Repeat("x", 900<<10)))       // 3102
		publish(t, l, messages(t, 20, strings.Repeat("x", 800<<10))[10:20]...) // 3103 to 3112
		var ask []Wanted
		var expect []uint64
		for seq := uint64(1); seq <= 3200; seq++ {
			if seq%3 == 0 && seq < 1000 || seq%50 == 0 || seq > 2900 {
				ask = append(ask, Wanted{seq, 900 << 10})
				if seq > 101 && seq <= 3112 && !(seq >= 3012 && seq <= 3021) {
					expect = append(expect, seq)
				}
			}
		}
		ask = append(ask, ask[5], ask[0])
		slices.Reverse(ask)
		var got []uint64
		if err := reader.Fetch(t.Context(), site, ask, func(d Delivery) error {
			if d.Subject == "" || d.Header == "" || len(d.Payload) == 0 || d.Time.IsZero() {
				t.Errorf("fetched %+v", d)
			}
			if err := d.Ack(); err != nil {
				t.Error(err)
			}
			got = append(got, d.Seq)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, expect) {
			t.Errorf("fetched %v\nwant %v", got, expect)
		}
		stop := errors.New("enough")
		want(t, reader.Fetch(t.Context(), site, ask, func(Delivery) error { return stop }), stop)
	})
}

// TestFetchReadsLittleAhead: however small what came before was.
func TestFetchReadsLittleAhead(t *testing.T) {
	s, writer := newSite(t, nil)
	l := acquire(t, writer, "a")
	publish(t, l, messages(t, 1000, "1")...) // 2 to 1001
	large := strings.Repeat("x", 500<<10)
	publish(t, l, messages(t, 1040, large)[1000:]...) // 1002 to 1041
	reader := s.connect("b")
	var ask []Wanted
	for seq := uint64(2); seq <= 1041; seq++ {
		w := Wanted{seq, 1}
		if seq > 1001 {
			w.Bytes = 500 << 10
		}
		ask = append(ask, w)
	}
	before, passed := reader.nc.Stats().InBytes, uint64(0)
	most := uint64(0)
	if err := reader.Fetch(t.Context(), site, ask, func(d Delivery) error {
		most = max(most, reader.nc.Stats().InBytes-before-passed)
		passed += uint64(len(d.Payload))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	// Headers are not counted in what was passed.
	if limit := uint64(directBytes + 500<<10 + 1041*headerBytes); most > limit {
		t.Errorf("%d bytes were read ahead, at most %d should be", most, limit)
	}
}

// BenchmarkSnapshot reads a stream whose sequence has gaps, with a consumer and,
// as where no right allows one, without.
func BenchmarkSnapshot(b *testing.B) {
	for _, paths := range []int{10_000, 200_000} {
		s, c := newSite(b, func(o *server.Options) {
			o.DontListen, o.Host, o.Port = false, "127.0.0.1", server.RANDOM_PORT
			o.JetStreamMaxStore = 8 << 30
		})
		l := acquire(b, c, "a")
		all := messages(b, paths, strings.Repeat("x", 2048))
		publish(b, l, all...)
		publish(b, l, all[paths/2:paths/2+10]...)
		for _, direct := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d/direct=%v", paths, direct), func(b *testing.B) {
				node := dial(b, s, "b")
				if direct {
					node.noSnapshot.Store(true)
				}
				for b.Loop() {
					seen := 0
					if _, err := node.Snapshot(b.Context(), site, func(uint64, string, string) error { seen++; return nil }); err != nil || seen != paths {
						b.Fatal(seen, err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*paths), "ns/entry")
			})
		}
	}
}
