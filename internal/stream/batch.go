package stream

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// batch publishes messages as one atomic batch. Where the server refuses the
// batch for what may be one message's fault, they go one by one, so that the
// others arrive and each has its own error. (So does an overwrite in a stream
// that is nearly full: for a batch the server does not count what it frees.)
func (p *publication) batch(ctx context.Context, send []int) {
	ready := make([]int, 0, len(send))
	bytes := int64(0)
	for _, i := range send {
		if !p.held(i) {
			ready = append(ready, i)
			bytes += p.msgs[i].size()
		}
	}
	if len(ready) < 2 {
		p.plain(ctx, ready)
		return
	}
	wait := ackTimeout + time.Duration(bytes/slowestBytes)*time.Second
	gctx, done := p.l.c.guard(ctx, wait, under("treecast."+string(p.l.site)+"."))
	defer done()
	msgs := make([]*nats.Msg, len(ready))
	for n, i := range ready {
		msgs[n] = p.encode(i, n == 0)
	}
	ack, err := jetstreamext.PublishMsgBatch(gctx, p.l.js, msgs, jetstreamext.BatchFlowControl{})
	switch {
	case err == nil:
		if err := p.l.advance(ack.Sequence); err != nil {
			p.stop = err
			p.failAll(ready, err)
		}
	case apiCode(err) == codeWrongLast:
		p.failAll(ready, errRefused)
		p.explainRefused(ctx, ready)
	case apiCode(err) != 0:
		if t := translate(gctx, err); errors.Is(t, ErrTooMany) {
			p.stop = t
			p.failAll(ready, t)
			return
		}
		p.l.c.log.Debug("batch refused, publishing one by one", "messages", len(ready), "err", err)
		p.plain(ctx, ready)
	case notCommitted(err):
		p.stop = translate(gctx, err)
		p.failAll(ready, p.stop)
	default:
		p.failAll(ready, p.outcome(gctx, err))
	}
}

// notCommitted reports whether err says that the last message of the batch was
// not sent: then no message of it is ever stored.
func notCommitted(err error) bool {
	return errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, nats.ErrMaxPayload) ||
		errors.Is(err, nats.ErrConnectionReconnecting)
}

func (p *publication) failAll(send []int, err error) {
	for _, i := range send {
		p.fail(i, err)
	}
}
