package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"treecast/internal/events"
)

const (
	resetTimeout = 2 * time.Second        // for the first request
	resetPause   = 100 * time.Millisecond // before the next one
)

// A Consumer is a node's durable place in its site's stream, kept by the
// server.
type Consumer struct {
	c       *Conn
	site    events.Site
	node    string
	created time.Time
}

// Position is how far a consumer is. The first two are sequences of the
// stream, the others count messages.
type Position struct {
	Delivered  uint64 // the last one delivered
	AckFloor   uint64 // everything up to it is acknowledged
	Pending    uint64 // not delivered yet; too small for moments, see Delivery
	AckPending uint64 // delivered, not acknowledged
}

// OpenConsumer returns node's consumer. It looks first, and creates it if it
// is missing, so that a node needs no right to create where the publisher did
// (see AddNodes). One with other settings is changed where that is safe;
// where this user may not, it is used as it is.
//
// Errors are *[OpError] with [ErrNoStream], [ErrConfig], [ErrDenied],
// [ErrDisconnected], [ErrUnavailable], ErrSite of events, or ctx's own.
func (c *Conn) OpenConsumer(ctx context.Context, site events.Site, node string, cfg NodeConfig) (*Consumer, error) {
	info, err := c.ensureConsumer(ctx, site, node, cfg)
	if err != nil {
		if errors.Is(err, ErrDenied) {
			err = fmt.Errorf("%w; where nodes may not create their consumer the publisher must have made it (--nodes %s)", err, node)
		}
		return nil, failed("open consumer "+node, site, err)
	}
	return &Consumer{c, site, node, info.Created}, nil
}

// AddNodes makes sure that each node has its consumer, so that nodes need no
// right to create one. Positions of those that exist do not change. Errors are
// those of [Conn.OpenConsumer]; nodes before the failing one have theirs.
func (c *Conn) AddNodes(ctx context.Context, site events.Site, nodes []string, cfg NodeConfig) error {
	for _, node := range nodes {
		if _, err := c.ensureConsumer(ctx, site, node, cfg); err != nil {
			return failed("add node "+node, site, err)
		}
	}
	return nil
}

func (c *Conn) ensureConsumer(ctx context.Context, site events.Site, node string, cfg NodeConfig) (*jetstream.ConsumerInfo, error) {
	if err := events.CheckName(node); err != nil {
		return nil, err
	}
	want := consumerConfig(node, cfg)
	have, err := c.consumerInfo(ctx, site, node)
	if errors.Is(err, ErrNoConsumer) {
		info, err := c.putConsumer(ctx, site, want, true)
		if err == nil {
			c.log.Info("consumer created", "node", node)
		}
		return info, err
	}
	if err != nil {
		return nil, err
	}
	merged, changed, err := mergeConsumer(have.Config, want)
	if err != nil || len(changed) == 0 {
		return have, err
	}
	updated, err := c.putConsumer(ctx, site, merged, false)
	if errors.Is(err, ErrDenied) {
		c.log.Info("consumer has other settings, and this user may not change them", "node", node, "fields", changed)
		return have, nil
	}
	if err != nil {
		return nil, fmt.Errorf("update of %v: %w", changed, err)
	}
	return updated, nil
}

func (c *Conn) putConsumer(ctx context.Context, site events.Site, cc jetstream.ConsumerConfig, create bool) (*jetstream.ConsumerInfo, error) {
	put := c.js.UpdateConsumer
	if create {
		put = c.js.CreateConsumer
	}
	ctx, done := c.guard(ctx, apiTimeout, exactly(apiPrefix+"CONSUMER.CREATE."+streamName(site)+"."+cc.Durable))
	defer done()
	k, err := put(ctx, streamName(site), cc)
	if err != nil {
		return nil, translate(ctx, err)
	}
	return k.CachedInfo(), nil
}

func (c *Conn) consumerInfo(ctx context.Context, site events.Site, node string) (*jetstream.ConsumerInfo, error) {
	var info jetstream.ConsumerInfo
	if err := c.api(ctx, "CONSUMER.INFO."+streamName(site)+"."+node, nil, &info); err != nil {
		return nil, err
	}
	return &info, nil
}

// Reset moves the consumer: the next message delivered is the first one that
// lives at or after seq, and everything before counts as acknowledged; 0 is
// the place after the ack floor, so that what was delivered and not
// acknowledged comes again, in order, now and not after AckWait. A seq beyond
// the end of the stream is accepted: nothing comes until the stream gets
// there. Call it before Run.
//
// Errors are *[OpError] with [ErrNoConsumer], [ErrNoStream], [ErrDenied],
// [ErrDisconnected], [ErrUnavailable] or ctx's own.
func (k *Consumer) Reset(ctx context.Context, seq uint64) error {
	return failed("reset consumer "+k.node, k.site, k.reset(ctx, seq))
}

func (k *Consumer) reset(ctx context.Context, seq uint64) error {
	var resp struct {
		Seq uint64 `json:"reset_seq"`
	}
	req := struct {
		Seq uint64 `json:"seq,omitempty"`
	}{seq}
	ask := func(timeout time.Duration) error {
		ctx, done := context.WithTimeoutCause(ctx, timeout, ErrUnavailable)
		defer done()
		return k.c.api(ctx, "CONSUMER.RESET."+streamName(k.site)+"."+k.node, req, &resp)
	}
	// A leader that loses its office in the midst of it drops the request
	// without a word. The same request again leads to the same place.
	end := time.Now().Add(apiTimeout)
	for timeout := resetTimeout; ; timeout *= 2 { // it may be a slow one, too
		err := k.gone(ctx, ask(timeout))
		if !errors.Is(err, ErrUnavailable) || ctx.Err() != nil || time.Now().After(end) {
			return err
		}
		if err := sleep(ctx, resetPause); err != nil {
			return err
		}
	}
}

// Position asks the server where the consumer is. Errors are those of Reset.
func (k *Consumer) Position(ctx context.Context) (Position, error) {
	info, err := k.c.consumerInfo(ctx, k.site, k.node)
	if err != nil {
		return Position{}, failed("position of consumer "+k.node, k.site, err)
	}
	return Position{
		Delivered:  info.Delivered.Stream,
		AckFloor:   info.AckFloor.Stream,
		Pending:    info.NumPending,
		AckPending: uint64(info.NumAckPending),
	}, nil
}

// gone turns "nobody answers for this consumer" into what it means: the
// server subscribes to a consumer's subjects only while it exists.
func (k *Consumer) gone(ctx context.Context, err error) error {
	if err == nil || !errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
		return err
	}
	if check := k.check(ctx); errors.Is(check, ErrNoConsumer) || errors.Is(check, ErrNoStream) {
		return check
	}
	return err
}

// check says with ErrNoConsumer or ErrNoStream that the consumer is gone, or
// is another one of the same name.
func (k *Consumer) check(ctx context.Context) error {
	info, err := k.c.consumerInfo(ctx, k.site, k.node)
	if err != nil {
		return err
	}
	if !info.Created.Equal(k.created) {
		return fmt.Errorf("%w: it was made anew at %s", ErrNoConsumer, info.Created.Format(time.RFC3339Nano))
	}
	return nil
}
