package subscriber

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"treecast/internal/apply"
	"treecast/internal/events"
	"treecast/internal/source"
	"treecast/internal/stream"
	"treecast/internal/transfer"
)

// ErrMassDelete reports that reconciling would remove most of what stands in
// the root. Nothing is written until the stream has it, or the operator starts
// the node with --confirm-delete.
var ErrMassDelete = errors.New("mass deletion held back")

// Options say which tree to keep. Zero durations stand for the defaults named
// there.
type Options struct {
	Site          events.Site
	Node          string
	Root          string
	NumericIDs    bool
	Specials      bool
	Foreign       apply.Foreign
	Protect       *source.Filter // foreign paths that stay; nil: none
	TrashKeep     time.Duration
	ConfirmDelete bool          // the first reconcile may remove most of the tree
	Reconcile     time.Duration // between reconciles of a running node; 24 hours
	Scrub         time.Duration // within which a node reads all of its tree; 0: never
	ScrubRate     int64         // bytes of it a second; 0: 16 MiB
	Version       string
	Log           *slog.Logger
	Transfers     *transfer.Log // has a line for each change; nil: nobody wants them

	// Progress, if not nil, is told how many of the entries that differ at a
	// reconcile are applied, or of those that an empty tree is to get.
	Progress func(done, total int)
}

const (
	defaultReconcile = 24 * time.Hour
	defaultScrubRate = 16 << 20
)

func (o *Options) applyOptions(codec *events.Codec) apply.Options {
	return apply.Options{
		Root: o.Root, Site: o.Site, Node: o.Node, NumericIDs: o.NumericIDs, Specials: o.Specials,
		Foreign: o.Foreign, TrashKeep: o.TrashKeep, Codec: codec, Log: o.Log,
	}
}

// A subscriber is one node. What changes in it is owned by the goroutine that
// runs sessions, or by the status, which has a lock.
type subscriber struct {
	Options
	conn       *stream.Conn // nil: a [Replica]'s
	stream     Stream
	bucket     Bucket
	ack        func(*stream.Delivery) error
	tree       *apply.Tree
	codec      *events.Codec
	status     *status
	needed     need      // a reconcile, though the watermark fits
	reconciled time.Time // when the tree was last compared, or the program was started
	waiting    string    // what it waits for, logged once

	looked atomic.Uint64 // the connection's reconnects when the stream was last looked at
}

// Run keeps the tree until ctx ends, and returns nil then. It returns an error
// that no retry can mend: the root cannot be used, another subscriber has it,
// the broker does not accept us. Everything else is waited out: a consumer
// that we may not create, too, since the publisher may make it yet.
func Run(ctx context.Context, conn *stream.Conn, o Options) (err error) {
	root, err := os.Stat(o.Root)
	if err != nil {
		return err
	}
	s, err := open(conn, o, apply.Open)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return watchRoot(ctx, s.Root, root) })
	g.Go(func() error {
		if err := s.alone(ctx); err != nil {
			return err
		}
		g.Go(func() error { return s.status.keep(ctx, conn) })
		g.Go(func() error { return s.status.answer(ctx, conn) })
		return s.run(ctx)
	})
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func open(conn *stream.Conn, o Options, openTree func(apply.Options) (*apply.Tree, error)) (*subscriber, error) {
	if o.Reconcile <= 0 {
		o.Reconcile = defaultReconcile
	}
	o.ScrubRate = cmp.Or(o.ScrubRate, defaultScrubRate)
	codec, err := events.NewCodec(runtime.GOMAXPROCS(0))
	if err != nil {
		return nil, err
	}
	tree, err := openTree(o.applyOptions(codec))
	if err != nil {
		codec.Close()
		return nil, err
	}
	return &subscriber{
		Options: o, conn: conn, stream: nodeStream{conn, o.Node}, bucket: conn.Bodies(o.Site), ack: (*stream.Delivery).Ack,
		tree: tree, codec: codec, status: newStatus(&o, tree), reconciled: time.Now(),
	}, nil
}

func (s *subscriber) close() error {
	s.codec.Close()
	return s.tree.Close()
}

// ErrRootReplaced reports that the root is not the directory any more that is
// kept: what is applied is not what is served.
var ErrRootReplaced = errors.New("the root directory was replaced")

// rootInterval is between two looks at the root.
const rootInterval = 10 * time.Second

// watchRoot returns ErrRootReplaced when root is not the directory was.
func watchRoot(ctx context.Context, root string, was os.FileInfo) error {
	for {
		if err := pause(ctx, rootInterval); err != nil {
			return err
		}
		now, err := os.Stat(root)
		if err != nil {
			return fmt.Errorf("%w: %w; start again when it is back", ErrRootReplaced, err)
		}
		if !os.SameFile(was, now) {
			return fmt.Errorf("%w: %q; start again, and the new one is compared", ErrRootReplaced, root)
		}
	}
}

