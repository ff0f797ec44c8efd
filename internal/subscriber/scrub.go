package subscriber

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"treecast/internal/apply"
	"treecast/internal/events"
	"treecast/internal/stream"
)

// A doubt is a path that was found not to be as its entry wants it, though the
// entry was applied. It is settled when the path was looked at again, and mended
// if that was so: a live update may have come between.
type doubt struct {
	item    string // the difference, itemized
	settled atomic.Bool
}

// A scrubber reads the whole tree in the background, at its pace, and gives
// what it doubts to the follower. How far it is outlasts restarts.
type scrubber struct {
	f      *follower
	pace   pacer
	now    apply.Scrub
	saved  apply.Scrub
	savedT time.Time
	doubts []*doubt // that may be open
}

const (
	scrubSave   = time.Minute // how often the state is made durable, while it changes
	scrubRetry  = time.Minute // after a snapshot that failed
	scrubEntry  = 16 << 10    // the bytes that a look at a path counts for
	scrubDoubts = 1000        // open at once
)

// scrub reads the tree again and again, until ctx ends.
func (f *follower) scrub(ctx context.Context) error {
	if f.Scrub <= 0 {
		return nil
	}
	yieldToOthers()
	s := &scrubber{f: f, pace: pacer{rate: f.ScrubRate}, now: f.tree.Scrub(), savedT: time.Now()}
	s.saved = s.now
	// Many nodes that are set up at once must not read at once. And what was
	// due in a week is due tomorrow if the operator now wants it daily.
	if latest := time.Now().Add(f.Scrub); s.now.Due.IsZero() || s.now.Due.After(latest) {
		s.now.Due = time.Now().Add(rand.N(f.Scrub)).Round(0) //nolint:gosec // no secret
	}
	defer s.save()
	for {
		s.save()
		if left := time.Until(s.now.Due); left > 0 {
			if err := pause(ctx, min(left, scrubSave)); err != nil {
				return err
			}
			continue
		}
		if err := s.run(ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			f.Log.Warn("scrub interrupted, will go on", "site", f.Site, "path", strconv.Quote(s.now.At.String()), "err", err)
			if err := pause(ctx, scrubRetry); err != nil {
				return err
			}
		}
	}
}

// yieldToOthers has this goroutine come last for disk and core. Its thread ends
// with it.
func yieldToOthers() {
	const thisThread, ofProcess, idle = 0, 1, 3 << 13 // ioprio_set(2)
	runtime.LockOSThread()
	// Without the right to, it is paced all the same.
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ofProcess, thisThread, idle)
	_ = unix.Setpriority(unix.PRIO_PROCESS, thisThread, 19)
}

// run looks at all that is left of this scrub.
func (s *scrubber) run(ctx context.Context) error {
	f, start := s.f, time.Now()
	wanted, err := s.wanted(ctx)
	if err != nil {
		return err
	}
	f.Log.Info("scrubbing", "site", f.Site, "path", strconv.Quote(s.now.At.String()), "paths", len(wanted))
	doubts, unseen := 0, 0
	for _, k := range wanted {
		item, err := s.check(ctx, &k.entry)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			unseen++
			f.Log.Debug("not scrubbed", "path", strconv.Quote(k.entry.Path.String()), "err", err)
		case item != "":
			doubts++
			if err := s.doubt(ctx, k, item); err != nil {
				return err
			}
		}
		s.now.At = k.entry.Path
		if time.Since(s.savedT) > scrubSave {
			s.save()
		}
	}
	s.now = apply.Scrub{Due: start.Add(f.Scrub - rand.N(f.Scrub/8+1)).Round(0), Done: time.Now().Round(0)} //nolint:gosec // no secret
	f.status.scrubbed(s.now.Done)
	f.Log.Info("scrubbed", "site", f.Site, "paths", len(wanted), "doubted", doubts, "unseen", unseen,
		"due", s.now.Due, "elapsed", time.Since(start))
	return nil
}

