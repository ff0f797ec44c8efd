package subscriber

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	// reconcile are applied.
	Progress func(done, total int)
}

const (
	defaultReconcile = 24 * time.Hour
	defaultScrubRate = 16 << 20
	// tombstoneLife is how long a deletion is to be read in a stream that does
	// not say it. A node that was away longer compares the whole tree.
	tombstoneLife = 30 * 24 * time.Hour
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
		Options: o, conn: conn, stream: conn, bucket: conn.Bodies(o.Site), ack: (*stream.Delivery).Ack,
		tree: tree, codec: codec, status: newStatus(&o, tree), reconciled: time.Now(),
	}, nil
}

func (s *subscriber) close() error {
	s.codec.Close()
	return s.tree.Close()
}

// ErrUnvouched reports a stream that says what was true once.
var ErrUnvouched = errors.New("the tree stays as it is until a publisher has compared the stream with the source")

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
		case errors.Is(err, stream.ErrNoStream):
			err = fmt.Errorf("%w; the publisher makes it: does it run, and is this its site?", err)
		}
		s.wait(err.Error())
		if err := pause(ctx, stream.Backoff(attempt)); err != nil {
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

// A need says why a session begins with a reconcile though the watermark fits.
type need string

const (
	notNeeded   need = ""
	foreignOnly need = "the stream was sealed: what is foreign can be told now"
	unmended    need = "the last one left large files to be fetched, or what failed"
	expired     need = "it is as long ago as deletions are kept: some may have been missed"
	whole       need = "it is time to"
)

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

// begin finds out where in the stream the tree stands, reconciles if that cannot
// be told or is needed, and returns what follows after its last message.
func (s *subscriber) begin(ctx context.Context, info stream.Info) (*follower, error) {
	mark, ok := s.tree.Watermark()
	lease, newer, err := s.history(ctx, mark)
	if err != nil {
		return nil, err
	}
	if mark.Lacking && s.needed == notNeeded {
		s.needed = unmended
	}
	if err := s.believable(ctx, mark, info, lease, newer); err != nil {
		return nil, err
	}
	f := newFollower(s, mark)
	if why := unfit(mark, ok, s.Site, info, lease, newer); s.needed != notNeeded || why != "" {
		// What we applied ourselves is read by the scrub, which has time.
		if why == "" {
			f.had = mark.Seq
		}
		if err := f.reconcile(ctx, cmp.Or(why, string(s.needed)), why != ""); err != nil {
			return nil, err
		}
		s.needed, s.reconciled = notNeeded, time.Now()
	} else {
		s.status.follow(mark, nil)
	}
	s.ConfirmDelete = false // it was of the first time
	return f, nil
}

// knownFor is for how long a deletion is surely to be read in the stream.
func knownFor(info stream.Info) time.Duration {
	life := cmp.Or(info.TombstoneTTL, tombstoneLife)
	return life - life/16
}

// How much a node asks for at once; a group is no larger either.
const (
	pullMessages = 1000
	pullBytes    = 16 << 20
)

// unfit says why the watermark does not tell where in the stream the tree
// stands; "" if it does.
func unfit(mark apply.Watermark, ok bool, site events.Site, info stream.Info, lease, newer uint64) string {
	switch {
	case !ok:
		return "the tree has no watermark"
	case mark.Site != site:
		return fmt.Sprintf("the tree was of site %s", mark.Site)
	case info.Now.Sub(mark.Time) > knownFor(info):
		return "the node was away longer than deletions are kept"
	}
	return moved(mark, info, lease, newer)
}

// moved says why the stream is not the one that the watermark is of; "" if it
// is.
func moved(mark apply.Watermark, info stream.Info, lease, newer uint64) string {
	if !mark.Stream.Equal(info.Created) {
		return "the stream is another one"
	}
	return wentBack(mark, info, lease, newer)
}

// wentBack says how the stream that the watermark is of lost what the node knew;
// "" if it did not, or is another one.
func wentBack(mark apply.Watermark, info stream.Info, lease, newer uint64) string {
	known := max(mark.Seq, mark.Known)
	switch {
	case !mark.Stream.Equal(info.Created):
		return ""
	case known > info.LastSeq:
		return fmt.Sprintf("the stream went back from %d to %d", known, info.LastSeq)
	case lease <= known && lease > mark.Epoch:
		return fmt.Sprintf("the stream went back, and on: the lease %d is new to us, who are at %d", lease, known)
	case newer != 0 && newer <= known:
		return fmt.Sprintf("the stream went back, and on: message %d came later than what we know, who are at %d", newer, known)
	}
	return ""
}

// history returns what tells whether the stream is still the one that the
// watermark is of: the newest lease, and the first message that was stored after
// all that the watermark knows of; 0 if there is none.
func (s *subscriber) history(ctx context.Context, mark apply.Watermark) (lease, newer uint64, err error) {
	if lease, err = s.stream.LeaseSeq(ctx, s.Site); err != nil || mark.Last.IsZero() {
		return lease, 0, err
	}
	newer, err = s.stream.FirstAfter(ctx, s.Site, mark.Last)
	return lease, newer, err
}

// believable returns ErrUnvouched if the stream went back and no publisher has
// scanned the source since. Until then it says what was true once: it lacks files
// that are here and at the source, and has their tombstones.
func (s *subscriber) believable(ctx context.Context, mark apply.Watermark, info stream.Info, lease, newer uint64) error {
	why := wentBack(mark, info, lease, newer)
	if why == "" {
		return nil
	}
	root, err := s.stream.Entry(ctx, s.Site, events.Path{})
	if err == nil && !vouches(root, mark) {
		err = fmt.Errorf("%s; %w", why, ErrUnvouched)
	}
	return err
}

// vouches reports whether the root's entry came after all that the node knew, and
// so from a publisher that has scanned the source since: by its time, or, for a
// server's clock may have been set back, by its number.
func vouches(root *stream.Delivery, mark apply.Watermark) bool {
	return root != nil && (root.Time.After(mark.Last) || root.Seq > max(mark.Seq, mark.Known))
}

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
