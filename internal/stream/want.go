package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/nats-io/nats.go"

	"treecast/internal/events"
)

// A Want is what a node asks the publisher to look after: objects that Path
// needs and that are missing or altered. It is a hint and nothing more: nodes
// are not trusted, and anyone may have sent it.
type Want struct {
	Node    string
	Path    events.Path
	Digests []events.Digest // 1 to 512
}

// wireWant is a Want in JSON.
type wireWant struct {
	Node    string   `json:"node"`
	Path    string   `json:"path,omitempty"`
	Path64  []byte   `json:"path64,omitempty"` // one that is not UTF-8
	Digests []string `json:"digests"`
}

const (
	wantDigests  = 512      // in one message
	maxWantBytes = 64 << 10 // of one message: that many, and the longest path
	wantsWaiting = 256      // messages for fn; more are dropped
)

// Want asks the publisher to look after objects that path needs. Whether a
// publisher hears it nobody knows: ask again. Errors are *[OpError] with
// [ErrDenied], [ErrDisconnected], [ErrUnavailable] or ctx's own.
func (b *Bodies) Want(ctx context.Context, node string, path events.Path, digests []events.Digest) error {
	return failed("ask for bodies", b.site, b.want(ctx, node, path, digests))
}

func (b *Bodies) want(ctx context.Context, node string, path events.Path, digests []events.Digest) error {
	w := wireWant{Node: node}
	w.Path, w.Path64 = events.SplitText(path.String())
	subject := b.site.WantSubject()
	for page := range slices.Chunk(digests, wantDigests) {
		w.Digests = w.Digests[:0]
		for _, d := range page {
			w.Digests = append(w.Digests, d.String())
		}
		body, err := json.Marshal(w)
		if err != nil {
			return err
		}
		if err := b.c.nc.Publish(subject, body); err != nil {
			return translate(ctx, err)
		}
	}
	return b.c.flush(ctx, exactly(subject))
}

var errWant = errors.New("malformed want")

func parseWant(body []byte) (Want, error) {
	var wire wireWant
	if len(body) > maxWantBytes {
		return Want{}, fmt.Errorf("%w: %d bytes", errWant, len(body))
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return Want{}, fmt.Errorf("%w: %w", errWant, err)
	}
	if n := len(wire.Digests); n == 0 || n > wantDigests {
		return Want{}, fmt.Errorf("%w: %d digests", errWant, n)
	}
	w := Want{Node: wire.Node}
	if err := events.CheckName(w.Node); err != nil {
		return Want{}, fmt.Errorf("%w: %w", errWant, err)
	}
	text, err := events.JoinText(wire.Path, wire.Path64)
	if err == nil {
		w.Path, err = events.ParsePath(text)
	}
	if err != nil {
		return Want{}, fmt.Errorf("%w: %w", errWant, err)
	}
	for _, s := range wire.Digests {
		d, err := events.ParseDigest(s)
		if err != nil {
			return Want{}, fmt.Errorf("%w: %w", errWant, err)
		}
		w.Digests = append(w.Digests, d)
	}
	return w, nil
}

// Wants calls fn with what nodes want, from one goroutine, until stop is called
// or the lease is over; stop returns when fn is not running, and must not be
// called by it. What is malformed or too large is dropped, and so is what comes
// while many wait. Errors are *[OpError] with [ErrDenied], [ErrDisconnected] or
// [ErrUnavailable].
func (l *Lease) Wants(fn func(Want)) (stop func(), err error) {
	var mu sync.Mutex
	stopped := false
	subject := l.site.WantSubject()
	sub, err := l.c.nc.Subscribe(subject, func(msg *nats.Msg) {
		w, err := parseWant(msg.Data)
		if err != nil {
			l.c.logOnce("a want is dropped", errWant) // what it says may differ each time
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if !stopped && l.over() == nil {
			fn(w)
		}
	})
	if err != nil {
		return nil, failed("listen for wants", l.site, translate(context.Background(), err))
	}
	stop = func() {
		_ = sub.Unsubscribe() // fails only without a connection, which forgets it too
		mu.Lock()
		defer mu.Unlock()
		stopped = true
	}
	if err = sub.SetPendingLimits(wantsWaiting, wantsWaiting*maxWantBytes); err == nil {
		err = l.c.flush(context.Background(), exactly(subject))
	}
	if err != nil {
		stop()
		return nil, failed("listen for wants", l.site, err)
	}
	return stop, nil
}
