package treecast_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A probe publishes to a stream of its own all the time and remembers what the
// broker acknowledged.
type probe struct {
	conn *nats.Conn
	js   jetstream.JetStream

	mu    sync.Mutex // held by a publish
	next  int
	acked map[uint64]string // bodies by sequence
	total int
}

const probeStream = "probe"

func newProbe(ctx context.Context, url string) (*probe, error) {
	conn, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectBufSize(-1))
	if err != nil {
		return nil, err
	}
	p := &probe{conn: conn}
	if p.js, err = jetstream.New(conn); err == nil {
		err = p.begin(ctx)
	}
	if err != nil {
		conn.Close()
	}
	return p, err
}

// begin forgets what was, and begins a new stream.
func (p *probe) begin(ctx context.Context) error {
	p.connected(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acked = make(map[uint64]string)
	if err := p.js.DeleteStream(ctx, probeStream); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return err
	}
	_, err := p.js.CreateStream(ctx, jetstream.StreamConfig{Name: probeStream, Subjects: []string{"probe"}, MaxMsgs: 1000})
	return err
}

// run publishes until stop is closed.
func (p *probe) run(ctx context.Context, stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		case <-time.After(5 * time.Millisecond):
		}
		p.mu.Lock()
		p.next++
		body := strconv.Itoa(p.next)
		pctx, cancel := context.WithTimeout(ctx, time.Second)
		ack, err := p.js.Publish(pctx, probeStream, []byte(body), jetstream.WithRetryAttempts(0))
		cancel()
		if err == nil {
			p.acked[ack.Sequence] = body
			p.total++
		}
		p.mu.Unlock()
	}
}

// connected waits until there is a connection, or ctx ends.
func (p *probe) connected(ctx context.Context) {
	for !p.conn.IsConnected() && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
}

// check returns an error if something that was acknowledged is gone.
func (p *probe) check(ctx context.Context) error {
	p.connected(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	s, err := p.js.Stream(ctx, probeStream)
	if err != nil {
		return fmt.Errorf("the probe's stream: %w", err)
	}
	info, err := s.Info(ctx)
	if err != nil {
		return err
	}
	for seq, body := range p.acked {
		if seq < info.State.FirstSeq {
			delete(p.acked, seq)
			continue
		}
		msg, err := s.GetMsg(ctx, seq)
		if err != nil || string(msg.Data) != body {
			return fmt.Errorf("the broker acknowledged %q as %d, and has lost it: %w (it has %d to %d)", body, seq, err, info.State.FirstSeq, info.State.LastSeq)
		}
	}
	return nil
}
