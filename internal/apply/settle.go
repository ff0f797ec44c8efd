package apply

import (
	"maps"
	"slices"
	"syscall"

	"treecast/internal/events"
)

// settle gives every directory that the group changed its final state: what
// its entry wants, if the group has one, else what it had before. Deepest
// first, since a directory's final mode may keep us from what is in it. In
// results it says what became of the entries; what cannot be restored is owed
// by the next group.
func (g *group) settle(results []Result) {
	paths := slices.SortedFunc(maps.Keys(g.want), func(a, b events.Path) int {
		if d := b.Depth() - a.Depth(); d != 0 {
			return d
		}
		return a.Compare(b)
	})
	for _, p := range paths {
		g.trim()
		w := g.want[p]
		changed, err := g.settleDir(p, w)
		if err != nil && w.entry == nil {
			_, err = g.settleDir(p, w) // nothing else brings it up again soon
		}
		switch {
		case w.entry != nil && err != nil:
			results[w.index] = Result{Err: step("settle", p, err)}
		case w.entry != nil && changed && results[w.index].Outcome == Unchanged:
			results[w.index].Outcome, results[w.index].Itemized = Updated, g.t.change(*w.seen, w.entry)
		case err != nil:
			g.t.owed[p] = w.before
			g.t.log.Warn("directory's time could not be restored, it is tried again with the next change",
				"path", quote(p), "err", err)
		default:
			delete(g.t.owed, p)
		}
	}
}

// settleDir reports whether the directory is not as its entry found it.
func (g *group) settleDir(p events.Path, w *wanted) (changed bool, err error) {
	t := g.t
	if w.fresh && w.entry == nil {
		return false, nil // its own entry follows
	}
	d, err := g.open(p)
	if absent(err) && w.entry == nil {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	st, err := d.stat()
	if err != nil {
		return false, err
	}
	self := &named{d, ""}
	final := w.before
	if e := w.entry; e != nil {
		final = dirState{e.Mode, t.clock.hold(e.Mtime)}
		uid, gid := t.accounts.owner(e)
		if w.seen != nil {
			changed = !t.shows(*w.seen, e)
		}
		if !t.rights.ownerRight(st, uid, gid) {
			if _, err := t.giveOwner(self, e, st.uid, st.gid); err != nil {
				return changed, err
			}
			g.dirty[p] = true
		}
	}
	if st.mode == final.mode && st.mtime == final.mtime {
		if g.recent(st) {
			g.dirty[p] = true
		}
		return changed, nil
	}
	if !t.rights.owns(st) {
		if st.mtime != final.mtime {
			t.deny(&t.denied.times, "directory's time could not be set, it belongs to another user", p, syscall.EPERM)
		}
		if st.mode != final.mode {
			t.deny(&t.denied.modes, "directory's mode could not be set, it belongs to another user", p, syscall.EPERM)
		}
		return changed, nil
	}
	if st.mode != final.mode && !t.rights.modeRight(st, final.mode) {
		if err := d.chmod("", final.mode); err != nil {
			return changed, err
		}
	}
	if st.mtime != final.mtime {
		if w.entry != nil {
			err = t.giveTime(self, w.entry)
		} else {
			err = d.chtimes("", final.mtime)
		}
		if err != nil {
			return changed, err
		}
	}
	g.dirty[p] = true
	return changed, nil
}
