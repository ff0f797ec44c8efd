package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"treecast/internal/events"
)

const (
	plainMax      = 16  // up to so many go faster one by one: under sync_interval always 0.3 ms each, a batch 5 ms
	plainWindow   = 256 // plain publishes in flight
	batchMessages = 1000
	batchBytes    = 8 << 20
	headerSlack   = 512 // headers that fence and batch a message, its subject
	slowestBytes  = 1 << 20
)

// A Message is one entry on its way. Header is the entry as its header has
// it, Payload its body.
//
// A message with a TTL, a tombstone, is sent only after everything before it
// in the same call was stored, so that a rename never shows as a deletion.
type Message struct {
	Path            events.Path
	Subject, Header string
	Payload         []byte
	TTL             time.Duration // 0: none; rounded up to whole seconds
}

func (m *Message) size() int64 {
	return int64(len(m.Payload)+len(m.Header)+len(m.Subject)) + headerSlack
}

// Publish stores messages in their order, and returns one error for each: nil
// means stored and acknowledged. Few go one by one, many as atomic batches of
// at most 1,000 messages and 8 MiB, each of which is stored whole or not at
// all (but where the whole broker, not the stream, runs out of room in the
// midst of one: then it does not answer, and goes on when it is restarted with
// more room; meanwhile nothing else is stored). It returns when every message has its outcome; ctx only shortens the
// wait. Payloads are not kept or changed.
//
// Not stored: [ErrFenced] (a *[FencedError]), [ErrWentBack] and [ErrReleased]
// end the lease; [ErrFull], [ErrTooMany], [ErrNotSent], [ErrDisconnected],
// [ErrNoStream] and [ErrUnavailable] are worth another try; [ErrDenied] is
// not, nor [ErrTooLarge] with this broker. Stored or not: [ErrUnknown]; publishing the same again
// is harmless. A message acknowledged with a sequence that is not larger than
// the last one is stored, in a stream that lost its past: [ErrWentBack].
func (l *Lease) Publish(ctx context.Context, msgs []Message) []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &publication{l: l, msgs: msgs, errs: make([]error, len(msgs))}
	if p.stop = l.over(); p.stop == nil && l.unsure {
		p.stop = l.renew(ctx)
	}
	p.run(ctx)
	for i, err := range p.errs {
		if err != nil {
			p.errs[i] = failed("publish", l.site, err)
		}
	}
	return p.errs
}

// Settle returns nil once nothing that was published under the lease before the
// call is still on its way: what is not stored then, never will be. Errors are
// those of [Lease.Publish].
func (l *Lease) Settle(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.over()
	if err == nil && l.unsure {
		err = l.renew(ctx)
	}
	return failed("settle", l.site, err)
}

// renew moves the fence on after an unknown outcome: what is still on its way
// (in a socket of a former connection, say) expects the old lease and is
// refused, so that it cannot land on top of what follows.
func (l *Lease) renew(ctx context.Context) error {
	err := l.write(ctx, l.fence)
	if errors.Is(err, errRefused) {
		if err = l.refused(ctx); err == nil { // an earlier renewal had arrived
			err = l.write(ctx, l.fence)
		}
	}
	if err == nil {
		err = l.advance(l.fence)
	}
	if err != nil {
		if errors.Is(err, errRefused) {
			err = ErrTooMany
		}
		return err
	}
	l.unsure = false
	return nil
}

// refused finds out why the server refused our lease: nil means that the
// fence was behind a renewal of our own, and is right now.
func (l *Lease) refused(ctx context.Context) error {
	last, seq, err := l.c.lastLease(ctx, l.site)
	switch {
	case errors.Is(err, ErrDenied):
		err = &FencedError{}
	case err != nil:
		return fmt.Errorf("%w: it refused the lease, and to tell why: %w", ErrTooMany, err)
	case seq < l.fence:
		err = fmt.Errorf("%w: the lease's sequence was %d and is %d", ErrWentBack, l.fence, seq)
	case last.Instance != l.me.Instance:
		err = &FencedError{last}
	case seq == l.fence:
		return fmt.Errorf("%w: it compares with an older lease", ErrTooMany)
	default:
		l.fence = seq
		return nil
	}
	l.finish(err)
	return err
}

// advance notes an acknowledged sequence.
func (l *Lease) advance(seq uint64) error {
	if seq <= l.lastSeq {
		err := fmt.Errorf("%w: stored as %d after %d", ErrWentBack, seq, l.lastSeq)
		l.finish(err)
		return err
	}
	l.lastSeq = seq
	return nil
}

// A publication is one call of Publish.
type publication struct {
	l      *Lease
	msgs   []Message
	errs   []error
	failed bool  // a message was not stored, or may not be
	stop   error // nothing more is sent
	nobody error // why no server took a message, once that was asked
}

func (p *publication) fail(i int, err error) {
	p.errs[i] = err
	p.failed = true
}

