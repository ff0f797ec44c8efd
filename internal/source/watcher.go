package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"

	"treecast/internal/events"
)

// A Watcher turns changes in a tree into hints. Run does the work; the other
// methods may be called from any goroutine.
type Watcher struct {
	tree *Tree
	log  *slog.Logger
	give func([]Hint)

	// Shared.
	rewatch chan struct{}      // cap 1: a check is wanted
	syncs   chan chan struct{} // each is closed when its barrier is passed
	done    chan struct{}      // closed when Run has returned
	stop    sync.Once
	state   atomic.Pointer[WatchState]

	// Owned by Run's goroutine.
	fsn     *backend // nil between a failure to make one and the next attempt
	base    string   // the held root's path for fsnotify
	root    *node
	inodes  map[uint64]*node // the watched ones
	polling map[*node]bool   // what has no watch
	watches int              // nodes that are watched
	work    []visit          // a stack
	burst   burst
	gone    burst     // names that went, when what they went to is known: see flush
	goneAt  time.Time // of the first of them
	fence   fence
	marked  bool              // its mark came since the last flush
	passed  []chan struct{}   // barriers to report once there is no work
	ended   []chan<- struct{} // of jobs that someone waits for
	rescans int
	full    bool // the limit of watches was hit since the last tick
	warned  bool // of polling
	lost    bool // the root
	renewed time.Time
	renewAt <-chan time.Time // nil: no renewal is due
	changed bool             // the state, since it was published
	told    time.Time        // when it was
}

// A WatchState is how well the tree is watched.
type WatchState struct {
	Watches  int      // directories with a watch
	Polled   []string // the top directories of the subtrees without, sorted
	Rescans  int      // times that all watches were made anew
	Degraded bool     // something is polled, or the root is lost
}

// NewWatcher returns a watcher of t, which must outlive its Run. hints gets
// what Run finds, in Run's goroutine: it must not block, and owns the slice.
func NewWatcher(t *Tree, hints func([]Hint)) *Watcher {
	w := &Watcher{
		tree: t, log: t.log, give: hints,
		rewatch: make(chan struct{}, 1),
		syncs:   make(chan chan struct{}),
		done:    make(chan struct{}),
		base:    "/proc/self/fd/" + strconv.Itoa(t.fd),
	}
	w.state.Store(&WatchState{})
	return w
}

const (
	drainBatch = 1024 // events between two steps of other work
	visitBatch = 32   // directories between two looks at the events
	renewalGap = time.Second
)

// Run watches every directory of the tree, closes ready, and turns changes
// into hints until ctx ends; then it returns nil. It can be called once.
//
// What was there before is not hinted: after ready the caller hints the root,
// deep. Hints may come before ready.
//
// Any other return is an error of the start: [ErrRootLost],
// [ErrInstanceLimit], or that /proc is missing. Later trouble shows in
// [Watcher.State] and is mended: a subtree that cannot be watched is hinted,
// deep, at each [Options.PollInterval] until it can; if fsnotify reports an
// error (events were lost) everything is watched anew, and then the root
// hinted, deep. If the root is lost it is hinted once, and again, deep, when
// it is back.
func (w *Watcher) Run(ctx context.Context, ready chan<- struct{}) error {
	defer w.stop.Do(func() { close(w.done) })
	if err := w.tree.Check(); err != nil {
		return err
	}
	if !w.tree.opts.KeepLimits {
		raiseQueueLimit("/proc/sys/fs/inotify/max_queued_events", w.log)
	}
	fence, err := newFence()
	if err != nil {
		return err
	}
	w.fence = fence
	defer w.fence.close()
	defer w.closeFSN()
	first := &job{silent: true, ended: []chan<- struct{}{ready}}
	switch err := w.renew(first); {
	case errors.Is(err, ErrWatchLimit):
		w.poll(err)
		w.ended, first.ended = first.ended, nil
		w.flush()
	case err != nil:
		return err
	}
	w.loop(ctx)
	return nil
}

// Rewatch asks for a comparison of the watches with the directories that there
// are: to be called with each full scan. It does not wait for it.
func (w *Watcher) Rewatch() {
	select {
	case w.rewatch <- struct{}{}:
	default: // one is asked for already
	}
}