// gotGoing is how long a session lasts that had got going.
const gotGoing = 10 * time.Second

// untilStream is the longest between two looks for a stream that is not there: a
// node that waits for its site's first publisher is to have what that sends
// while it sends it.
const untilStream = 250 * time.Millisecond

// run is one session after the other: each finds out where the node stands. After
// one that did not get going it waits longer than after the one before.
func (s *subscriber) run(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		began := time.Now()
		err := s.session(ctx)
		if time.Since(began) > gotGoing {
			attempt = 1
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case s.again(err):
			continue
		case errors.Is(err, stream.ErrAuth), errors.Is(err, stream.ErrServer):
			return err
		}
		delay := stream.Backoff(attempt)
		if errors.Is(err, stream.ErrNoStream) {
			err = fmt.Errorf("%w; the publisher makes it: does it run, and is this its site?", err)
			delay = min(delay, untilStream/2+rand.N(untilStream/2))
		}
		s.wait(err.Error())
		if err := pause(ctx, delay); err != nil {
			return err
		}
	}
}

// again reports whether a session ended for the tree to be compared, and notes
// why the next one begins with that.
func (s *subscriber) again(err error) bool {
	switch {
	case errors.Is(err, errSealed):
		s.needed = foreignOnly
	case errors.Is(err, errDue):
		s.needed = whole
	case errors.Is(err, errExpired):
		s.needed = expired
	default:
		return false
	}
	return true
}

// wait logs what the node waits for, once per cause.
func (s *subscriber) wait(cause string) {
	if cause != s.waiting && cause != "" {
		s.Log.Warn("nothing is applied now, will try again", "site", s.Site, "err", cause)
	}
	s.waiting = cause
	s.status.setHalted(cause)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

var (
	// errDue ends a session whose tree is to be compared again.
	errDue = errors.New("a reconcile is due")
	// errExpired ends one that followed for as long as deletions are kept. If it
	// was out of reach meanwhile it did not get all of them.
	errExpired = errors.New("deletions may have expired")
)

// session follows the stream until ctx ends, a reconcile is due, or something
// breaks that a new session may mend.
func (s *subscriber) session(ctx context.Context) error {
	s.looked.Store(s.conn.Reconnects())
	info, err := s.conn.StreamInfo(ctx, s.Site)
	if err != nil {
		return err
	}
	consumer, err := s.conn.OpenConsumer(ctx, s.Site, s.Node, stream.NodeConfig{Version: s.Version})
	if err != nil {
		return err
	}
	f, err := s.begin(ctx, info)
	if err != nil {
		return err
	}
	if err := consumer.Reset(ctx, f.last+1); err != nil {
		return err
	}
	s.Log.Info("following", "site", s.Site, "node", s.Node, "path", strconv.Quote(s.Root), "seq", f.last)
	s.wait("")

	due, life := errDue, knownFor(info)
	if life < s.Reconcile {
		due = errExpired
	}
	ctx, cancel := context.WithDeadline(ctx, s.reconciled.Add(min(s.Reconcile, life)))
	defer cancel()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.run(gctx) })
	g.Go(func() error {
		return consumer.Run(gctx, pullMessages, pullBytes, func(d stream.Delivery) {
			if s.awaitLook(gctx) == nil {
				f.put(gctx, d)
			}
		})
	})
	g.Go(func() error { return f.scrub(gctx) })
	g.Go(func() error { return s.watchStream(gctx) })
	err = g.Wait()
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		return due
	}
	return err
}

// How much a node asks for at once; a group is no larger either.
const (
	pullMessages = 1000
	pullBytes    = 16 << 20
)

// watchStream looks at the stream after each reconnect.
func (s *subscriber) watchStream(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.conn.Changed():
		}
		now := s.conn.Reconnects()
		if now == s.looked.Load() {
			continue
		}
		info, err := s.conn.StreamInfo(ctx, s.Site)
		if err != nil {
			return err
		}
		mark, _ := s.tree.Watermark()
		lease, newer, err := s.history(ctx, mark)
		if err != nil {
			return err
		}
		if why := moved(mark, info, lease, newer); why != "" {
			return errors.New(why)
		}
		s.looked.Store(now)
	}
}

// awaitLook returns nil when the stream was looked at since the connection came
// back: a watermark that went on with a stream that had gone back would hide it.
func (s *subscriber) awaitLook(ctx context.Context) error {
	for s.looked.Load() != s.conn.Reconnects() {
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
