package stream

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"treecast/internal/events"
)

const (
	holderPatience = 2 * time.Second // how long a holder may take to answer
	// How long one may be away: it may be about to reconnect, or be new and
	// not known to all servers of a cluster.
	absentPatience = 500 * time.Millisecond
)

// A Holder says who holds a lease. Instance tells one run of a program from
// the next.
type Holder struct {
	Host     string    `json:"host"`
	PID      int       `json:"pid"`
	Instance string    `json:"instance"`
	Since    time.Time `json:"since"`
	Root     string    `json:"root,omitempty"` // which directory it publishes, in its own words
}

func (h Holder) String() string {
	return fmt.Sprintf("pid %d on %q since %s", h.PID, h.Host, h.Since.UTC().Format(time.RFC3339))
}

func randomToken() string { return rand.Text() }

// A Lease is the right to publish on a site. Its methods may be called from
// many goroutines at once; publishes happen one call after the other.
type Lease struct {
	c        *Conn
	js       jetstream.JetStream
	site     events.Site
	me       Holder
	epoch    uint64
	serial   bool  // the stream has replicas: a second conditional publish in flight is refused
	maxBytes int64 // of one message of the stream; 0: as the broker takes

	mu      sync.Mutex // held by a publish from end to end
	fence   uint64     // last sequence of the lease's subject that we expect
	lastSeq uint64     // highest that was acknowledged to us
	unsure  bool       // something may still be on its way under fence
	full    bool       // the last publish found no room

	endMu   sync.Mutex         // guards what follows, and me.Root
	end     error              // why the lease is over
	answers *nats.Subscription // nil: over, or not begun
}

// Acquire takes the lease of site. While another publisher holds it and
// answers, that is refused with a *[HeldError], unless takeover is true; one
// that does not answer in two seconds, or is not there for half a second, is
// taken over: from then on the server refuses what it publishes.
//
// An empty me.Instance is filled in, and a zero me.Since. The stream must
// exist. Errors are *[OpError] with [ErrHeld], [ErrNoStream], [ErrDenied],
// [ErrDisconnected], [ErrUnavailable] or ctx's own; the lease may have been
// written then, which harms no one but a former holder.
func (c *Conn) Acquire(ctx context.Context, site events.Site, me Holder, takeover bool) (*Lease, error) {
	if me.Instance == "" {
		me.Instance = randomToken()
	}
	if me.Since.IsZero() {
		me.Since = time.Now().UTC().Truncate(time.Second)
	}
	info, err := c.StreamInfo(ctx, site)
	if err != nil {
		return nil, failed("acquire lease", site, err)
	}
	l := &Lease{c: c, js: c.js, site: site, me: me, serial: info.Replicas > 1}
	if info.MaxMessageBytes > 0 {
		l.maxBytes = max(info.MaxMessageBytes, minMessageBytes) // what EnsureStream makes of it
	}
	if err := l.acquire(ctx, takeover); err != nil {
		return nil, failed("acquire lease", site, err)
	}
	l.epoch, l.lastSeq = l.fence, l.fence
	if err := l.beginAnswering(ctx); err != nil {
		l.finish(err)
		return nil, failed("answer as the lease's holder", site, err)
	}
	return l, nil
}

// messageBytes is how long a message may be on c, whose server may be another
// after each reconnect, where the stream takes limit bytes; 0: as c does.
func (c *Conn) messageBytes(limit int64) int64 {
	if limit > 0 {
		return min(limit, c.nc.MaxPayload())
	}
	return c.nc.MaxPayload()
}

func (l *Lease) beginAnswering(ctx context.Context) error {
	answers, err := l.c.nc.Subscribe(l.site.HolderSubject(), l.answer)
	if err != nil {
		return translate(ctx, err)
	}
	l.endMu.Lock()
	l.answers = answers
	l.endMu.Unlock()
	return l.c.flush(ctx, exactly(l.site.HolderSubject()))
}

