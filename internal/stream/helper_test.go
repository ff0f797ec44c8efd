package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"

	"treecast/internal/events"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

const site = events.Site("web")

// A testServer is a nats-server that can go away and come back, with its
// store or without. Its connections are pipes, so that no port is needed.
type testServer struct {
	t      testing.TB
	dir    string
	adjust func(*server.Options)

	mu  sync.Mutex
	srv *server.Server
}

func startServer(t testing.TB, adjust func(*server.Options)) *testServer {
	t.Helper()
	s := &testServer{t: t, dir: t.TempDir(), adjust: adjust}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *testServer) start() {
	s.t.Helper()
	o := &server.Options{DontListen: true, JetStream: true, StoreDir: s.dir, NoSigs: true, NoLog: true,
		JetStreamMaxStore: 1 << 30, JetStreamMaxMemory: 64 << 20}
	if s.adjust != nil {
		s.adjust(o)
	}
	srv, err := server.NewServer(o)
	if err != nil {
		s.t.Fatal(err)
	}
	go srv.Start()
	if !srv.ReadyForConnections(20 * time.Second) {
		s.t.Fatal("server is not ready")
	}
	s.mu.Lock()
	s.srv = srv
	s.mu.Unlock()
}

func (s *testServer) stop() {
	s.mu.Lock()
	srv := s.srv
	s.srv = nil
	s.mu.Unlock()
	if srv != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
	}
}

// restart stops the server, does something to it, starts it, and waits until
// its clients have seen all of that.
func (s *testServer) restart(between func(), clients ...*Conn) {
	s.t.Helper()
	before := make([]uint64, len(clients))
	for i, c := range clients {
		before[i] = c.Reconnects()
	}
	s.stop()
	if between != nil {
		between()
	}
	s.start()
	for i, c := range clients {
		eventually(s.t, "reconnect", func() bool { return c.Reconnects() > before[i] })
	}
}

func (s *testServer) wipe() {
	s.t.Helper()
	if err := os.RemoveAll(filepath.Join(s.dir, "jetstream")); err != nil {
		s.t.Fatal(err)
	}
}

// InProcessConn is nats.InProcessConnProvider.
func (s *testServer) InProcessConn() (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv == nil {
		return nil, errors.New("no server")
	}
	return s.srv.InProcessConn()
}

func (s *testServer) connect(name string) *Conn {
	s.t.Helper()
	c, err := Connect(s.t.Context(), ConnectOptions{InProcess: s, Name: name, Log: quiet()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

// site starts a server with a stream on it.
func newSite(t testing.TB, adjust func(*server.Options)) (*testServer, *Conn) {
	t.Helper()
	s := startServer(t, adjust)
	c := s.connect("publisher")
	if _, err := c.EnsureStream(t.Context(), site, Config{MaxBytes: -1}); err != nil {
		t.Fatal(err)
	}
	return s, c
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// A logBuffer is a log that a test reads while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func acquire(t testing.TB, c *Conn, host string) *Lease {
	t.Helper()
	l, err := c.Acquire(t.Context(), site, Holder{Host: host, PID: 1}, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Release(context.Background()) })
	return l
}

func path(t testing.TB, s string) events.Path {
	t.Helper()
	p, err := events.ParsePath(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func message(t testing.TB, name, body string) Message {
	t.Helper()
	p := path(t, name)
	return Message{Path: p, Subject: site.Subject(p), Header: `{"path":"` + name + `"}`, Payload: []byte(body)}
}

// messages returns n of them on different paths.
func messages(t testing.TB, n int, body string) []Message {
	t.Helper()
	msgs := make([]Message, n)
	for i := range msgs {
		msgs[i] = message(t, fmt.Sprintf("d%d/f%d", i%7, i), body)
	}
	return msgs
}

// publish wants everything stored.
func publish(t testing.TB, l *Lease, msgs ...Message) {
	t.Helper()
	for i, err := range l.Publish(t.Context(), msgs) {
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in 20 s: %s", what)
		}
	}
}

func want(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("error is %v, want %v", err, target)
	}
}

// snapshotOf returns the header of each subject, the newest if there are two.
func snapshotOf(t *testing.T, c *Conn) map[string]string {
	t.Helper()
	seen := map[string]string{}
	last := uint64(0)
	if _, err := c.Snapshot(t.Context(), site, func(seq uint64, subject, header string) error {
		if seq <= last {
			t.Errorf("sequence %d after %d", seq, last)
		}
		last = seq
		seen[subject] = header
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return seen
}

func writeFile(t testing.TB, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
