package stream

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"treecast/internal/events"
)

// A Cause says why a path is not where it should be. The path is quoted as in
// Go, so that no name can forge a line on a terminal.
type Cause struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// answerPatience is how long one who is asked may take, if he is there.
const answerPatience = 5 * time.Second

// ask makes one request on a subject that is not stored, and decodes its answer
// into resp. The error is [ErrSilent] where nobody answers.
func (c *Conn) ask(ctx context.Context, subject string, req, resp any) error {
	ctx, done := c.guard(ctx, answerPatience, exactly(subject))
	defer done()
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	msg, err := c.nc.RequestWithContext(ctx, subject, body)
	if errors.Is(err, nats.ErrNoResponders) || err != nil && errors.Is(context.Cause(ctx), ErrUnavailable) {
		return ErrSilent
	}
	if err != nil {
		return translate(ctx, err)
	}
	return json.Unmarshal(msg.Data, resp)
}

// listen calls fn with what is asked on a subject that is not stored, from one
// goroutine, until stop is called; stop returns when fn is not running, and must
// not be called by it.
func (c *Conn) listen(ctx context.Context, subject string, fn func(*nats.Msg)) (stop func(), err error) {
	var mu sync.Mutex
	stopped := false
	sub, err := c.nc.Subscribe(subject, func(msg *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		if !stopped && msg.Reply != "" {
			fn(msg)
		}
	})
	if err != nil {
		return nil, translate(ctx, err)
	}
	stop = func() {
		_ = sub.Unsubscribe() // fails only without a connection, which forgets it too
		mu.Lock()
		defer mu.Unlock()
		stopped = true
	}
	if err := c.flush(ctx, exactly(subject)); err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

// respond answers a request. Who asked asks again if that is lost.
func (c *Conn) respond(msg *nats.Msg, answer any) {
	body, err := json.Marshal(answer)
	if err == nil {
		err = msg.Respond(body)
	}
	if err != nil {
		c.logOnce("cannot answer on "+msg.Subject, err)
	}
}

// AnswerAsNode answers who asks how node is with what fn says, until stop is
// called: fn may be called until stop has returned. Errors are *[OpError] with
// [ErrDenied], [ErrDisconnected], [ErrUnavailable] or ctx's own.
func (c *Conn) AnswerAsNode(ctx context.Context, site events.Site, node string, fn func() json.RawMessage) (stop func(), err error) {
	stop, err = c.listen(ctx, site.NodeSubject(node), func(msg *nats.Msg) { c.respond(msg, fn()) })
	return stop, failed("answer as node "+node, site, err)
}

// AnswerAsSource answers who asks how the source is with what fn says, until stop
// is called or the lease is over. Errors are those of [Lease.Wants].
func (l *Lease) AnswerAsSource(fn func() any) (stop func(), err error) {
	stop, err = l.c.listen(context.Background(), l.site.SourceSubject(), func(msg *nats.Msg) {
		if l.over() == nil {
			l.c.respond(msg, fn())
		}
	})
	return stop, failed("answer as source", l.site, err)
}

// AskSource returns what the publisher says of its source now. Errors are those
// of [Conn.AskNode].
func (c *Conn) AskSource(ctx context.Context, site events.Site) (json.RawMessage, error) {
	var said json.RawMessage
	err := c.ask(ctx, site.SourceSubject(), struct{}{}, &said)
	return said, failed("ask the source", site, err)
}

// AskNode returns what node says of itself now. Errors are *[OpError] with
// [ErrSilent] if it does not answer, [ErrDenied], [ErrDisconnected] or ctx's own.
func (c *Conn) AskNode(ctx context.Context, site events.Site, node string) (json.RawMessage, error) {
	var said json.RawMessage
	err := c.ask(ctx, site.NodeSubject(node), struct{}{}, &said)
	return said, failed("ask node "+node, site, err)
}
