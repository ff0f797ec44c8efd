package publisher

import (
	"sync"
	"time"

	"treecast/internal/events"
	"treecast/internal/source"
)

// settleCap is the longest that a path waits while hints keep coming.
const settleCap = time.Second

// A dirtySet holds the paths to look at, each once however often it was
// hinted. It may be used from many goroutines.
//
// Each hint belongs to a generation, and a path to that of the oldest of its
// hints that is not answered: a barrier closes a generation, and is passed when
// nothing of it, or of an older one, is left.
type dirtySet struct {
	settle time.Duration // quiet before a path is looked at
	wake   chan struct{} // cap 1: something was added

	mu    sync.Mutex
	marks map[events.Path]mark
	now   uint64 // the generation that collects
}

// A mark says why and when a dirty path is due.
type mark struct {
	deep     bool
	attempts int
	first    time.Time // of the hints that are not answered yet
	due      time.Time
	since    uint64 // their oldest generation; 0: older than all
}

// A task is a dirty path that was taken out to be looked at.
type task struct {
	path     events.Path
	deep     bool
	attempts int // looks that failed so far
	since    uint64
}

func newDirtySet(settle time.Duration) *dirtySet {
	return &dirtySet{settle: settle, wake: make(chan struct{}, 1), marks: make(map[events.Path]mark), now: 1}
}

// Hint adds what hints name; each moves its path's due time to settle from
// now, but not beyond settleCap after the first.
func (d *dirtySet) Hint(hints []source.Hint) {
	d.mu.Lock()
	d.hint(hints, d.now)
	d.mu.Unlock()
	d.signal()
}

// Again is Hint for what a round found to have moved on: whatever hint led to
// it is not answered, so that no barrier is passed before it is.
func (d *dirtySet) Again(h source.Hint) {
	d.mu.Lock()
	d.hint([]source.Hint{h}, 0)
	d.mu.Unlock()
	d.signal()
}

func (d *dirtySet) hint(hints []source.Hint, since uint64) {
	now := time.Now()
	for _, h := range hints {
		m, ok := d.marks[h.Path]
		if !ok {
			m.first, m.since = now, since
		}
		m.since = min(m.since, since)
		m.deep = m.deep || h.Deep
		m.due = now.Add(d.settle)
		if limit := m.first.Add(settleCap); m.due.After(limit) {
			m.due = limit
		}
		d.marks[h.Path] = m
	}
}

// Retry puts a task back, due after a backoff that doubles with each attempt
// from the settling time up to longest. A hint brings it forward.
func (d *dirtySet) Retry(t task, longest time.Duration) {
	t.attempts++
	wait := min(d.settle<<min(t.attempts, 20), longest)
	now := time.Now()
	d.mu.Lock()
	m, ok := d.marks[t.path]
	if !ok {
		m.first, m.due, m.since = now, now.Add(wait), t.since
	}
	m.since = min(m.since, t.since)
	m.deep = m.deep || t.deep
	m.attempts = max(m.attempts, t.attempts)
	d.marks[t.path] = m
	d.mu.Unlock()
	d.signal()
}

func (d *dirtySet) signal() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Take removes and returns what is due at now, and says how long until the
// next is; a negative wait means that the set is empty.
func (d *dirtySet) Take(now time.Time) (tasks []task, wait time.Duration) {
	wait = -1
	d.mu.Lock()
	defer d.mu.Unlock()
	for path, m := range d.marks {
		if left := m.due.Sub(now); left > 0 {
			if wait < 0 || left < wait {
				wait = left
			}
			continue
		}
		tasks = append(tasks, task{path, m.deep, m.attempts, m.since})
		delete(d.marks, path)
	}
	return tasks, wait
}

// Close ends the generation that collects, and returns it: every hint so far is
// of it or of an older one.
func (d *dirtySet) Close() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now++
	return d.now - 1
}

// Left reports whether a path is dirty by a hint of that generation or an older
// one. What was taken is not counted.
func (d *dirtySet) Left(generation uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.marks {
		if m.since <= generation {
			return true
		}
	}
	return false
}

// Len counts the dirty paths.
func (d *dirtySet) Len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.marks)
}
