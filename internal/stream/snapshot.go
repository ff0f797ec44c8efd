package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"treecast/internal/events"
)

const (
	snapshotBatch = 8192
	// How long a new subject may be unknown to other servers of a cluster.
	interestPatience = 2 * time.Second
)

// Snapshot calls fn with the header of every entry that lives in site's
// stream, in the order of the stream, and returns the stream's state from
// before the first. It reads on until nothing is left, so that each path that
// lives at the end was seen in some version: one that is superseded while this
// runs may be seen twice, the newer version later. Everything up to
// Info.LastSeq was seen or is superseded; what is newer may have been seen.
// Subject and header are not decoded or checked. Lease messages are left out.
//
// It takes a consumer. Where this user may not create one, the messages are read
// whole, by Direct Get, which costs the bodies' transfer, and the server a walk
// over all subjects for each thousand of them. A node has [Conn.NodeSnapshot].
//
// After an error, fn's or [ErrNoStream], [ErrDenied], [ErrDisconnected],
// [ErrUnavailable] or ctx's own, what fn was told proves nothing: begin anew.
func (c *Conn) Snapshot(ctx context.Context, site events.Site, fn func(seq uint64, subject, header string) error) (Info, error) {
	return c.snapshot(ctx, site, "", fn)
}

// NodeSnapshot is Snapshot for a node, which borrows a consumer of the publisher
// where it may not create one (see [Lease.LendConsumers]).
func (c *Conn) NodeSnapshot(ctx context.Context, site events.Site, node string, fn func(seq uint64, subject, header string) error) (Info, error) {
	return c.snapshot(ctx, site, node, fn)
}

func (c *Conn) snapshot(ctx context.Context, site events.Site, node string, fn func(seq uint64, subject, header string) error) (Info, error) {
	info, err := c.StreamInfo(ctx, site)
	if err != nil {
		return Info{}, err
	}
	s := &snapshot{c: c, site: site, node: node, info: info, next: 1, fn: fn}
	if err := s.run(ctx); err != nil {
		return Info{}, failed("snapshot", site, err)
	}
	return info, nil
}

type snapshot struct {
	c    *Conn
	site events.Site
	node string // who may borrow a consumer; "": nobody
	info Info
	next uint64 // everything before was seen
	fn   func(seq uint64, subject, header string) error
	stop error // fn's
}

// run reads in up to three steps, each on from where the one before ended. A
// consumer is fast, but its count of what is left is too small for a moment
// while paths are rewritten: the server takes the old message off before it
// adds the new one. So that its zero proves nothing, and the end is left to
// Direct Get, which asks the store itself.
func (s *snapshot) run(ctx context.Context) error {
	err := s.byOwn(ctx)
	if errors.Is(err, errNoConsumer) && s.node != "" {
		err = s.byLent(ctx)
	}
	if errors.Is(err, errNoConsumer) {
		s.c.log.Debug("snapshot by direct get", "from", s.next, "err", err)
	} else if err != nil {
		return err
	}
	if err := s.byDirect(ctx); err != nil {
		return err
	}
	if s.info.Replicas <= 1 {
		return nil
	}
	return s.tail(ctx)
}

func (s *snapshot) take(d *Delivery) error {
	s.next = d.Seq + 1
	if !s.site.IsFile(d.Subject) {
		return nil
	}
	s.stop = s.fn(d.Seq, d.Subject, d.Header)
	return s.stop
}

// tail reads what is left from the leader itself, one by one. There is
// something only if a replica that lags has answered before. On a stream with
// replicas this is what makes the snapshot whole: a path may have been skipped
// since one replica had a newer version of it, which another one, that answered
// last, did not have yet. The leader has it.
func (s *snapshot) tail(ctx context.Context) error {
	for {
		d, err := s.c.leaderGet(ctx, streamName(s.site), map[string]any{"seq": s.next, "next_by_subj": ">"})
		if err != nil || d == nil {
			return err
		}
		if err := s.take(d); err != nil {
			return err
		}
	}
}

// errNoConsumer reports that no consumer could be had, or not until the end.
var errNoConsumer = errors.New("no consumer for a snapshot")