// flush returns once the broker has seen what was sent, and had no objection
// to the subjects of concern.
func (c *Conn) flush(ctx context.Context, concern func(string) bool) error {
	ctx, done := c.guard(ctx, apiTimeout, concern)
	defer done()
	if err := c.nc.FlushWithContext(ctx); err != nil {
		return translate(ctx, err)
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	// The refusal came before the answer, but is told by another goroutine of
	// nats.go, perhaps later; the connection remembers the last one.
	if denied := parseDenied(c.nc.LastError()); denied != nil && concern(denied.Subject) {
		return denied
	}
	return nil
}

func (l *Lease) acquire(ctx context.Context, takeover bool) error {
	patience := absentPatience
	for {
		last, seq, err := l.c.lastLease(ctx, l.site)
		if err != nil {
			return err
		}
		if seq > 0 && !takeover && last.Instance != l.me.Instance {
			held, err := l.c.askHolder(ctx, l.site, last.Instance, patience)
			if err != nil {
				return err
			}
			if held != nil {
				return &HeldError{*held}
			}
		}
		err = l.write(ctx, seq)
		switch {
		case err == nil:
			if seq > 0 && last.Instance != l.me.Instance {
				l.c.log.Warn("lease taken over", "from", last.String(), "epoch", l.fence)
			}
			return nil
		case errors.Is(err, errRefused):
			// Somebody was faster, and may not answer yet.
			patience = holderPatience
		case errors.Is(err, ErrTooMany):
			if err := sleep(ctx, firstBackoff); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// errRefused reports a publish whose expectation of the lease was wrong.
var errRefused = errors.New("the lease is not as expected")

// write makes the lease ours, if its last sequence is expected.
func (l *Lease) write(ctx context.Context, expected uint64) error {
	subject := l.site.LeaseSubject()
	body, err := json.Marshal(l.holder())
	if err != nil {
		return err
	}
	ctx, done := l.c.guard(ctx, ackTimeout, exactly(subject))
	defer done()
	ack, err := l.js.PublishMsg(ctx, &nats.Msg{
		Subject: subject,
		Data:    body,
		Header:  nats.Header{jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(expected, 10)}},
	})
	if err != nil {
		if apiCode(err) == codeWrongLast {
			return errRefused
		}
		if errors.Is(err, jetstream.ErrNoStreamResponse) {
			return l.c.nobody(ctx, streamName(l.site))
		}
		return translate(ctx, err)
	}
	l.fence = ack.Sequence
	return nil
}

// lastLease returns who wrote the lease last, and its sequence: 0 for nobody.
func (c *Conn) lastLease(ctx context.Context, site events.Site) (Holder, uint64, error) {
	d, err := c.leaderGet(ctx, streamName(site), map[string]any{"last_by_subj": site.LeaseSubject()})
	if err != nil || d == nil {
		return Holder{}, 0, err
	}
	var h Holder
	if err := json.Unmarshal(d.Payload, &h); err != nil {
		c.logOnce("lease is not readable", err) // somebody else's; the sequence counts
	}
	return h, d.Seq, nil
}

// askHolder returns who answers as instance, nil if no one does. Where there
// is no one to ask it asks again until patience is over.
func (c *Conn) askHolder(ctx context.Context, site events.Site, instance string, patience time.Duration) (*Holder, error) {
	until := time.Now().Add(patience)
	for {
		gctx, done := c.guard(ctx, holderPatience, exactly(site.HolderSubject()))
		msg, err := c.nc.RequestWithContext(gctx, site.HolderSubject(), []byte(instance))
		cause := context.Cause(gctx)
		done()
		var h Holder
		switch {
		case err == nil:
			if json.Unmarshal(msg.Data, &h) == nil && h.Instance == instance {
				return &h, nil
			}
			return nil, nil
		case errors.Is(err, nats.ErrNoResponders):
			if time.Until(until) <= 0 {
				return nil, nil
			}
			if err := sleep(ctx, firstBackoff); err != nil {
				return nil, err
			}
		case errors.Is(cause, ErrUnavailable):
			return nil, nil // it had its two seconds
		default:
			return nil, translate(gctx, err)
		}
	}
}

// answer is how a holder shows that it is alive. A request names the instance
// that it means, so that a holder that was fenced while it slept is not taken
// for the present one; an empty request is a human's.
func (l *Lease) answer(msg *nats.Msg) {
	who := strings.TrimSpace(string(msg.Data))
	if msg.Reply == "" || who != "" && who != l.me.Instance || l.over() != nil {
		return
	}
	body, err := json.Marshal(l.holder())
	if err == nil {
		err = msg.Respond(body)
	}
	if err != nil {
		l.c.logOnce("lease holder cannot answer", err)
	}
}

func (l *Lease) holder() Holder {
	l.endMu.Lock()
	defer l.endMu.Unlock()
	return l.me
}

// SetRoot makes the lease say which directory is published. Errors are those of
// [Lease.Publish]; the lease may say it then.
func (l *Lease) SetRoot(ctx context.Context, root string) error {
	l.endMu.Lock()
	l.me.Root = root
	l.endMu.Unlock()
	return failed("write the lease", l.site, l.prove(ctx))
}

// Epoch is the sequence at which the lease was acquired: larger than that of
// every holder before.
func (l *Lease) Epoch() uint64 { return l.epoch }

// LastSeq is the highest sequence that was acknowledged to this lease, its own
// at first.
func (l *Lease) LastSeq() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastSeq
}

// Release stops answering, so that the next publisher need not wait. Nothing
// is written. Publishing fails with [ErrReleased] afterwards. The error, if
// any, is only that the broker may learn of it late.
func (l *Lease) Release(ctx context.Context) error {
	l.finish(ErrReleased)
	if !l.c.Connected() { // then it has forgotten us
		return nil
	}
	return failed("release lease", l.site, l.c.flush(ctx, func(string) bool { return false }))
}

// over returns why the lease is over, nil if it is not.
func (l *Lease) over() error {
	l.endMu.Lock()
	defer l.endMu.Unlock()
	return l.end
}

// finish notes the first reason, and stops answering.
func (l *Lease) finish(why error) {
	l.endMu.Lock()
	defer l.endMu.Unlock()
	if l.end == nil {
		l.end = why
	}
	if l.answers != nil {
		_ = l.answers.Unsubscribe() // without a connection there is nothing to end
		l.answers = nil
	}
}
