package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"treecast/internal/events"
)

// PutStatus replaces what node says about itself, at most 64 KiB, for
// `nats kv watch <site>-nodes`. Errors are *[OpError] with [ErrSite] of events
// for the node's name, [ErrTooLarge], [ErrNoStream], [ErrDenied],
// [ErrDisconnected], [ErrUnavailable] or ctx's own.
func (c *Conn) PutStatus(ctx context.Context, site events.Site, node string, value []byte) error {
	if err := events.CheckName(node); err != nil {
		return failed("put status", site, err)
	}
	subject := statusSubject(site, node)
	ctx, done := c.guard(ctx, ackTimeout, exactly(subject))
	defer done()
	_, err := c.js.Publish(ctx, subject, value, jetstream.WithRetryAttempts(0))
	if errors.Is(err, jetstream.ErrNoStreamResponse) {
		err = fmt.Errorf("%w: bucket %q", ErrNoStream, statusBucket(site))
	}
	return failed("put status", site, translate(ctx, err))
}

// Statuses returns what each node last said about itself. Errors are those of
// [Conn.StreamInfo].
func (c *Conn) Statuses(ctx context.Context, site events.Site) (map[string][]byte, error) {
	statuses, err := c.statuses(ctx, site)
	if err != nil {
		return nil, failed("read statuses", site, err)
	}
	return statuses, nil
}

func (c *Conn) statuses(ctx context.Context, site events.Site) (map[string][]byte, error) {
	r, err := c.openDirect(ctx, statusStream(site))
	if err != nil {
		return nil, err
	}
	defer r.close()
	statuses := make(map[string][]byte)
	prefix := statusSubject(site, "")
	for next, more := uint64(1), true; more; {
		next, more, err = r.read(directRequest{Seq: next, Next: prefix + ">", Batch: directBatch, MaxBytes: directBytes},
			func(d *Delivery) error {
				node := strings.TrimPrefix(d.Subject, prefix)
				if d.deleted {
					delete(statuses, node)
				} else {
					statuses[node] = d.Payload
				}
				return nil
			})
		if err != nil {
			return nil, err
		}
	}
	return statuses, nil
}
