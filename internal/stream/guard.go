package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	apiTimeout  = 10 * time.Second // for one request of the JetStream API
	ackTimeout  = 10 * time.Second // for the acknowledgement of one publish
	idleTimeout = 10 * time.Second // between two messages of one reply
)

// A guard ends a call early where waiting is in vain: the connection is lost,
// or the broker has refused the subject.
type guard struct {
	cancel  context.CancelCauseFunc
	concern func(subject string) bool
}

// guard returns a context for one call that uses the subjects that concern
// accepts. Its cause is ErrDisconnected, a *DeniedError, ErrUnavailable after
// timeout (0: none), or ctx's own. The returned function frees it.
func (c *Conn) guard(ctx context.Context, timeout time.Duration, concern func(subject string) bool) (context.Context, func()) {
	stop := func() {}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, ErrUnavailable)
		stop = cancel
	}
	ctx, cancel := context.WithCancelCause(ctx)
	g := &guard{cancel, concern}
	c.mu.Lock()
	c.guards[g] = struct{}{}
	if !c.isUp {
		cancel(ErrDisconnected)
	}
	c.mu.Unlock()
	return ctx, func() {
		c.mu.Lock()
		delete(c.guards, g)
		c.mu.Unlock()
		cancel(nil)
		stop()
	}
}

// exactly and under are what a guard is concerned with.
func exactly(subjects ...string) func(string) bool {
	return func(s string) bool {
		for _, subject := range subjects {
			if s == subject {
				return true
			}
		}
		return false
	}
}

func under(prefix string) func(string) bool {
	return func(s string) bool { return strings.HasPrefix(s, prefix) }
}

// tellGuards ends the calls that wait for what was denied, and reports
// whether there was one.
func (c *Conn) tellGuards(denied *DeniedError) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	told := false
	for g := range c.guards {
		if g.concern(denied.Subject) {
			g.cancel(denied)
			told = true
		}
	}
	return told
}

// parseDenied reads the server's -ERR line, the only way it tells which
// subject it refused: 'Permissions Violation for Publish to "subject"'.
func parseDenied(err error) *DeniedError {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return nil
	}
	_, rest, ok := strings.Cut(err.Error(), ` to "`)
	subject, _, closed := strings.Cut(rest, `"`)
	if !ok || !closed {
		return nil
	}
	return &DeniedError{Subject: subject, Subscribe: strings.Contains(strings.ToLower(err.Error()), "for subscription")}
}

// api makes one request of the JetStream API and decodes its answer into
// resp. Errors are in this package's terms.
func (c *Conn) api(ctx context.Context, subject string, req, resp any) error {
	subject = apiPrefix + subject
	ctx, done := c.guard(ctx, apiTimeout, exactly(subject))
	defer done()
	var body []byte
	if req != nil {
		var err error
		if body, err = json.Marshal(req); err != nil {
			return err
		}
	}
	msg, err := c.nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		return translate(ctx, err)
	}
	var status struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(msg.Data, &status); err != nil {
		return fmt.Errorf("%w: answer on %s: %w", ErrServer, subject, err)
	}
	if status.Error != nil {
		return translate(ctx, status.Error)
	}
	return json.Unmarshal(msg.Data, resp)
}

// nobody says what it means that no server answers for a stream: ErrNoStream if
// it is not there, else ErrUnavailable, as while a leader is elected or the
// servers that have it are down. Who may not ask takes it to be there.
func (c *Conn) nobody(ctx context.Context, stream string) error {
	if _, err := c.lookUpStream(ctx, stream); errors.Is(err, ErrNoStream) {
		return fmt.Errorf("%w: %s", ErrNoStream, stream)
	}
	return fmt.Errorf("%w: no server has the stream %s at hand", ErrUnavailable, stream)
}

// An inbox receives the many messages of one reply.
type inbox struct {
	subject string // before a dot and a name
	sub     *nats.Subscription
	ctx     context.Context
	cancel  context.CancelCauseFunc
	timer   *time.Timer // ends ctx where nothing comes for idle
	idle    time.Duration
	done    func()
}

// openInbox subscribes to a subject of ours. Its reads end with ctx, the
// connection, a refusal of a subject that concerns it, or with ErrUnavailable
// when nothing came for idle. What is not read yet is kept without limit: the
// caller limits what it asks for.
func (c *Conn) openInbox(ctx context.Context, idle time.Duration, concern func(string) bool) (*inbox, error) {
	ctx, done := c.guard(ctx, 0, concern)
	subject := c.nc.NewInbox()
	sub, err := c.nc.SubscribeSync(subject + ".*")
	if err == nil {
		err = sub.SetPendingLimits(-1, -1)
	}
	if err != nil {
		done()
		return nil, translate(ctx, err)
	}
	in := &inbox{subject: subject, sub: sub, idle: idle, done: done}
	in.ctx, in.cancel = context.WithCancelCause(ctx)
	in.timer = time.AfterFunc(idle, func() { in.cancel(ErrUnavailable) })
	in.timer.Stop()
	return in, nil
}

// request sends one request whose answers come to the inbox.
func (in *inbox) request(c *Conn, subject string, req any) error {
	return in.requestAs("0", c, subject, req)
}

// requestAs is request; name, one token, ends the subjects of the answers.
func (in *inbox) requestAs(name string, c *Conn, subject string, req any) error {
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	return translate(in.ctx, c.nc.PublishRequest(apiPrefix+subject, in.subject+"."+name, body))
}

// next waits for a message.
func (in *inbox) next() (*nats.Msg, error) {
	in.timer.Reset(in.idle)
	msg, err := in.sub.NextMsgWithContext(in.ctx)
	in.timer.Stop()
	if err != nil {
		return nil, translate(in.ctx, err)
	}
	return msg, nil
}

func (in *inbox) close() {
	in.timer.Stop()
	_ = in.sub.Unsubscribe() // fails only without a connection, which forgets it too
	in.cancel(nil)
	in.done()
}

// status returns what the server says in place of a stored message, nothing
// for a stored one: that has a place to acknowledge it or a sequence.
func status(msg *nats.Msg) (code, text string) {
	if len(msg.Data) > 0 || len(msg.Header) == 0 || msg.Reply != "" || len(msg.Header[jetstream.SequenceHeader]) > 0 {
		return "", ""
	}
	return msg.Header.Get("Status"), msg.Header.Get("Description")
}
