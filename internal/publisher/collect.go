package publisher

import (
	"context"
	"errors"
	"sync"
	"time"

	"treecast/internal/events"
	"treecast/internal/source"
	"treecast/internal/stream"
)

// A collection removes from the bucket the objects that no entry names. One that
// is found without a name is marked, and removed if it still has none after the
// grace: a file that is put back by then costs no upload.
//
// # Why it removes nothing that is named
//
// Entries are published by this session alone: the site's lease fences all
// others, and what was on its way without an answer before a sweep is settled.
// An entry of ours is either made by an upload, which pins every object before
// it looks for it in the bucket, and holds the pins until the entry's outcome is
// known; or it is a renamed file's, with the body of an entry that is live then.
//
// A sweep (1) makes pins last until its end, (2) reads what live entries name,
// (3) looks at each object that is not named, and (4) removes or marks it unless
// it is pinned. Let an object be named by an entry E that is live at some time
// after (2), and be removed in (4). If E was published before (2), it was live
// all the while, and was read. If an upload published it later, its pin was
// there at (4), or came after: then the upload waited for (4), looked for the
// object, did not find it, and stored it anew. If a rename did, the other entry
// was live then, and the same holds for that; one that was gone before it could
// be read makes (2) start again.
//
// Two publishers' removals are kept apart by the bucket's own fence
// (internal/stream). No clock is relied on: those only say how long the grace is.
type collection struct {
	s       *session
	bucket  *stream.Bucket
	catalog catalog
	pins    *pins
	stirred chan struct{} // something may have lost its name
	full    chan struct{} // the bucket has no room: the grace is over
	told    string        // why nothing can be removed, logged once
	futile  time.Time     // until when it is known that no room can be made

	mu      sync.Mutex
	waiting map[events.Path]bool // for room
}

const (
	defaultGrace = 24 * time.Hour
	// A sweep begins at most so long after something lost its name.
	longestSweepPause  = time.Hour
	shortestSweepPause = 100 * time.Millisecond
	// A sweep rests between two objects: a few times as long as the object took,
	// within these limits.
	shortestRest = 5 * time.Millisecond
	longestRest  = 50 * time.Millisecond
	restFactor   = 4
	// A sweep that has found no room to make is not repeated for so many times as
	// long as it took: whoever needs room asks again and again.
	futileFactor = 10
)

func newCollection(s *session, bucket *stream.Bucket) *collection {
	return &collection{
		s: s, bucket: bucket, catalog: catalog{s.conn, s.Site, s.codec}, pins: newPins(),
		stirred: make(chan struct{}, 1), full: make(chan struct{}, 1),
		waiting: make(map[events.Path]bool),
	}
}

// Stir says that an object may have lost its name.
func (c *collection) Stir() { signal(c.stirred) }

// MakeRoom says that the bucket is full. Where room is made, p is looked at again
// at once.
func (c *collection) MakeRoom(p events.Path) {
	c.mu.Lock()
	c.waiting[p] = true
	c.mu.Unlock()
	signal(c.full)
}

// roomMade has those looked at who wait for room.
func (c *collection) roomMade() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := range c.waiting {
		c.s.dirty.Hint([]source.Hint{{Path: p}})
	}
	clear(c.waiting)
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// run sweeps some time after it was stirred, and when what waits is due. At rest
// it does nothing.
func (c *collection) run(ctx context.Context) error {
	pause := min(max(c.s.GCGrace/24, shortestSweepPause), longestSweepPause)
	timer := time.NewTimer(pause) // what earlier sessions have left
	defer timer.Stop()
	due := time.Now().Add(pause) // zero: nothing waits
	for {
		urgent := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.stirred:
			if soon := time.Now().Add(pause); due.IsZero() || soon.Before(due) {
				due = soon
				timer.Reset(pause)
			}
			continue
		case <-c.full:
			if time.Now().Before(c.futile) {
				continue
			}
			urgent = true
		case <-timer.C:
		}
		sw := sweep{collection: c, urgent: urgent, start: time.Now()}
		err := sw.run(ctx)
		due = sw.due
		if sw.removed > sw.orphans { // those are of uploads that found no room: it is no more than they had
			c.roomMade()
		} else if urgent {
			c.futile = time.Now().Add(futileFactor * time.Since(sw.start))
		}
		if err := c.failed(ctx, err); err != nil {
			return err
		}
		if err != nil {
			due = time.Now().Add(pause)
		}
		if !due.IsZero() {
			timer.Reset(max(time.Until(due), pause))
		}
	}
}

