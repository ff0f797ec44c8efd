package source

import (
	"errors"
	"fmt"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// A backend is one fsnotify watcher. Its methods are for one goroutine.
//
// fsnotify 1.10.1 sends an error while it holds the lock that its Add and
// Remove take (for a directory that was renamed and then removed, before it
// came to the first), so that whoever calls those must not be the one who
// reads the errors. Hence a goroutine that does nothing else.
type backend struct {
	*fsnotify.Watcher
	errs  chan error    // cap 1: one is as bad as many
	still chan struct{} // taken by drain when it has nothing in hand
}

const eventBuffer = 4096 // events that fsnotify's reader may be ahead

// newBackend starts a watcher. The error is [ErrInstanceLimit] if that is why
// it cannot.
func newBackend() (*backend, error) {
	fsn, err := fsnotify.NewBufferedWatcher(eventBuffer)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		err = fmt.Errorf("%w: %w", ErrInstanceLimit, err)
	}
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	b := &backend{fsn, make(chan error, 1), make(chan struct{})}
	go b.drain()
	return b, nil
}

// drain runs until the watcher is closed, and closes errs.
func (b *backend) drain() {
	defer close(b.errs)
	for {
		select {
		case b.still <- struct{}{}:
		case err, ok := <-b.Watcher.Errors:
			if !ok {
				return
			}
			if err == unix.EINVAL {
				continue // of inotify_rm_watch: the watch is gone already, nothing is lost
			}
			select {
			case b.errs <- err:
			default:
			}
		}
	}
}

// trouble returns an error that fsnotify sent before an event that was taken
// from it, nil if there is none: of two channels, the later one may be read first.
func (b *backend) trouble() error {
	select {
	case <-b.still: // what drain had in hand is in errs
	case err, ok := <-b.errs:
		if !ok {
			return fsnotify.ErrClosed
		}
		return err
	}
	select {
	case err, ok := <-b.errs:
		if !ok {
			return fsnotify.ErrClosed
		}
		return err
	default:
		return nil
	}
}

// Close ends the watcher and its goroutines, and returns when they have.
func (b *backend) Close() error {
	err := b.Watcher.Close()
	for range b.errs {
	}
	return err
}

// watchError puts the errors of adding a watch in this package's terms.
func watchError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM) {
		return errors.Join(ErrWatchLimit, err)
	}
	return err
}
