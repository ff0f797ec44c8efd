package source

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

// A fence tells which events were made before a moment. It is a file of ours
// in memory, watched by the same fsnotify watcher as the tree: its mode is set,
// and when that comes back as an event, so has everything older, for inotify
// keeps the order. At most one mark is under way.
//
// The barriers that wait, the paths whose watches were dropped, and the names
// that went belong to a generation; a mark closes it. An event under a dropped
// path is of the watch that was dropped only until then. And by then the name
// that something was renamed to has come, for inotify tells of it next.
type fence struct {
	fd      int
	path    string
	now     uint64 // the generation that collects
	mark    uint64 // the generation that the mark under way closes
	marked  bool
	waiting []barrier
	dropped map[events.Path]uint64
	gone    map[events.Path]departure
}

type barrier struct {
	passed     chan struct{}
	generation uint64
	again      bool // it waits for what went before its own mark came
}

// A departure is a name that went, perhaps to another one.
type departure struct {
	deep       bool // it was a directory's
	generation uint64
}

func newFence() (fence, error) {
	fd, err := unix.MemfdCreate("treecast-fence", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before 6.3
		fd, err = unix.MemfdCreate("treecast-fence", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return fence{}, fmt.Errorf("watch: memfd_create: %w", err)
	}
	return fence{fd: fd, path: "/proc/self/fd/" + strconv.Itoa(fd), dropped: make(map[events.Path]uint64), gone: make(map[events.Path]departure)}, nil
}

func (f *fence) close() { _ = unix.Close(f.fd) }

// reset is for a new fsnotify watcher, which has no old events. All of the tree
// is looked at then, also what went.
func (f *fence) reset() {
	f.marked = false
	clear(f.dropped)
	clear(f.gone)
	if len(f.waiting) > 0 {
		f.set()
	}
}

// await puts a barrier behind everything that has happened.
func (f *fence) await(passed chan struct{}) {
	f.waiting = append(f.waiting, barrier{passed, f.now, false})
	f.set()
}

// drop remembers that the watches at and under p were dropped.
func (f *fence) drop(p events.Path) {
	f.dropped[p] = f.now
	f.set()
}

// went remembers that a name went. One that goes again and again is not held
// for longer.
func (f *fence) went(p events.Path, deep bool) {
	d, ok := f.gone[p]
	if !ok {
		d.generation = f.now
	}
	d.deep = d.deep || deep
	f.gone[p] = d
	f.set()
}

// holds reports whether names that went wait for a mark.
func (f *fence) holds() bool { return len(f.gone) > 0 }

// set makes the mark, unless one is under way: then the next follows it.
func (f *fence) set() {
	if f.marked {
		return
	}
	f.mark, f.marked = f.now, true
	f.now++
	_ = unix.Fchmod(f.fd, 0o600) // of a memfd of ours: cannot fail
}

// came is called with the mark's event and returns the barriers passed, and
// hints for the names that went before it.
func (f *fence) came() (passed []chan struct{}, gone []Hint) {
	f.marked = false
	for p, generation := range f.dropped {
		if generation <= f.mark {
			delete(f.dropped, p)
		}
	}
	for p, d := range f.gone {
		if d.generation <= f.mark {
			gone = append(gone, Hint{p, d.deep})
			delete(f.gone, p)
		}
	}
	still := f.waiting[:0]
	for _, b := range f.waiting {
		switch {
		case b.generation > f.mark:
			still = append(still, b)
		case f.holds() && !b.again:
			still = append(still, barrier{b.passed, f.now, true})
		default:
			passed = append(passed, b.passed)
		}
	}
	f.waiting = still
	if len(f.waiting) > 0 || len(f.dropped) > 0 || f.holds() {
		f.set()
	}
	return passed, gone
}

// stale reports whether an event at p may be of a watch that was dropped.
func (f *fence) stale(p events.Path) bool {
	for len(f.dropped) > 0 && !p.IsRoot() {
		if _, ok := f.dropped[p]; ok {
			return true
		}
		p = p.Parent()
	}
	return false
}
