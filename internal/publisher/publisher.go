package publisher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"treecast/internal/events"
	"treecast/internal/source"
	"treecast/internal/stream"
	"treecast/internal/transfer"
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
	GCGrace       time.Duration // how long the bucket keeps what no entry names any more; 24 hours
	Nodes         []string      // whose consumers are made beforehand
	Stream        stream.Config
	Version       string
	Log           *slog.Logger
	Transfers     *transfer.Log // has a line for each published change; nil: nobody wants them

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
	tree   *source.Tree
	src    disk // the same
	codec  *events.Codec
	bodies sync.Pool // *[]byte, room for bodies that are read
	dirty  *dirtySet
	report *report

	watcher *source.Watcher // nil: nothing is watched

	inodes inodes
	root   identity
	floor  int // of the guard, until a scan passed it; owned by the rounds' goroutine
	part   int // see partEntries
}

// Run publishes until ctx ends, and returns nil then. It returns an error that
// no retry can mend: another publisher holds the lease or took it over, the
// root cannot be opened, the stream has a foreign configuration. Everything
// else is waited out.
func Run(ctx context.Context, conn *stream.Conn, o Options) error {
	root := &identity{}
	if connected(ctx, conn) != nil {
		return nil
	}
	if err := conn.TakesEntries(); err != nil {
		return err // later, a broker that takes less is no reason to stop: what fits goes on
	}
	for {
		if connected(ctx, conn) != nil {
			return nil
		}
		err := reign(ctx, conn, &o, root)
		o.ConfirmDelete = false // it was of the first reign
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, source.ErrRootLost):
			o.Log.Error("root lost: nothing is published or deleted until it is back", "path", o.Root, "err", err)
			if root.await(ctx, &o) != nil {
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

// connected returns when there is a connection.
func connected(ctx context.Context, conn *stream.Conn) error {
	for !conn.Connected() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-conn.Changed():
		}
	}
	return ctx.Err()
}

// An identity is which directory the root was when it was first opened.
type identity struct{ dev, ino uint64 }

func (was *identity) String() string { return fmt.Sprintf("device %d, inode %d", was.dev, was.ino) }

// await returns when the root is a directory again, on the device that it was
// on: an empty mount point, or another disk, is not the tree.
func (was *identity) await(ctx context.Context, o *Options) error {
	told := false
	for {
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Stat(o.Root, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		if st.Dev == was.dev {
			return nil
		}
		if !told {
			told = true
			o.Log.Error("halted: the root is on another device now; mount the one that it was on, or restart the publisher if this is right",
				"path", strconv.Quote(o.Root))
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
func open(conn *stream.Conn, o *Options) (*Publisher, error) {
	if o.ScanInterval <= 0 {
		o.ScanInterval = defaultScanInterval
	}
	if o.GCGrace <= 0 {
		o.GCGrace = defaultGrace
	}
	src, err := source.Open(source.Options{Root: o.Root, Filter: o.Filter, Specials: o.Specials, Nameless: o.NumericIDs, Log: o.Log})
	if err != nil {
		return nil, err
	}
	codec, err := events.NewCodec(runtime.GOMAXPROCS(0))
	if err != nil {
		return nil, errors.Join(err, src.Close())
	}
	return &Publisher{
		Options: *o, conn: conn, tree: src, src: src, codec: codec,
		dirty: newDirtySet(settleQuiet), report: newReport(o.Log),
	}, nil
}

// How long a path must be quiet before it is read: the kernel says whether
// someone still writes, but where it cannot be asked.
const (
	settleQuiet   = 2 * time.Millisecond
	settleUnasked = 50 * time.Millisecond
)

func (p *Publisher) close() error {
	p.codec.Close()
	return p.tree.Close()
}

// reign is one epoch: it watches the tree, takes the lease, learns what is
// published, and publishes what differs until something ends it.
func reign(ctx context.Context, conn *stream.Conn, o *Options, root *identity) (err error) {
	p, err := open(conn, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	m, err := p.src.Lstat(events.Path{})
	if err != nil {
		return err
	}
	p.root, p.floor, p.part = identity{m.Dev, m.Ino}, massDeleteFloor, partEntries
	if root.ino == 0 {
		*root = p.root
	}
	if *root != p.root {
		p.floor = 0
	}

	g, ctx := errgroup.WithContext(ctx)
	ready := make(chan struct{})
	p.watcher = source.NewWatcher(p.tree, p.dirty.Hint)
	g.Go(func() error { return p.watcher.Run(ctx, ready) })
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
	g.Go(func() error { return p.rescan(ctx) })
	return g.Wait()
}

// rescan hints the whole tree from time to time, a little off the interval so
// that hosts do not scan shared disks in step.
func (p *Publisher) rescan(ctx context.Context) error {
	for {
		jitter := rand.N(p.ScanInterval/4 + 1)
		if err := pause(ctx, p.ScanInterval-p.ScanInterval/8+jitter); err != nil {
			return err
		}
		p.watcher.Rewatch()
		p.dirty.Hint([]source.Hint{{Deep: true}})
	}
}
