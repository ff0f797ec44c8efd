package publisher

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"treecast/internal/events"
	"treecast/internal/source"
	"treecast/internal/stream"
)

// ErrMassDelete reports that a scan would delete most of what is published.
// Nothing is published until the paths are back, or the operator starts the
// publisher with --confirm-delete.
var ErrMassDelete = errors.New("mass deletion held back")

// Options say what to publish and where. Zero durations stand for the
// defaults named there.
type Options struct {
	Site          events.Site
	Root          string
	Filter        *source.Filter
	Specials      bool          // FIFOs, sockets and devices too
	NumericIDs    bool          // send no owners' and groups' names
	Takeover      bool          // although another publisher lives
	ConfirmDelete bool          // the first scan may delete most of the tree
	ScanInterval  time.Duration // between full scans; 10 minutes
	Nodes         []string      // whose consumers are made beforehand
	Stream        stream.Config
	Log           *slog.Logger

	// Progress, if not nil, is told how many of a round's changes are
	// published; a round of less than 1,000 is not told of.
	Progress func(done, total int)
}

const defaultScanInterval = 10 * time.Minute

// A Publisher publishes one source tree. Its fields are set before Run and
// not changed after; what changes is owned as its comment says.
type Publisher struct {
	Options
	conn   *stream.Conn
	src    *source.Tree
	codec  *events.Codec
	dirty  *dirtySet
	report *report

	confirmed bool // the operator's word was used; owned by the rounds' goroutine
}

// Run publishes until ctx ends, and returns nil then. It returns an error that
// no retry can mend: another publisher holds the lease or took it over, the
// root cannot be opened, the stream has a foreign configuration. Everything
// else is waited out.
func Run(ctx context.Context, conn *stream.Conn, o Options) error {
	for {
		err := reign(ctx, conn, o)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, source.ErrRootLost):
			o.Log.Error("root lost: nothing is published or deleted until it is back", "path", o.Root, "err", err)
			if err := awaitRoot(ctx, o.Root); err != nil {
				return nil
			}
			o.Log.Info("root is back, scanning", "path", o.Root)
		case errors.Is(err, errAgain):
			o.Log.Warn("starting over from the stream", "err", err)
			if pause(ctx, time.Second) != nil {
				return nil
			}
		default:
			return err
		}
		o.Takeover = false
	}
}

// errAgain reports that what is known of the stream may be wrong: it went
// back, is another one, or could not be read. A new reign finds out.
var errAgain = errors.New("the stream must be read again")

// awaitRoot returns when root is a directory again.
func awaitRoot(ctx context.Context, root string) error {
	for {
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
		if fi, err := os.Stat(root); err == nil && fi.IsDir() {
			return nil
		}
	}
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

// open returns a publisher on its source, without a lease or a watcher.
func open(conn *stream.Conn, o Options) (*Publisher, error) {
	if o.ScanInterval <= 0 {
		o.ScanInterval = defaultScanInterval
	}
	src, err := source.Open(source.Options{Root: o.Root, Filter: o.Filter, Specials: o.Specials, Log: o.Log})
	if err != nil {
		return nil, err
	}
	codec, err := events.NewCodec(runtime.GOMAXPROCS(0))
	if err != nil {
		return nil, errors.Join(err, src.Close())
	}
	settle := settleWithLease
	if !src.Leases() {
		settle = settleWithout
	}
	return &Publisher{
		Options: o, conn: conn, src: src, codec: codec,
		dirty: newDirtySet(settle), report: newReport(o.Log),
	}, nil
}

// How long a path must be quiet before it is read: with a lease the kernel
// says whether someone still writes.
const (
	settleWithLease = 2 * time.Millisecond
	settleWithout   = 50 * time.Millisecond
)

func (p *Publisher) close() error {
	p.codec.Close()
	return p.src.Close()
}

// reign is one epoch: it watches the tree, takes the lease, learns what is
// published, and publishes what differs until something ends it.
func reign(ctx context.Context, conn *stream.Conn, o Options) (err error) {
	p, err := open(conn, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()

	g, ctx := errgroup.WithContext(ctx)
	ready := make(chan struct{})
	watcher := source.NewWatcher(p.src, p.dirty.Hint)
	g.Go(func() error { return watcher.Run(ctx, ready) })
	g.Go(func() error {
		select {
		case <-ready:
		case <-ctx.Done():
			return ctx.Err()
		}
		p.dirty.Hint([]source.Hint{{Deep: true}}) // watches first, then the scan
		s, err := p.begin(ctx)
		if err != nil {
			return err
		}
		defer s.end()
		return s.run(ctx)
	})
	g.Go(func() error { return p.rescan(ctx, watcher) })
	return g.Wait()
}

// rescan hints the whole tree from time to time, a little off the interval so
// that hosts do not scan shared disks in step.
func (p *Publisher) rescan(ctx context.Context, w *source.Watcher) error {
	for {
		jitter := rand.N(p.ScanInterval/4 + 1)
		if err := pause(ctx, p.ScanInterval-p.ScanInterval/8+jitter); err != nil {
			return err
		}
		w.Rewatch()
		p.dirty.Hint([]source.Hint{{Deep: true}})
	}
}