// Sync returns nil when all changes that were made before the call, in
// directories that are watched, have been handed on as hints. While everything
// is being watched anew it waits for the end of that. The error is the context's, or [ErrStopped].
func (w *Watcher) Sync(ctx context.Context) error {
	passed := make(chan struct{})
	for request := w.syncs; ; {
		select {
		case request <- passed:
			request = nil
		case <-passed:
			return nil
		case <-w.done:
			return ErrStopped
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// State returns how well the tree is watched now. The caller must not change
// what it points to.
func (w *Watcher) State() WatchState { return *w.state.Load() }

// loop runs until ctx ends.
func (w *Watcher) loop(ctx context.Context) {
	tick := time.NewTicker(w.tree.opts.PollInterval)
	defer tick.Stop()
	always := make(chan struct{})
	close(always)
	for {
		var evs <-chan fsnotify.Event
		var errs <-chan error
		var work <-chan struct{}
		if w.fsn != nil {
			evs, errs = w.fsn.Events, w.fsn.errs
			if len(w.work) > 0 {
				work = always
			}
		}
		select {
		case <-ctx.Done():
			return
		case ev, ok := <-evs:
			w.take(ev, ok)
			w.drain(evs)
		case err := <-errs:
			w.trouble(err)
		case <-tick.C:
			w.tick()
		case <-w.rewatch:
			w.check()
		case passed := <-w.syncs:
			w.fence.await(passed)
		case <-w.renewAt:
			w.renewAt = nil
			w.rescan()
		case <-work:
			w.drain(evs) // first: what the events drop need not be visited
		}
		for range visitBatch {
			if !w.visitNext() {
				break
			}
		}
		w.flush()
	}
}

// drain takes the events that have arrived.
func (w *Watcher) drain(evs <-chan fsnotify.Event) {
	for range drainBatch {
		select {
		case ev, ok := <-evs:
			if w.take(ev, ok); !ok {
				return
			}
		default:
			return
		}
	}
}

// take answers what came from fsnotify's channel of events.
func (w *Watcher) take(ev fsnotify.Event, ok bool) {
	if !ok {
		w.closeFSN() // it has stopped by itself
		w.trouble(fsnotify.ErrClosed)
		return
	}
	w.event(ev)
}

// goneCap is the longest that what went waits for what came to be watched.
const goneCap = time.Second

// markCame answers that the fence's mark came.
func (w *Watcher) markCame() {
	passed, gone := w.fence.came()
	w.passed = append(w.passed, passed...)
	w.marked = true
	for _, h := range gone {
		if w.gone.empty() {
			w.goneAt = time.Now()
		}
		w.gone.add(h.Path, h.Deep)
	}
}

// isGone reports whether p went and was not hinted yet.
func (w *Watcher) isGone(p events.Path) bool {
	_, held := w.fence.gone[p]
	return held || w.gone.has(p)
}

// flush hands on what was collected: hints, then the state, then the word that
// they were.
//
// What was renamed goes first and comes next, and a directory is hinted under
// its new name when all of it is watched. The old name is hinted with the new
// one, so that nobody removes it before that is there: all is held until the
// fence says that what came is known.
func (w *Watcher) flush() {
	if w.fence.holds() && !w.marked && w.fsn != nil && w.renewAt == nil {
		return
	}
	w.marked = false
	hints := w.burst.take()
	if len(w.work) == 0 || w.fsn == nil || time.Since(w.goneAt) > goneCap {
		hints = append(hints, w.gone.take()...)
	}
	if len(hints) > 0 {
		w.give(hints)
	}
	idle := len(w.work) == 0 && w.gone.empty() && w.renewAt == nil
	// Sorting what is polled at each step of much work would cost more than
	// the work.
	if w.changed && (idle || len(w.ended) > 0 || time.Since(w.told) > time.Second) {
		w.changed, w.told = false, time.Now()
		w.publishState()
	}
	for _, c := range w.ended {
		close(c)
	}
	w.ended = nil
	if idle {
		for _, c := range w.passed {
			close(c)
		}
		w.passed = nil
	}
}

func (w *Watcher) publishState() {
	s := &WatchState{Watches: w.watches, Rescans: w.rescans}
	for n := range w.polling {
		if p, ok := n.path(w.root); ok {
			s.Polled = append(s.Polled, p.String())
		}
	}
	if w.fsn == nil {
		s.Polled = []string{"."}
	}
	slices.Sort(s.Polled)
	s.Degraded = len(s.Polled) > 0 || w.lost
	w.state.Store(s)
}

// trouble answers an error of fsnotify: whatever it was, events may be lost.
func (w *Watcher) trouble(err error) {
	if w.renewAt != nil {
		return
	}
	if err == nil {
		err = fsnotify.ErrClosed
	}
	w.log.Warn("watch lost events, everything is watched anew and scanned", "err", err)
	w.renewAt = time.After(max(0, renewalGap-time.Since(w.renewed)))
}

// rescan makes all watches anew and then hints the root. If it cannot, the root
// is polled.
func (w *Watcher) rescan() {
	w.rescans++
	if err := w.renew(&job{}); err != nil {
		w.poll(err)
	}
}

// poll hints the root where nothing can be watched; tick tries again.
func (w *Watcher) poll(err error) {
	if !w.warned {
		w.warned = true
		w.log.Warn("nothing can be watched, all is polled, which is slow; will try again", "err", err)
	}
	w.burst.add(events.Path{}, true)
}

// renew replaces fsnotify's watcher and starts to watch everything; j ends
// when that is done. After an error it is not, and another renew takes over.
func (w *Watcher) renew(j *job) error {
	w.closeFSN()
	w.renewed = time.Now()
	w.root = &node{}
	w.inodes = make(map[uint64]*node)
	w.polling = make(map[*node]bool)
	w.watches = 0
	w.full = false
	w.changed = true
	for _, v := range w.work {
		j.adopt(v.job)
	}
	w.work = nil
	w.push(w.root, j)
	fsn, err := newBackend()
	if err != nil {
		return err
	}
	if err := fsn.Add(w.fence.path); err != nil {
		return errors.Join(fmt.Errorf("watch %s (is /proc mounted?): %w", w.fence.path, watchError(err)), fsn.Close())
	}
	w.fsn = fsn
	w.fence.reset()
	return nil
}

func (w *Watcher) closeFSN() {
	if w.fsn != nil {
		_ = w.fsn.Close() // the descriptor is gone either way
		w.fsn = nil
	}
}

// tick looks at what no event tells.
func (w *Watcher) tick() {
	w.full = false
	switch err := w.tree.Check(); {
	case errors.Is(err, ErrRootLost):
		w.loseRoot(err)
	case err == nil && (w.lost || w.fsn == nil):
		if w.lost {
			w.log.Warn("root is back")
		}
		w.lost = false
		w.rescan()
	case err == nil:
		w.pollAgain()
	}
}

func (w *Watcher) loseRoot(err error) {
	if !w.lost {
		w.lost, w.changed = true, true
		w.log.Error("root is lost", "err", err)
		w.burst.add(events.Path{}, true)
	}
}