// failed tells what a later sweep may mend from what ends the session.
func (c *collection) failed(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, stream.ErrNoStream), errors.Is(err, stream.ErrWentBack):
		return errors.Join(errAgain, err)
	case errors.Is(err, stream.ErrFenced), errors.Is(err, stream.ErrReleased):
		return err
	case err == nil:
		c.told = ""
	case c.told != err.Error() && c.s.conn.Connected():
		c.told = err.Error()
		c.s.Log.Warn("nothing more is removed from the bucket for now, will try again", "err", err)
	}
	return nil
}

// A sweep is one look at all objects.
type sweep struct {
	*collection
	urgent bool // the grace is over for everything
	start  time.Time

	removed, orphans int       // what was removed, and how much of it was no object
	bytes            int64     // of what was removed
	marked, waiting  int       // objects
	due              time.Time // of what waits; zero: nothing does
}

func (s *sweep) run(ctx context.Context) error {
	if s.urgent {
		s.pins.Forget(func(p events.Path) bool {
			_, err := s.s.src.Lstat(p)
			return errors.Is(err, source.ErrAbsent)
		})
	}
	defer s.pins.Sweep()()
	names, err := s.catalog.named(ctx, s.pins.Moves, s.s.lease.Settle)
	if err != nil {
		return err
	}
	err = s.bucket.Objects(ctx, names.Has, func(o stream.Object) error { return s.object(ctx, o) })
	if err == nil {
		err = s.bucket.Orphans(ctx, s.urgent, func(nuid string, bytes int64, _ time.Time) error { return s.orphan(ctx, nuid, bytes) })
	}
	if s.removed > 0 { // for so long what is left of them may hide an orphan
		s.lookAgain(time.Now().Add(longestSweepPause))
	}
	if s.removed+s.marked > 0 {
		s.s.Log.Info("collected", "removed", s.removed, "bytes", s.bytes, "waiting", s.waiting, "grace", s.s.GCGrace,
			"elapsed", time.Since(s.start))
	}
	return err
}

// object marks, or removes, an object that had no name when the sweep began.
func (s *sweep) object(ctx context.Context, o stream.Object) error {
	start := time.Now()
	worked := false
	pinned, err := s.pins.Aside(o.Digest, func() error {
		age := start.Sub(o.Unnamed)
		switch {
		case s.hurry(), !o.Unnamed.IsZero() && age >= s.s.GCGrace:
			worked = true
			s.removed++
			s.bytes += o.Size
			return s.bucket.Delete(ctx, o)
		case o.Unnamed.IsZero(), age < 0: // the clock was set back
			worked = true
			s.marked++
			s.wait(start)
			return s.bucket.SetUnnamed(ctx, o, start)
		}
		s.wait(o.Unnamed)
		return nil
	})
	if pinned {
		s.lookAgain(start.Add(keepFull)) // it may be of an upload that failed
	}
	if err != nil && !errors.Is(err, stream.ErrChanged) || !worked {
		return err
	}
	return s.rest(ctx, time.Since(start))
}

func (s *sweep) orphan(ctx context.Context, nuid string, bytes int64) error {
	start := time.Now()
	if err := s.bucket.DeleteOrphan(ctx, nuid); err != nil {
		return err
	}
	s.removed++
	s.orphans++
	s.bytes += bytes
	return s.rest(ctx, time.Since(start))
}

// wait notes an object that is without a name since then.
func (s *sweep) wait(since time.Time) {
	s.waiting++
	s.lookAgain(since.Add(s.s.GCGrace))
}

func (s *sweep) lookAgain(at time.Time) {
	if s.due.IsZero() || at.Before(s.due) {
		s.due = at
	}
}

// hurry reports whether the grace is over for everything. A bucket that is found
// full while the sweep is on its way hurries the rest of it; what is behind is
// for the next one.
func (s *sweep) hurry() bool { return s.urgent || len(s.full) > 0 }

func (s *sweep) rest(ctx context.Context, took time.Duration) error {
	if s.hurry() {
		return ctx.Err()
	}
	return pause(ctx, min(max(shortestRest, restFactor*took), longestRest))
}
