package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	pullExpires   = time.Minute // how long a request stays with the server
	pullHeartbeat = 15 * time.Second
	minPullBytes  = 2 * maxMessageBytes // at least one message fits
	maxPull       = 16 << 10            // messages; nats.go keeps 64 Ki for a subscription
)

// pullRequest asks a consumer for messages (ADR-9, ADR-13).
type pullRequest struct {
	Expires   time.Duration `json:"expires,omitempty"`
	Batch     int           `json:"batch"`
	MaxBytes  int           `json:"max_bytes,omitempty"`
	NoWait    bool          `json:"no_wait,omitempty"`
	Heartbeat time.Duration `json:"idle_heartbeat,omitempty"`
}

// Run calls fn with each message, in the order of the stream, from one
// goroutine, until ctx ends; then it returns nil. fn may block: at most
// maxMsgs messages and about maxBytes wait for it meanwhile. Each message must
// be acknowledged, then or later, or it comes again after AckWait.
//
// When the connection comes back, and when it was silent for too long, Run
// moves the consumer back to its ack floor, since what was on its way is lost:
// what was delivered and not acknowledged comes again at once, in order, and
// fn may so get what it is still at work on. (Where this user may not reset
// the consumer it comes after AckWait.)
//
// The error is *[OpError] with [ErrNoConsumer] or [ErrNoStream] when the
// consumer is gone or was made anew, with [ErrConfig] when the server does not
// accept what is asked of it, or with [ErrDenied]. Only one Run at a time.
func (k *Consumer) Run(ctx context.Context, maxMsgs, maxBytes int, fn func(Delivery)) error {
	p := &puller{
		k:        k,
		maxMsgs:  min(max(maxMsgs, 1), maxPull),
		maxBytes: max(maxBytes/2, minPullBytes), // two requests may overlap
		fn:       fn,
		subject:  "CONSUMER.MSG.NEXT." + streamName(k.site) + "." + k.node,
	}
	for attempt := 0; ; attempt++ {
		delivered := p.delivered
		err := p.session(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrNoConsumer), errors.Is(err, ErrNoStream),
			errors.Is(err, ErrDenied), errors.Is(err, errBadPull):
			return failed("run consumer "+k.node, k.site, err)
		case !errors.Is(err, ErrDisconnected) && !errors.Is(err, errAgain):
			k.c.logOnce("consumer interrupted, trying again", err)
		}
		if p.delivered > delivered {
			attempt = 0
		}
		if sleep(ctx, Backoff(attempt+1)) != nil || k.c.waitUp(ctx) != nil {
			return nil
		}
	}
}

var (
	// errAgain ends a session that a new one may follow.
	errAgain = errors.New("pull interrupted")
	// errBadPull is what the server answers to a request that it never accepts.
	errBadPull = fmt.Errorf("%w: pull refused", ErrConfig)
)

// A puller is one Run. A session of it lasts as long as a connection.
type puller struct {
	k         *Consumer
	maxMsgs   int
	maxBytes  int
	fn        func(Delivery)
	subject   string
	delivered uint64
	sessions  int

	in     *inbox
	asked  int  // messages asked for and not handed to fn yet
	fresh  bool // nothing came since the last request
	lonely bool // the next message is larger than maxBytes
}

func (p *puller) session(ctx context.Context) error {
	if err := p.k.check(ctx); err != nil {
		return err
	}
	p.sessions++
	if p.sessions > 1 {
		err := p.k.reset(ctx, 0)
		if errors.Is(err, ErrDenied) {
			p.k.c.logOnce("consumer cannot be reset, what was on its way comes after its wait", err)
		} else if err != nil {
			return err
		}
	}
	var err error
	if p.in, err = p.k.c.openInbox(ctx, 2*pullHeartbeat+5*time.Second, exactly(apiPrefix+p.subject)); err != nil {
		return err
	}
	defer p.in.close()
	p.asked = 0
	for {
		if p.asked <= p.maxMsgs/2 {
			if err := p.ask(); err != nil {
				return err
			}
		}
		msg, err := p.in.next()
		if err != nil {
			return err
		}
		if code, text := status(msg); code != "" {
			if err := p.status(ctx, code, text, msg); err != nil {
				return err
			}
			continue
		}
		d, err := consumed(p.k.c.nc, msg)
		if err != nil {
			return fmt.Errorf("%w: %w: %w", ErrServer, errNotStored, err)
		}
		p.delivered++
		p.fresh, p.lonely = false, false
		p.fn(*d)
		p.asked--
	}
}

func (p *puller) ask() error {
	req := pullRequest{
		Expires:   pullExpires,
		Heartbeat: pullHeartbeat,
		Batch:     p.maxMsgs - p.asked,
		MaxBytes:  p.maxBytes,
	}
	if p.lonely {
		req.Batch, req.MaxBytes = 1, 0
	}
	if err := p.in.request(p.k.c, p.subject, req); err != nil {
		return err
	}
	p.asked += req.Batch
	p.fresh = true
	return nil
}

// status deals with what the server says in place of a message. (That no one
// answers, 503, is an error of next, and the session after it looks why.)
func (p *puller) status(ctx context.Context, code, text string, msg *nats.Msg) error {
	switch code {
	case "100": // heartbeat
		return nil
	case "404", "408":
		p.unfilled(msg)
		return nil
	case "409":
		switch {
		case strings.HasPrefix(text, "Message Size Exceeds MaxBytes"):
			p.lonely = p.fresh
			p.unfilled(msg)
			return nil
		case strings.HasPrefix(text, "Batch Completed"):
			p.unfilled(msg)
			return nil
		case strings.HasPrefix(text, "Consumer Deleted"):
			if err := p.k.check(ctx); err != nil {
				return err
			}
			return fmt.Errorf("%w: it was deleted", ErrNoConsumer)
		case strings.HasPrefix(text, "Exceeded MaxRequest"), strings.HasPrefix(text, "Consumer is push"):
			return fmt.Errorf("%w: %s", errBadPull, text)
		default: // leadership change, server shutdown, too many requests waiting
			return fmt.Errorf("%w: %s", errAgain, text)
		}
	case "400", "423":
		return fmt.Errorf("%w: %s %s", errBadPull, code, text)
	}
	return fmt.Errorf("%w: %s %s", errAgain, code, text)
}

// unfilled takes back what a request that ended early had asked for.
func (p *puller) unfilled(msg *nats.Msg) {
	n, err := strconv.Atoi(msg.Header.Get("Nats-Pending-Messages"))
	if err != nil {
		n = p.asked // it does not say: ask anew for everything
	}
	p.asked = max(p.asked-n, 0)
}