// byOwn reads through a consumer that we create, of a name that nobody else has.
func (s *snapshot) byOwn(ctx context.Context) error {
	if s.c.noSnapshot.Load() {
		return errNoConsumer
	}
	name := "snapshot-" + randomToken()
	err := s.c.createHeaders(ctx, s.site, name, s.next, ownIdle)
	if err == nil {
		defer s.dropConsumer(ctx, name)
		return s.byConsumer(ctx, name, ownIdle)
	}
	if errors.Is(err, ErrNoStream) || errors.Is(err, ErrDisconnected) || ctx.Err() != nil {
		return err
	}
	if errors.Is(err, ErrDenied) {
		s.c.noSnapshot.Store(true) // until the next connect
	}
	return fmt.Errorf("%w: %w", errNoConsumer, err)
}

// byLent reads through a consumer that the publisher has lent. Whatever becomes
// of that, Direct Get goes on from there.
func (s *snapshot) byLent(ctx context.Context) error {
	name, err := s.borrow(ctx)
	if err == nil {
		err = s.byConsumer(ctx, name, lentIdle)
	}
	if err == nil || s.stop != nil || ctx.Err() != nil || errors.Is(err, ErrDisconnected) || errors.Is(err, ErrNoStream) {
		return err
	}
	return fmt.Errorf("%w: %w", errNoConsumer, err)
}

// byConsumer reads headers only, through a consumer in the server's memory, which
// the server forgets, and may have made anew for another reader, if nobody reads
// for as long as idle. It pulls without waiting, so that the server says when
// nothing is left.
func (s *snapshot) byConsumer(ctx context.Context, name string, idle time.Duration) error {
	subject := "CONSUMER.MSG.NEXT." + streamName(s.site) + "." + name
	in, err := s.c.openInbox(ctx, idleTimeout, exactly(apiPrefix+subject))
	if err != nil {
		return err
	}
	defer in.close()
	// In a cluster it takes a moment until every server knows the consumer.
	known := time.Now().Add(interestPatience)
	asked := time.Now()
	for delivered := uint64(0); ; {
		if time.Since(asked) > idle-idle/4 {
			return fmt.Errorf("%w: a snapshot's consumer was not read from for %v", ErrUnavailable, time.Since(asked))
		}
		asked = time.Now()
		err := in.request(s.c, subject, pullRequest{Batch: snapshotBatch, NoWait: true})
		for n := 0; err == nil && n < snapshotBatch; n++ {
			msg, err := in.next()
			if errors.Is(err, nats.ErrNoResponders) && delivered == 0 && time.Now().Before(known) {
				if err := sleep(ctx, firstBackoff/2); err != nil {
					return err
				}
				break
			}
			if err != nil {
				return err
			}
			done, err := s.consumed(msg, &delivered)
			if done || err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

// consumed takes one message of the consumer, and reports whether it was the
// last one there is.
func (s *snapshot) consumed(msg *nats.Msg, delivered *uint64) (done bool, err error) {
	switch code, text := status(msg); code {
	case "":
	case "404":
		return true, nil
	default:
		return false, fmt.Errorf("%w: snapshot's consumer: %s %s", ErrUnavailable, code, text)
	}
	meta, err := msg.Metadata()
	if err != nil {
		return false, fmt.Errorf("%w: %w: %w", ErrServer, errNotStored, err)
	}
	if *delivered++; meta.Sequence.Consumer != *delivered {
		return false, fmt.Errorf("%w: a gap in a snapshot: message %d of the consumer after %d",
			ErrUnavailable, meta.Sequence.Consumer, *delivered-1)
	}
	d := newDelivery(msg)
	d.Seq = meta.Sequence.Stream
	return meta.NumPending == 0, s.take(d)
}

// dropConsumer spares the server a minute; where it cannot, the server forgets
// the consumer by itself.
func (s *snapshot) dropConsumer(ctx context.Context, name string) {
	gctx, done := s.c.guard(context.WithoutCancel(ctx), apiTimeout, exactly(apiPrefix+"CONSUMER.DELETE."+streamName(s.site)+"."+name))
	defer done()
	if err := s.c.js.DeleteConsumer(gctx, streamName(s.site), name); err != nil {
		s.c.log.Debug("snapshot's consumer is left to the server", "err", translate(gctx, err))
	}
}

// byDirect reads whole messages, page by page, until the store has no more.
func (s *snapshot) byDirect(ctx context.Context) error {
	r, err := s.c.openDirect(ctx, streamName(s.site))
	if err != nil {
		return err
	}
	defer r.close()
	for {
		_, more, err := r.read(directRequest{Seq: s.next, Next: ">", Batch: directBatch, MaxBytes: directBytes}, s.take)
		if err != nil || !more {
			return err
		}
	}
}
