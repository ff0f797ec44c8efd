package subscriber

import (
	"context"
	"errors"
	"fmt"
	"time"

	"treecast/internal/apply"
	"treecast/internal/events"
	"treecast/internal/stream"
)

// Stream is what a node reads of its site's stream beside what its consumer
// delivers. [stream.Conn] says what each method promises.
type Stream interface {
	StreamInfo(ctx context.Context, site events.Site) (stream.Info, error)
	LeaseSeq(ctx context.Context, site events.Site) (uint64, error)
	FirstAfter(ctx context.Context, site events.Site, t time.Time) (uint64, error)
	Snapshot(ctx context.Context, site events.Site, fn func(seq uint64, subject, header string) error) (stream.Info, error)
	Entry(ctx context.Context, site events.Site, path events.Path) (*stream.Delivery, error)
	MayHave(ctx context.Context, site events.Site, path events.Path) (bool, error)
	Fetch(ctx context.Context, site events.Site, wanted []stream.Wanted, fn func(stream.Delivery) error) error
}

// nodeStream is a connection as a node's stream.
type nodeStream struct {
	*stream.Conn
	node string
}

// Snapshot is [stream.Conn.NodeSnapshot].
func (s nodeStream) Snapshot(ctx context.Context, site events.Site, fn func(seq uint64, subject, header string) error) (stream.Info, error) {
	return s.NodeSnapshot(ctx, site, s.node, fn)
}

// Bucket is where a node gets chunks, and asks for what is missing. See
// [stream.Bodies].
type Bucket interface {
	Get(ctx context.Context, digests []events.Digest, fn func(place int, data []byte, compressed bool) error) error
	Want(ctx context.Context, node string, path events.Path, digests []events.Digest) error
}

// A Replica is a node whose caller has the broker's part, and the clock's: it
// decides what is delivered, and when what is held is tried again. It does what
// [Run] does, one call after the other, so that a model can drive it.
//
// One goroutine at a time.
type Replica struct {
	s *subscriber
	f *follower
}

// NewReplica returns a node of tree, which it closes. acked is told of each
// message that need not come again.
func NewReplica(from Stream, bucket Bucket, tree *apply.Tree, o Options, acked func(seq uint64)) (*Replica, error) {
	s, err := open(nil, o, func(apply.Options) (*apply.Tree, error) { return tree, nil })
	if err != nil {
		return nil, err
	}
	s.stream, s.bucket = from, bucket
	s.ack = func(d *stream.Delivery) error {
		acked(d.Seq)
		return nil
	}
	return &Replica{s: s}, nil
}

// ErrAgain reports that the tree is to be compared: Begin does it.
var ErrAgain = errors.New("begin again")

// Begin finds out where the tree stands, and reconciles it if that must be. The
// next message to deliver is the first that lives after seq. [ErrUnvouched] says
// to begin again later, and not to deliver before.
func (r *Replica) Begin(ctx context.Context) (seq uint64, err error) {
	info, err := r.s.stream.StreamInfo(ctx, r.s.Site)
	if err != nil {
		return 0, err
	}
	if r.f, err = r.s.begin(ctx, info); err != nil {
		return 0, err
	}
	return r.f.last, nil
}

// Deliver applies messages as one group. An error ends the session: with
// [ErrAgain], or since something broke, Begin is next.
func (r *Replica) Deliver(ctx context.Context, messages []stream.Delivery) error {
	group := make([]*item, len(messages))
	for i, d := range messages {
		group[i] = &item{delivery: d, ready: make(chan struct{})}
		group[i].stage(ctx, r.s.Site, r.s.tree)
		defer group[i].discard()
	}
	return r.ended(r.f.deliver(ctx, group))
}

// Retry fetches bodies and tries what is held. Errors are those of Deliver.
func (r *Replica) Retry(ctx context.Context) error {
	err := r.f.retry(ctx)
	if err == nil {
		err = r.f.tryFreed(ctx)
	}
	if err == nil {
		err = r.f.finish(ctx)
	}
	return r.ended(err)
}

// Scrub reads the whole tree, meanwhile being between a look at the stream and
// the one at the tree, and mends what differs though it was applied; it ends where
// meanwhile says false, or the session has ended. Errors are those of Deliver.
func (r *Replica) Scrub(ctx context.Context, meanwhile func() bool) error {
	f := r.f
	s := &scrubber{f: f, pace: pacer{rate: f.ScrubRate}}
	wanted, err := s.wanted(ctx)
	if err != nil {
		return r.ended(err)
	}
	if !meanwhile() || r.f != f {
		return nil
	}
	var doubted []*item
	for _, w := range wanted {
		// What cannot be looked at is left to another scrub.
		if difference, err := f.tree.Check(ctx, &w.entry, func(context.Context, int) error { return nil }); err == nil && difference != "" {
			doubted = append(doubted, s.item(w, difference))
		}
	}
	return r.ended(f.recheck(ctx, doubted))
}

func (r *Replica) ended(err error) error {
	if r.s.again(err) {
		return fmt.Errorf("%w: %w", ErrAgain, err)
	}
	return err
}

// Held counts the entries that wait to be applied.
func (r *Replica) Held() int { return len(r.f.holdings.list) }

// Compare has the next Begin compare the whole tree.
func (r *Replica) Compare() { r.s.needed = whole }

// Close lets go of the tree.
func (r *Replica) Close() error { return r.s.close() }
