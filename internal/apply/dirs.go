package apply

import (
	"errors"
	"syscall"

	"treecast/internal/events"
)

// maxHeldDirs bounds the directories that a group holds open.
const maxHeldDirs = 256

// wanted is what a group knows of a directory that it has changed or will.
type wanted struct {
	before dirState // what it had before the group, to be restored
	fresh  bool     // made by the group; there is no before
	entry  *events.Entry
	index  int   // of entry in the group
	seen   *stat // when its entry was come to: tells unchanged from updated
}

// open holds the directory at p until the next trim or forget.
func (g *group) open(p events.Path) (directory, error) {
	if p.IsRoot() {
		return g.t.root, nil
	}
	if d, ok := g.held[p]; ok {
		return d, nil
	}
	d, err := g.t.root.openDir(p.String())
	if errors.Is(err, syscall.EACCES) {
		if err = g.liftAncestors(p); err == nil {
			d, err = g.t.root.openDir(p.String())
		}
	}
	if err != nil {
		return nil, err
	}
	g.held[p] = d
	return d, nil
}

// trim lets go of held directories if they are many.
func (g *group) trim() {
	if len(g.held) >= maxHeldDirs {
		g.letGo(events.Path{})
	}
}

// letGo closes the held directories at and under p.
func (g *group) letGo(p events.Path) {
	for q, d := range g.held {
		if q.Within(p) {
			d.close()
			delete(g.held, q)
		}
	}
}

// forget drops all that is known of directories at and under p: they are
// gone from there.
func (g *group) forget(p events.Path) {
	g.letGo(p)
	for q := range g.want {
		if q.Within(p) {
			delete(g.want, q)
		}
	}
	for q := range g.dirty {
		if q.Within(p) {
			delete(g.dirty, q)
		}
	}
	for q := range g.t.owed {
		if q.Within(p) {
			delete(g.t.owed, q)
		}
	}
}

// touch notes the state that d, the directory at p, is to have in the end.
func (g *group) touch(p events.Path, d directory) (*wanted, error) {
	if w := g.want[p]; w != nil {
		return w, nil
	}
	st, err := d.stat()
	if err != nil {
		return nil, err
	}
	w := &wanted{before: dirState{st.mode, st.mtime}}
	g.want[p] = w
	return w, nil
}

// enter is touch for a directory that is changed now: what a crash must not
// lose is in the journal when it returns.
func (g *group) enter(p events.Path, d directory) error {
	w, err := g.touch(p, d)
	if err != nil {
		return err
	}
	if !g.covered(p, w) {
		// Rare: the plan did not foresee it, since someone else changes the
		// tree, or a directory without write permission is in the way.
		return step("journal", p, g.journalNow())
	}
	g.dirty[p] = true
	return nil
}

// final is the state that the journal is to list for p.
func (g *group) final(p events.Path, w *wanted) dirState {
	if e := g.comes[p]; e != nil {
		return dirState{e.Mode, g.t.clock.hold(e.Mtime)}
	}
	return w.before
}

func (g *group) covered(p events.Path, w *wanted) bool {
	if w.fresh && g.comes[p] == nil {
		return true // its own entry follows
	}
	return g.t.journal.covers(p, g.final(p, w), g.comes[p] != nil)
}

// uncovered returns what the journal must list before the group goes on.
func (g *group) uncovered() map[events.Path]dirState {
	need := map[events.Path]dirState{}
	for p, w := range g.want {
		if !g.covered(p, w) {
			need[p] = g.final(p, w)
		}
	}
	for p, e := range g.comes {
		state := dirState{e.Mode, g.t.clock.hold(e.Mtime)}
		if !g.t.journal.covers(p, state, true) {
			need[p] = state
		}
	}
	return need
}

// journalNow replaces the list in the middle of a group.
func (g *group) journalNow() error {
	flush, done, err := g.t.journal.put(g.uncovered())
	if err == nil {
		err = flush()
	}
	if err == nil {
		done()
	}
	return err
}

// lifted runs fn, which changes names in d, the directory at p; if d has no
// write permission and is ours, once more with that given for the moment.
// Only a process that is not root needs it.
func (g *group) lifted(p events.Path, d directory, fn func() error) error {
	err := fn()
	if !errors.Is(err, syscall.EACCES) {
		return err
	}
	if lifted, err2 := g.lift(p, d); err2 != nil || !lifted {
		return errors.Join(err, err2)
	}
	return fn()
}

// lift gives us all rights on d, the directory at p; settle restores its
// mode.
func (g *group) lift(p events.Path, d directory) (bool, error) {
	st, err := d.stat()
	if err != nil || !g.t.rights.owns(st) || st.mode&0o700 == 0o700 {
		return false, err
	}
	if err := g.enter(p, d); err != nil {
		return false, err
	}
	return true, d.chmod("", st.mode|0o700)
}

// liftAncestors makes every directory on the way to p one that we can pass.
func (g *group) liftAncestors(p events.Path) error {
	for _, q := range lineage(p) {
		d, err := g.t.root.openDir(q.String())
		if err != nil {
			return err
		}
		lifted, err := g.lift(q, d)
		d.close()
		if err != nil {
			return err
		}
		if old, ok := g.held[q]; ok && lifted { // it may be one that cannot be synced
			old.close()
			delete(g.held, q)
		}
	}
	return nil
}

// lineage returns the directories on the way to p and p itself, the root
// first.
func lineage(p events.Path) []events.Path {
	way := make([]events.Path, p.Depth()+1)
	for i := len(way) - 1; i >= 0; i-- {
		way[i] = p
		p = p.Parent()
	}
	return way
}
