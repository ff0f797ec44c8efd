package stream

import (
	"context"
	"log/slog"
)

// A bulk is the second connection of a Conn, for the data of large bodies. Over
// one connection a page would wait behind all of it that is on its way: several
// MiB, a second on a slow line.
//
// It is opened when it is first needed and kept. Nothing may rely on the order of
// what goes over the one and over the other.
type bulk struct {
	options ConnectOptions
	turn    chan struct{} // who has put something in has what follows
	conn    *Conn         // nil: not opened
}

func newBulk(o ConnectOptions) *bulk {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	o.Log = o.Log.With("connection", "bulk")
	return &bulk{options: o, turn: make(chan struct{}, 1)}
}

// inBulk returns the connection for what is large, which keeps the pace of c. The
// error is [ErrAuth] or [ErrServer] as of [Connect], [ErrDisconnected] without a
// connection c, [ErrUnavailable] if the broker does not take another one in time,
// or ctx's own.
func (c *Conn) inBulk(ctx context.Context) (*Conn, error) {
	ctx, done := c.guard(ctx, apiTimeout, exactly())
	defer done()
	b := c.bulk
	select {
	case b.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-b.turn }()
	if ctx.Err() != nil { // closed, it may be
		return nil, context.Cause(ctx)
	}
	if b.conn == nil {
		conn, err := Connect(ctx, b.options)
		if err != nil {
			return nil, translate(ctx, err)
		}
		conn.pace = c.pace
		b.conn = conn
	}
	return b.conn, translate(ctx, b.conn.waitUp(ctx))
}

// close is called when inBulk gives nothing any more.
func (b *bulk) close() {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	if b.conn != nil {
		b.conn.Close()
	}
}
