package apply

import (
	"errors"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"treecast/internal/events"
)

// few is up to how many files or directories are made durable by an fsync
// each, all at once so that they share the file system's own commit; one
// syncfs is cheaper for more, but waits for what other programs wrote too.
const few = 4

// secure is the durability point before the first visible change: afterwards
// the bytes and attributes of all temps, and the journal, survive a power
// loss. If it fails the temps are dropped; their entries are staged again
// when they are committed again.
func (g *group) secure(staged []*Staged) error {
	var flush func() error
	done := func() {}
	if need := g.uncovered(); len(need) > 0 {
		var err error
		if flush, done, err = g.t.journal.put(need); err != nil {
			return step("journal", events.Path{}, err)
		}
	}
	var temps []*temp
	for _, s := range staged {
		if s.temp != nil && !s.temp.synced && s.temp.kind != events.Dir {
			temps = append(temps, s.temp)
		}
	}
	if err := g.syncTemps(temps, flush); err != nil {
		g.t.journal.slots.close() // to be opened anew, see slots.put
		for _, s := range staged {
			if s.temp != nil && !s.temp.synced {
				s.Discard()
			}
		}
		return step("sync", events.Path{}, err)
	}
	done()
	return nil
}

// syncTemps makes temps durable, and whatever flush does.
func (g *group) syncTemps(temps []*temp, flush func() error) error {
	each := len(temps) <= few
	for _, tmp := range temps {
		each = each && tmp.file != nil // a symlink cannot be synced by itself
	}
	var err error
	if each {
		var eg errgroup.Group
		for _, tmp := range temps {
			eg.Go(tmp.file.sync)
		}
		if flush != nil {
			eg.Go(flush)
		}
		err = eg.Wait()
	} else {
		err = g.t.syncFS()
	}
	if err != nil {
		return err
	}
	for _, tmp := range temps {
		tmp.synced = true
	}
	return nil
}

// syncDirs is the durability point after the last visible change: afterwards
// all that the group did survives a power loss. If it fails, nobody knows;
// the next group then syncs everything, since what it finds right may be what
// this one left in memory.
func (g *group) syncDirs() error {
	t := g.t
	if len(g.dirty) == 0 && !g.syncAll && !t.mustSync {
		return nil
	}
	all := g.syncAll || t.mustSync || len(g.dirty) > few
	if !all {
		var eg errgroup.Group
		for p := range g.dirty {
			d, err := g.open(p)
			if err != nil {
				all = true
				break
			}
			eg.Go(d.sync)
		}
		err := eg.Wait()
		if errors.Is(err, syscall.EBADF) {
			all = true // we may not read one of them
		} else if err != nil {
			t.mustSync = true
			return step("syncdir", events.Path{}, err)
		}
	}
	if all {
		if err := t.syncFS(); err != nil {
			t.mustSync = true
			return step("syncdir", events.Path{}, err)
		}
		t.mustSync = false
	}
	return nil
}

// syncFS makes everything durable that is on the tree's file system now.
func (t *Tree) syncFS() error {
	// The kernel stamps files by a clock that ticks every few milliseconds.
	start := time.Now().Add(-50 * time.Millisecond)
	if err := t.staging.syncFS(); err != nil {
		return err
	}
	t.syncedAt = events.Time{Sec: start.Unix(), Nsec: int32(start.Nanosecond())}
	return nil
}