func (p *publication) run(ctx context.Context) {
	send := make([]int, 0, len(p.msgs))
	limit := p.l.c.messageBytes(p.l.maxBytes)
	for i := range p.msgs {
		m := &p.msgs[i]
		switch size := m.size() - int64(len(m.Subject)); {
		case p.stop != nil:
			p.fail(i, p.stop)
		case size > limit:
			p.fail(i, fmt.Errorf("%w: %d bytes with its headers, the limit is %d", ErrTooLarge, size, limit))
		default:
			send = append(send, i)
		}
	}
	few := plainMax
	if p.l.serial {
		few = 1
	}
	full := p.l.full
	p.l.full = false
	if len(send) <= few || full {
		p.plain(ctx, send)
		return
	}
	for len(send) > 0 {
		n, bytes := 0, int64(0)
		for n < len(send) && n < batchMessages {
			bytes += p.msgs[send[n]].size()
			if n > 0 && bytes > batchBytes {
				break
			}
			n++
		}
		p.batch(ctx, send[:n])
		send = send[n:]
	}
}

// held marks i as not sent if it must not be sent any more.
func (p *publication) held(i int) bool {
	switch {
	case p.stop != nil && isLeaseOver(p.stop):
		p.fail(i, p.stop)
	case p.stop != nil:
		p.fail(i, fmt.Errorf("%w after: %s", ErrNotSent, p.stop.Error())) // its kind is not this message's
	case p.failed && p.msgs[i].TTL > 0:
		p.fail(i, fmt.Errorf("%w: an earlier message was not stored", ErrNotSent))
	default:
		return false
	}
	return true
}

func isLeaseOver(err error) bool {
	return errors.Is(err, ErrFenced) || errors.Is(err, ErrWentBack) || errors.Is(err, ErrReleased)
}

// encode returns message i with the headers that fence it, if asked for.
func (p *publication) encode(i int, fenced bool) *nats.Msg {
	m := &p.msgs[i]
	h := nats.Header{events.Header: {m.Header}}
	if fenced {
		h[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(p.l.fence, 10)}
		h[jetstream.ExpectedLastSubjSeqSubjHeader] = []string{p.l.site.LeaseSubject()}
	}
	if m.TTL > 0 {
		h[jetstream.MsgTTLHeader] = []string{(m.TTL + time.Second - 1).Truncate(time.Second).String()} // whole ones, at least one
	}
	return &nats.Msg{Subject: m.Subject, Header: h, Data: m.Payload}
}

// plain publishes one by one, several in flight. A message with a TTL waits
// for those before it that have none.
func (p *publication) plain(ctx context.Context, send []int) {
	window := plainWindow
	if p.l.serial {
		window = 1
	}
	for len(send) > 0 {
		n := 1
		for n < len(send) && n < window && (p.msgs[send[n]].TTL == 0 || p.msgs[send[n-1]].TTL > 0) {
			n++
		}
		p.flight(ctx, send[:n])
		send = send[n:]
	}
}

// flight sends messages at once and waits for all their acknowledgements.
func (p *publication) flight(ctx context.Context, send []int) {
	gctx, done := p.l.c.guard(ctx, 0, under("treecast."+string(p.l.site)+"."))
	defer done()
	type sent struct {
		i   int
		ack jetstream.PubAckFuture
	}
	flying := make([]sent, 0, len(send))
	for _, i := range send {
		if p.held(i) {
			continue
		}
		ack, err := p.l.js.PublishMsgAsync(p.encode(i, true), jetstream.WithRetryAttempts(0), jetstream.WithStallWait(ackTimeout))
		if err != nil {
			broken := brokenWire(err)
			err = translate(gctx, err)
			if broken { // some of it may have got through
				p.fail(i, fmt.Errorf("%w: %w", ErrUnknown, err))
			} else {
				p.fail(i, err)
			}
			if !errors.Is(err, ErrTooLarge) {
				p.stop = err
			}
			continue
		}
		flying = append(flying, sent{i, ack})
	}
	refused := false
	for _, s := range flying {
		select {
		case ack := <-s.ack.Ok():
			if err := p.l.advance(ack.Sequence); err != nil {
				p.stop = err
				p.fail(s.i, err)
			}
		case err := <-s.ack.Err():
			if apiCode(err) == codeWrongLast {
				refused = true
				p.fail(s.i, errRefused)
				continue
			}
			p.fail(s.i, p.outcome(gctx, err))
		case <-gctx.Done():
			p.fail(s.i, p.outcome(gctx, gctx.Err()))
		}
	}
	if refused {
		p.explainRefused(ctx, send)
	}
}

// explainRefused gives those that the server refused for the lease their
// proper error.
func (p *publication) explainRefused(ctx context.Context, send []int) {
	why := p.l.refused(ctx)
	if why == nil { // our own renewal was first: right the next time
		why = ErrTooMany
	}
	p.stop = why
	for _, i := range send {
		if errors.Is(p.errs[i], errRefused) {
			p.errs[i] = why
		}
	}
}

// outcome is what an error of a publish means for the message. After one that
// leaves it open, or that all others would meet too, nothing more is sent.
func (p *publication) outcome(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
		if p.nobody == nil { // those that were on their way with it need not ask again
			p.nobody = p.l.c.nobody(ctx, streamName(p.l.site))
		}
		err = p.nobody
		p.stop = err
	case apiCode(err) != 0:
		err = translate(ctx, err)
		p.l.full = p.l.full || errors.Is(err, ErrFull)
		if errors.Is(err, ErrTooMany) {
			p.stop = err
		}
	default:
		if t := translate(ctx, err); t != nil {
			err = t
		}
		err = fmt.Errorf("%w: %w", ErrUnknown, err)
		p.l.unsure = true
		p.stop = err
	}
	return err
}
