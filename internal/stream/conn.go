package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The oldest broker that has all that is used here: consumer reset came with
// 2.14.
const minMajor, minMinor = 2, 14

// A Conn is a connection to a broker, which re-establishes itself for as long
// as it is open. What has bodies in bulk goes over a second one (see bulk), so
// that nothing small waits behind it. Its methods may be called from many
// goroutines at once.
type Conn struct {
	nc   *nats.Conn
	js   jetstream.JetStream
	log  *slog.Logger
	name string
	pace *pace // of Fetch and Bodies.Get
	bulk *bulk

	reconnects   atomic.Uint64
	changed      chan struct{}
	noSnapshot   atomic.Bool // this user may not create consumers
	closedByUs   atomic.Bool
	reportedOnce sync.Map // causes that were logged

	mu     sync.Mutex // guards what follows
	up     chan struct{}
	isUp   bool
	guards map[*guard]struct{}
}

// Connect returns a connection to a broker that is new enough and has
// JetStream. It tries again until ctx ends where the broker is not there yet,
// and logs each cause of that once.
//
// Errors are *[OpError] with [ErrAuth], [ErrServer] (both permanent) or ctx's
// own. The caller closes the connection.
func Connect(ctx context.Context, o ConnectOptions) (*Conn, error) {
	c := &Conn{
		log:     o.Log,
		name:    o.Name,
		pace:    &pace{rate: o.BulkRate},
		bulk:    newBulk(o),
		changed: make(chan struct{}, 1),
		up:      make(chan struct{}),
		guards:  make(map[*guard]struct{}),
	}
	if c.log == nil {
		c.log = slog.Default()
	}
	servers, err := o.servers()
	if err != nil {
		return nil, failed("connect", "", err)
	}
	opts, err := o.natsOptions()
	if err != nil {
		return nil, failed("connect", "", err)
	}
	opts = append(opts,
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { c.lost(err) }),
		nats.ReconnectHandler(func(*nats.Conn) { c.restored() }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { c.logOnce("broker unreachable, trying again", err) }),
		nats.ClosedHandler(func(*nats.Conn) { c.ended() }),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) { c.failure(sub, err) }))

	for attempt := 1; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return nil, failed("connect", "", err)
		}
		if c.nc, err = nats.Connect(servers, opts...); err == nil {
			break
		}
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok || permanentAuth(err) {
			return nil, failed("connect", "", fmt.Errorf("%w: %w", ErrAuth, err))
		}
		c.logOnce("broker unreachable, trying again", err)
		if err := sleep(ctx, Backoff(attempt)); err != nil {
			return nil, failed("connect", "", err)
		}
	}
	c.mu.Lock()
	if !c.nc.IsClosed() && !c.isUp {
		c.isUp = true
		close(c.up)
	}
	c.mu.Unlock()
	if c.js, err = jetstream.New(c.nc,
		jetstream.WithDefaultTimeout(apiTimeout),
		jetstream.WithPublishAsyncTimeout(ackTimeout)); err == nil {
		err = c.checkServer(ctx)
	}
	if err != nil {
		c.Close()
		return nil, failed("connect", "", err)
	}
	c.log.Info("connected to broker", "url", c.nc.ConnectedUrlRedacted(), "version", c.nc.ConnectedServerVersion())
	return c, nil
}

// checkServer says with ErrServer what the broker lacks.
func (c *Conn) checkServer(ctx context.Context) error {
	version := c.nc.ConnectedServerVersion()
	if !newEnough(version) {
		return fmt.Errorf("%w: nats-server %s at %s: %d.%d.0 or newer is needed, upgrade it",
			ErrServer, version, c.nc.ConnectedUrlRedacted(), minMajor, minMinor)
	}
	if has, _ := c.nc.ConnectedServerJetStream(); has {
		return nil
	}
	// A leaf node or a cluster member may have it from another server.
	gctx, done := c.guard(ctx, apiTimeout, exactly("$JS.API.INFO"))
	defer done()
	_, err := c.js.AccountInfo(gctx)
	switch err = translate(gctx, err); {
	case err == nil, errors.Is(err, ErrDenied), ctx.Err() != nil:
		return ctx.Err()
	default:
		return fmt.Errorf("%w: no JetStream at %s (%w): start nats-server with -js, or enable it for this account",
			ErrServer, c.nc.ConnectedUrlRedacted(), err)
	}
}

