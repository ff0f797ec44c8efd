package stream

import (
	"context"
	"encoding/json"
	"time"

	"github.com/nats-io/nats.go"

	"treecast/internal/events"
)

// A BarrierRequest asks the holder of the lease whether all that stood at the
// source when it was first asked is published. With the Instance and Generation
// of an answer it asks for the same moment again.
type BarrierRequest struct {
	Instance   string `json:"instance,omitempty"`
	Generation uint64 `json:"generation,omitempty"`
	Scan       bool   `json:"scan,omitempty"` // look at every path: also what raised no event
}

// A BarrierState is the answer. While Seq is 0 not all is published, and what
// is known of that is in Halted and Unpublished; afterwards all is, in the
// stream up to Seq, but for what is in Unpublished.
type BarrierState struct {
	Instance    string    `json:"instance"`
	Epoch       uint64    `json:"epoch"`  // when the lease was acquired; it may be renewed later
	Stream      time.Time `json:"stream"` // when it was created
	Generation  uint64    `json:"generation,omitempty"`
	Seq         uint64    `json:"seq,omitempty"`
	Halted      string    `json:"halted,omitempty"`
	Unpublished []Cause   `json:"unpublished,omitempty"` // the first of them
	Count       int       `json:"unpublished_count,omitempty"`
}

// Barrier asks the site's publisher. It answers within a few seconds, perhaps
// that it is not done: ask again then. Errors are *[OpError] with [ErrSilent] if
// there is none, [ErrDenied], [ErrDisconnected] or ctx's own.
func (c *Conn) Barrier(ctx context.Context, site events.Site, r BarrierRequest) (BarrierState, error) {
	var state BarrierState
	err := c.ask(ctx, site.BarrierSubject(), r, &state)
	return state, failed("ask the publisher", site, err)
}

// Barriers calls fn with what is asked, from one goroutine, until stop is called
// or the lease is over. A request for another instance's generation comes as one
// for a new one. answer may be called from any goroutine, and fills in who
// answers. Errors are those of [Lease.Wants].
func (l *Lease) Barriers(fn func(r BarrierRequest, answer func(BarrierState))) (stop func(), err error) {
	stop, err = l.c.listen(context.Background(), l.site.BarrierSubject(), func(msg *nats.Msg) {
		var r BarrierRequest
		if err := json.Unmarshal(msg.Data, &r); err != nil {
			l.c.logOnce("a barrier is dropped", err)
			return
		}
		if l.over() != nil {
			return
		}
		if r.Instance != l.me.Instance {
			r.Generation = 0
		}
		fn(r, func(s BarrierState) {
			s.Instance, s.Epoch = l.me.Instance, l.epoch
			l.c.respond(msg, s)
		})
	})
	return stop, failed("listen for barriers", l.site, err)
}
