package apply

import (
	"errors"
	"syscall"

	"treecast/internal/events"
)

// remove applies a tombstone: nothing stands at p afterwards.
func (g *group) remove(p events.Path) (Outcome, error) {
	parent, err := g.open(p.Parent())
	if absent(err) {
		return Unchanged, nil
	}
	if err != nil {
		return 0, err
	}
	st, err := g.standing(parent, p)
	if err != nil {
		return 0, err
	}
	if st.ino == 0 {
		if st, err := parent.stat(); err == nil && g.recent(st) {
			g.dirty[p.Parent()] = true
		}
		return Unchanged, nil
	}
	if err := g.enter(p.Parent(), parent); err != nil {
		return 0, err
	}
	err = g.lifted(p.Parent(), parent, func() error {
		return parent.remove(p.Base(), st.kind == events.Dir)
	})
	switch {
	case errors.Is(err, syscall.ENOENT):
		return Unchanged, nil
	case st.kind == events.Dir && notEmpty(err) && g.t.opts.Foreign == KeepForeign:
		g.t.keep(p)
		return Skipped, nil
	case st.kind == events.Dir && notEmpty(err):
		var b *batch
		if b, err = g.t.newBatch(); err == nil {
			err = g.takeAway(parent, p, b)
			b.close()
		}
	}
	if err != nil {
		return 0, err
	}
	if st.kind == events.File {
		g.t.known.unlinked(p, st, func(q events.Path) (stat, error) { return g.t.root.lstat(q.String()) })
	}
	g.forget(p)
	return Deleted, nil
}

// takeAway moves what stands at p to the trash, with all that is in it, by
// one rename.
func (g *group) takeAway(parent directory, p events.Path, b *batch) error {
	if err := movable(parent, p.Base()); err != nil {
		return err
	}
	g.syncAll = true // of the trash, too
	take := func() error { return b.rename(parent, p.Base(), p.String()) }
	err := g.lifted(p.Parent(), parent, take)
	if errors.Is(err, syscall.EACCES) && g.liftMoved(p) == nil {
		err = take()
	}
	return step("trash", p, err)
}

// keep reports, once a path, a directory that is deleted at the source and
// stays here for what else is in it.
func (t *Tree) keep(p events.Path) {
	if t.kept[p] {
		return
	}
	if t.kept == nil {
		t.kept = map[events.Path]bool{}
	}
	t.kept[p] = true
	t.log.Warn("deleted directory is kept, since something foreign is in it: remove that by hand", "path", quote(p))
}
