package stream

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sync/errgroup"

	"treecast/internal/events"
)

// benchmarkBucket starts a broker that listens and returns 256 MiB in objects of
// the usual size, their names, and a bucket for them.
func benchmarkBucket(b *testing.B) (*testServer, *Bucket, [][]byte, []events.Digest) {
	b.Helper()
	s, _ := newSite(b, func(o *server.Options) {
		o.DontListen, o.Host, o.Port = false, "127.0.0.1", server.RANDOM_PORT
		o.JetStreamMaxStore = 8 << 30
	})
	const n, size = 448, 585 << 10
	bodies, digests := make([][]byte, n), make([]events.Digest, n)
	for i := range bodies {
		bodies[i] = body(i, size)
		digests[i] = events.Sum(bodies[i])
	}
	b.SetBytes(n * size)
	return s, openBucket(b, acquire(b, dial(b, s, "publisher"), "a"), Config{}), bodies, digests
}

// dial connects over TCP.
func dial(tb testing.TB, s *testServer, name string) *Conn {
	tb.Helper()
	c, err := Connect(tb.Context(), ConnectOptions{URL: s.srv.ClientURL(), Name: name, Log: quiet()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

func putAll(tb testing.TB, bucket *Bucket, bodies [][]byte, digests []events.Digest) {
	tb.Helper()
	var g errgroup.Group
	g.SetLimit(4)
	for i, data := range bodies {
		g.Go(func() error { return bucket.Put(tb.Context(), digests[i], data, false) })
	}
	if err := g.Wait(); err != nil {
		tb.Fatal(err)
	}
}

func BenchmarkPut(b *testing.B) {
	_, bucket, bodies, digests := benchmarkBucket(b)
	for b.Loop() {
		putAll(b, bucket, bodies, digests) // but for the first, each replaces one
	}
}

func BenchmarkPutNew(b *testing.B) {
	_, bucket, bodies, digests := benchmarkBucket(b)
	for b.Loop() {
		putAll(b, bucket, bodies, digests)
		b.StopTimer()
		for i := range digests { // as if they were others
			digests[i][0]++
		}
		b.StartTimer()
	}
}

func BenchmarkLookup(b *testing.B) {
	_, bucket, bodies, digests := benchmarkBucket(b)
	putAll(b, bucket, bodies, digests)
	for b.Loop() {
		if found, err := bucket.Lookup(b.Context(), digests); err != nil || len(found) != len(digests) {
			b.Fatal(len(found), err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	for name, nodes := range map[string]int{"1 node": 1, "3 nodes": 3} {
		b.Run(name, func(b *testing.B) {
			s, bucket, bodies, digests := benchmarkBucket(b)
			putAll(b, bucket, bodies, digests)
			conns := make([]*Conn, nodes)
			for i := range conns {
				conns[i] = dial(b, s, "node")
			}
			for b.Loop() {
				var g errgroup.Group
				var got atomic.Int64
				for _, c := range conns {
					g.Go(func() error {
						return c.Bodies(site).Get(b.Context(), digests, func(_ int, data []byte, _ bool) error {
							got.Add(int64(len(data)))
							return nil
						})
					})
				}
				if err := g.Wait(); err != nil || got.Load() != int64(nodes*len(digests)*len(bodies[0])) {
					b.Fatal(got.Load(), err)
				}
			}
		})
	}
}

// BenchmarkFetch reads single messages of a stream whose sequence has gaps, as a
// node does that takes a large file, or compared its tree: what one costs must
// not grow with the stream.
func BenchmarkFetch(b *testing.B) {
	for _, paths := range []int{10_000, 200_000} {
		s, c := newSite(b, func(o *server.Options) {
			o.DontListen, o.Host, o.Port = false, "127.0.0.1", server.RANDOM_PORT
			o.JetStreamMaxStore = 8 << 30
		})
		l := acquire(b, c, "a")
		all := messages(b, paths, "0123456789")
		publish(b, l, all...)
		publish(b, l, all[paths/2:paths/2+10]...)
		node := dial(b, s, "b")
		for _, n := range []int{1, 1000} {
			b.Run(fmt.Sprintf("%d of %d", n, paths), func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					wanted := make([]Wanted, n)
					for j := range wanted {
						wanted[j] = Wanted{uint64((i*7919+j*(paths/n/2-1))%(paths/2-100) + 2), 10}
					}
					got := 0
					err := node.Fetch(b.Context(), site, wanted, func(Delivery) error { got++; return nil })
					if err != nil || got == 0 {
						b.Fatal(got, err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/message")
			})
		}
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, sync := range []bool{false, true} {
		s := &testServer{dir: b.TempDir(), adjust: func(o *server.Options) { o.SyncAlways = sync }}
		o := &server.Options{DontListen: true, JetStream: true, StoreDir: s.dir, NoSigs: true, NoLog: true, SyncAlways: sync}
		srv, err := server.NewServer(o)
		if err != nil {
			b.Fatal(err)
		}
		go srv.Start()
		if !srv.ReadyForConnections(10 * time.Second) {
			b.Fatal("not ready")
		}
		s.srv = srv
		c, err := Connect(b.Context(), ConnectOptions{InProcess: s, Log: quiet()})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.EnsureStream(b.Context(), site, Config{}); err != nil {
			b.Fatal(err)
		}
		l, err := c.Acquire(b.Context(), site, Holder{}, false)
		if err != nil {
			b.Fatal(err)
		}
		for _, n := range []int{1, 4, 8, 12, 16, 24, 32, 64, 1000} {
			msgs := make([]Message, n)
			send := make([]int, n)
			for i := range msgs {
				msgs[i] = Message{Subject: fmt.Sprintf("treecast.web.file.d.f%d", i), Header: strings.Repeat("h", 300), Payload: make([]byte, 2048)}
				send[i] = i
			}
			for _, way := range []string{"plain", "batch"} {
				if n == 1 && way == "batch" {
					continue
				}
				b.Run(fmt.Sprintf("sync=%v/%s/%d", sync, way, n), func(b *testing.B) {
					for b.Loop() {
						p := &publication{l: l, msgs: msgs, errs: make([]error, n)}
						if way == "plain" {
							p.plain(b.Context(), send)
						} else {
							p.batch(b.Context(), send)
						}
						if err := errors.Join(p.errs...); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
		c.Close()
		srv.Shutdown()
		srv.WaitForShutdown()
	}
}