// newEnough reports whether a version such as "2.15.2" or "2.15.0-dev" is at
// least the oldest that will do. One that it cannot read is taken to be.
func newEnough(version string) bool {
	major, rest, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	if errA != nil || errB != nil {
		return true
	}
	return a > minMajor || a == minMajor && b >= minMinor
}

// Close ends the connection and every call that is under way, with
// [ErrDisconnected]. It is harmless to close twice.
func (c *Conn) Close() {
	c.closedByUs.Store(true)
	c.nc.Close()
	c.lost(nil)
	c.bulk.close()
}

// Connected reports whether there is a connection now.
func (c *Conn) Connected() bool { return c.nc.IsConnected() }

// Reconnects counts how often the connection was re-established: where it
// differs from before, something may have been missed in between.
func (c *Conn) Reconnects() uint64 { return c.reconnects.Load() }

// Server names the server that we are connected to, by another name after each
// of its starts.
func (c *Conn) Server() string { return c.nc.ConnectedServerId() }

// Changed receives after each loss and each return of the connection. It
// holds one; those that nobody took are one.
func (c *Conn) Changed() <-chan struct{} { return c.changed }

// BulkRate is [ConnectOptions.BulkRate].
func (c *Conn) BulkRate() int64 { return c.pace.rate }

// TakesEntries returns an [ErrServer] if the broker's messages are too small
// for an entry and an inline body.
func (c *Conn) TakesEntries() error {
	if limit := c.nc.MaxPayload(); limit < minMessageBytes {
		return fmt.Errorf("%w: its max_payload is %d bytes, at least %d are needed", ErrServer, limit, minMessageBytes)
	}
	return nil
}

func (c *Conn) lost(err error) {
	c.mu.Lock()
	was := c.isUp
	if was {
		c.isUp = false
		c.up = make(chan struct{})
	}
	for g := range c.guards {
		g.cancel(ErrDisconnected)
	}
	c.mu.Unlock()
	if was && !c.closedByUs.Load() {
		c.log.Warn("connection to broker lost", "err", err)
	}
	c.signal()
}

func (c *Conn) restored() {
	c.noSnapshot.Store(false)
	c.reportedOnce.Clear()
	version := c.nc.ConnectedServerVersion()
	if version != "" && !newEnough(version) {
		c.log.Error("broker is too old, upgrade it", "url", c.nc.ConnectedUrlRedacted(), "version", version,
			"needed", fmt.Sprintf("%d.%d.0", minMajor, minMinor))
	}
	c.log.Info("connected to broker again", "url", c.nc.ConnectedUrlRedacted(), "version", version)
	c.mu.Lock()
	if !c.isUp {
		c.isUp = true
		close(c.up)
	}
	c.reconnects.Add(1)
	c.mu.Unlock()
	c.signal()
}

func (c *Conn) ended() {
	if !c.closedByUs.Load() {
		c.log.Error("connection to broker is closed for good, restart this process", "err", c.nc.LastError())
	}
	c.lost(nil)
}

func (c *Conn) signal() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// failure is told what happens outside of any call, refused subjects among it.
func (c *Conn) failure(sub *nats.Subscription, err error) {
	if denied := parseDenied(err); denied != nil && c.tellGuards(denied) {
		return
	}
	if sub != nil {
		err = fmt.Errorf("subscription %q: %w", sub.Subject, err)
	}
	c.logOnce("broker reports an error", err)
}

// logOnce logs a cause, unless it was logged since the last connect.
func (c *Conn) logOnce(msg string, err error) {
	if _, seen := c.reportedOnce.LoadOrStore(msg+"\x00"+err.Error(), nil); !seen {
		c.log.Warn(msg, "err", err) //nolint:sloglint // every caller passes a constant
	}
}

// waitUp returns once there is a connection, or ctx's error.
func (c *Conn) waitUp(ctx context.Context) error {
	c.mu.Lock()
	up := c.up
	c.mu.Unlock()
	select {
	case <-up:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
