package source

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

// DefaultPollInterval is how often a subtree that cannot be watched is looked
// at, and whether the root still is the root.
const DefaultPollInterval = 2 * time.Second

// Options says which tree, and what of it.
type Options struct {
	Root     string       // symlinks in it are followed once, by Open and by Check
	Filter   *Filter      // nil: nothing is excluded
	Specials bool         // FIFOs, sockets and devices are entries, not skipped
	Nameless bool         // entries have owners' and groups' numbers only
	Log      *slog.Logger // nil: nothing is logged

	// PollInterval replaces [DefaultPollInterval] if it is positive.
	PollInterval time.Duration

	// KeepLimits leaves the host's inotify limits as they are. Without it a
	// [Watcher] raises fs.inotify.max_queued_events where it may.
	KeepLimits bool
}

// A Tree is the source tree, held by its root. Its methods may be called from
// many goroutines at once, but none during or after Close.
type Tree struct {
	opts   Options
	log    *slog.Logger
	root   string // absolute
	fd     int    // O_PATH: for what is below it, and to keep the inode from being reused
	dev    uint64
	ino    uint64
	clock  clock
	names  *names
	dirbuf sync.Pool // *[]byte for getdents64
	bodies sync.Pool // *[]byte for chunks, of the largest size of some average

	leaseWorked  atomic.Bool
	leaseRefused atomic.Bool
	clamped      sync.Once // a time out of the wire's range was logged
}

// Open holds the directory that o.Root names now. It changes nothing, on disk
// or in the system.
func Open(o Options) (*Tree, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.PollInterval <= 0 {
		o.PollInterval = DefaultPollInterval
	}
	root, err := filepath.Abs(o.Root)
	if err != nil {
		return nil, fmt.Errorf("source root: %w", err)
	}
	fd, err := retry(func() (int, error) {
		return unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, fmt.Errorf("source root %q: %w", root, err)
	}
	t := &Tree{opts: o, log: o.Log, root: root, fd: fd, names: newNames(o.Nameless)}
	t.dirbuf.New = func() any { b := make([]byte, 64<<10); return &b }
	if err := t.identify(); err != nil {
		_ = unix.Close(fd) // nothing was written through it
		return nil, fmt.Errorf("source root %q: %w", root, err)
	}
	return t, nil
}

// identify remembers which directory the root is, and tries openat2 on it.
func (t *Tree) identify() error {
	var stx unix.Statx_t
	if err := statx(t.fd, "", unix.AT_EMPTY_PATH, &stx); err != nil {
		return err
	}
	t.dev, t.ino = unix.Mkdev(stx.Dev_major, stx.Dev_minor), stx.Ino
	t.clock = clockOf(stx.Mnt_id)
	fd, err := t.openat2(events.Path{}, unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return fmt.Errorf("openat2 (Linux 5.6, and allowed by the container's seccomp profile) is needed: %w", err)
	}
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// Close lets go of the root. The tree must not be used afterwards.
func (t *Tree) Close() error { return unix.Close(t.fd) }

// Check says with [ErrRootLost] that the root's path no longer names the held
// directory. Another error says that it cannot be told.
func (t *Tree) Check() error {
	var st unix.Stat_t
	_, err := retry(func() (int, error) { return 0, unix.Stat(t.root, &st) })
	switch {
	case err == nil && st.Dev == t.dev && st.Ino == t.ino:
		return nil
	case err == nil:
		return fmt.Errorf("%w: %q is another directory than at the start", ErrRootLost, t.root)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%w: %q: %w", ErrRootLost, t.root, err)
	}
	return fmt.Errorf("check root %q: %w", t.root, err)
}
