package stream

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"treecast/internal/events"
)

// A line is the way to a server. Each connection over it is stuck, both ways,
// after as many bytes as no small message has, until the line is freed.
type line struct {
	*testServer
	stuck   chan struct{} // has one if a connection is, or was
	free    chan struct{}
	release func()
}

const lineBytes = 128 << 10

func newLine(s *testServer) *line {
	free := make(chan struct{})
	return &line{testServer: s, stuck: make(chan struct{}, 1), free: free, release: sync.OnceFunc(func() { close(free) })}
}

func (l *line) connect(name string) *Conn {
	l.t.Helper()
	c, err := Connect(l.t.Context(), ConnectOptions{InProcess: l, Name: name, Log: quiet()})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		l.release()
		c.Close()
	})
	return c
}

// InProcessConn is nats.InProcessConnProvider.
func (l *line) InProcessConn() (net.Conn, error) {
	c, err := l.testServer.InProcessConn()
	return &lineConn{Conn: c, line: l}, err
}

type lineConn struct {
	net.Conn
	line          *line
	read, written int // each by one goroutine at a time
}

func (c *lineConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.pass(&c.read, n)
	return n, err
}

func (c *lineConn) Write(p []byte) (int, error) {
	c.pass(&c.written, len(p))
	return c.Conn.Write(p)
}

func (c *lineConn) pass(sum *int, n int) {
	if *sum += n; *sum <= lineBytes {
		return
	}
	select {
	case c.line.stuck <- struct{}{}:
	default:
	}
	<-c.line.free
}

func TestSmallDoesNotWaitForLarge(t *testing.T) {
	s, _ := newSite(t, func(o *server.Options) { o.WriteDeadline = time.Hour })
	up, down := newLine(s), newLine(s)
	publisher, node := up.connect("publisher"), down.connect("b")
	l := acquire(t, publisher, "a")
	b := openBucket(t, l, Config{})
	r := run(t, openConsumer(t, node, "b", NodeConfig{}), ack(t))
	data := body(1, 4*lineBytes)
	digest := events.Sum(data)
	small := func(via *line, n int) {
		t.Helper()
		defer time.AfterFunc(20*time.Second, via.release).Stop() // so that what waits for it fails
		publish(t, l, messages(t, n, "small")...)
		eventually(t, "small messages", func() bool {
			got := r.deliveries()
			return len(got) > 0 && got[len(got)-1].Seq >= l.LastSeq()
		})
		select {
		case <-via.free:
			t.Error("small messages have waited for a large body")
		default:
		}
	}

	stored := make(chan error, 1)
	go func() { stored <- b.Put(t.Context(), digest, data, false) }()
	<-up.stuck
	small(up, 20)
	up.release()
	want(t, <-stored, nil)

	got := make(chan error, 1)
	go func() {
		got <- node.Bodies(site).Get(t.Context(), []events.Digest{digest}, func(int, []byte, bool) error { return nil })
	}()
	<-down.stuck
	small(down, 30)
	down.release()
	want(t, <-got, nil)
}

func TestBulkIsClosedToo(t *testing.T) {
	s, l, b := newBucketSite(t, Config{})
	put(t, b, body(1, 1000))
	if n := s.srv.NumClients(); n != 2 {
		t.Errorf("%d connections", n)
	}
	l.c.Close()
	eventually(t, "no connections", func() bool { return s.srv.NumClients() == 0 })
	want(t, b.Put(t.Context(), events.Sum(nil), body(2, 1000), false), ErrDisconnected)
	_, err := l.c.inBulk(t.Context())
	want(t, err, ErrDisconnected)
}