// wanted returns what the stream has behind those paths that were looked at.
func (s *scrubber) wanted(ctx context.Context) (snapshot, error) {
	all, _, err := takeSnapshot(ctx, s.f.stream, s.f.Site, func(uint64, string) {}) // what cannot be decoded was parked
	if err != nil || s.now.At.IsRoot() {
		return all, err
	}
	return all.after(s.now.At), nil
}

func (s *scrubber) check(ctx context.Context, e *events.Entry) (string, error) {
	if err := s.pace.take(ctx, scrubEntry); err != nil {
		return "", err
	}
	return s.f.tree.Check(ctx, e, s.pace.take)
}

// doubt has the follower look at an entry again, in its turn among the others.
func (s *scrubber) doubt(ctx context.Context, k *known, difference string) error {
	for s.open() >= scrubDoubts {
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
	it := s.item(k, difference)
	s.doubts = append(s.doubts, it.doubt)
	return s.f.pipeline.put(ctx, it)
}

func (s *scrubber) item(k *known, difference string) *item {
	d := stream.Delivery{Seq: k.seq, Arrived: time.Now(), Subject: s.f.Site.Subject(k.entry.Path)}
	return &item{delivery: d, entry: k.entry, again: true, doubt: &doubt{item: difference}}
}

// open is how many doubts are not settled.
func (s *scrubber) open() int {
	s.doubts = slices.DeleteFunc(s.doubts, func(d *doubt) bool { return d.settled.Load() })
	return len(s.doubts)
}

// save makes the state durable, unless something before it is still wrong:
// that has to be found again after a restart.
func (s *scrubber) save() {
	s.savedT = time.Now()
	if s.now == s.saved || s.open() > 0 {
		return
	}
	if err := s.f.tree.MarkScrub(s.now); err != nil {
		s.f.Log.Warn("how far the scrub is could not be noted", "err", err)
		return
	}
	s.saved = s.now
}

// A pacer lets through so many bytes a second, in the long run.
type pacer struct {
	rate int64
	free time.Time // when all that was taken is paid for
}

// pacerSlack is the least that it is worth to wait for.
const pacerSlack = 10 * time.Millisecond

// take waits until n more bytes may be read.
func (p *pacer) take(ctx context.Context, n int) error {
	now := time.Now()
	if p.free.Before(now) {
		p.free = now
	}
	p.free = p.free.Add(time.Duration(n) * time.Second / time.Duration(p.rate))
	if wait := p.free.Sub(now); wait > pacerSlack {
		return pause(ctx, wait)
	}
	return ctx.Err()
}

// recheck holds the entries of doubted paths and tries them at once: what is
// found right is let go, what is wrong is mended. One that is on its way, or
// held, was not applied yet, that of a path that was changed since is not in the stream
// any more, and one in what is no directory any more waits for its tombstone.
func (f *follower) recheck(ctx context.Context, doubted []*item) error {
	var due []*hold
	for _, it := range doubted {
		void := it.delivery.Seq > f.last || f.holdings.Holds(it.delivery.Seq)
		if !void {
			var err error
			if void, err = f.buried(ctx, it); err != nil {
				return err
			}
		}
		if void {
			it.doubt.settled.Store(true)
			continue
		}
		x := f.holdings.Add(it.delivery, it.entry, errDoubted)
		x.doubt = it.doubt
		if !f.holdings.Blocks(it.delivery.Seq, &it.entry) {
			due = append(due, x)
		}
	}
	_, err := f.try(ctx, due)
	return err
}

// buried reports whether the stream has a newer entry that made something else
// of a directory above it.
func (f *follower) buried(ctx context.Context, it *item) (bool, error) {
	for p := it.entry.Path; !p.IsRoot(); {
		p = p.Parent()
		d, err := f.stream.Entry(ctx, f.Site, p)
		if err != nil {
			return false, err
		}
		if d == nil || d.Seq < it.delivery.Seq {
			continue
		}
		if e, err := events.Decode(f.Site, d.Subject, d.Header); err == nil && e.Kind != events.Dir {
			return true, nil
		}
	}
	return false, nil
}

// errDoubted holds a path that was found to differ from what was applied.
var errDoubted = errors.New("it has changed on this node, and is looked at again")
