package apply

import (
	"errors"
	"syscall"

	"treecast/internal/events"
)

// place makes a path that is not a directory what its entry wants.
func (g *group) place(s *Staged) (Outcome, error) {
	t, e, p := g.t, s.e, s.e.Path
	if s.temp == nil {
		st, err := t.root.lstat(p.String())
		if err == nil && (s.right && st.same(s.seen) || t.shows(st, e) && t.holds(p, st, e)) {
			g.syncAll = g.syncAll || g.recent(st)
			return Unchanged, nil
		}
		if err := g.restage(s); err != nil {
			return 0, err
		}
		if s.skip {
			return Skipped, nil
		}
	}
	parent, err := g.parent(p)
	if err != nil {
		return 0, err
	}
	st, err := g.standing(parent, p)
	if err != nil {
		return 0, err
	}
	if err := g.enter(p.Parent(), parent); err != nil {
		return 0, err
	}
	s.item = t.change(st, e)
	if s.list != nil {
		staged, err := t.tmp.lstat(s.temp.name)
		if err != nil {
			return 0, err
		}
		defer g.learn(s, staged.ino)
	}
	if st.kind == events.Dir {
		if err := movable(parent, p.Base()); err != nil {
			return 0, err
		}
		if err := g.swap(s, parent); err != nil {
			return 0, err
		}
		return Updated, g.discardDir(s, p)
	}
	var kept *batch
	if s.keep && st.ino != 0 {
		kept = g.linkToTrash(parent, p)
	}
	err = g.lifted(p.Parent(), parent, func() error {
		return t.tmp.rename(s.temp.name, parent, p.Base(), replacing)
	})
	if err != nil {
		g.takeBack(kept)
		return 0, err
	}
	if st.ino != 0 && s.e.From != nil {
		_ = t.tmp.remove(s.temp.name, false) // rename(2) leaves it if p is a name of that file already
	}
	g.used(s)
	if st.ino == 0 {
		return Created, nil
	}
	return Updated, nil
}

// placeDir makes a path a directory, and notes what settle is to give it.
func (g *group) placeDir(i int, s *Staged) (Outcome, error) {
	p := s.e.Path
	st, err := g.t.root.lstat(p.String())
	if err == nil && st.kind == events.Dir {
		d, err := g.open(p)
		if err != nil {
			return 0, err
		}
		w, err := g.touch(p, d)
		if err != nil {
			return 0, err
		}
		w.entry, w.index = s.e, i
		if w.fresh {
			s.item = creation(events.Dir)
			return Created, nil
		}
		st.mode, st.mtime = w.before.mode, w.before.mtime // what the group itself did does not count
		w.seen = &st
		return Unchanged, nil // settle may say otherwise
	}
	if err != nil && !absent(err) && !errors.Is(err, syscall.EACCES) {
		return 0, err
	}
	if s.temp == nil {
		if err := g.restage(s); err != nil {
			return 0, err
		}
	}
	parent, err := g.parent(p)
	if err != nil {
		return 0, err
	}
	s.item = creation(events.Dir)
	existed, err := g.putDir(s, parent)
	if err != nil {
		return 0, err
	}
	g.want[p] = &wanted{fresh: true, entry: s.e, index: i}
	if existed {
		return Updated, nil
	}
	return Created, nil
}

// putDir renames the directory that is staged to its path, where no directory
// stands, and reports whether something else did.
func (g *group) putDir(s *Staged, parent directory) (existed bool, err error) {
	p := s.e.Path
	st, err := g.standing(parent, p)
	if err != nil {
		return false, err
	}
	if err := g.enter(p.Parent(), parent); err != nil {
		return false, err
	}
	if existed = st.ino != 0; existed {
		if err := g.swap(s, parent); err != nil {
			return true, err
		}
		err := g.t.tmp.remove(s.temp.name, false)
		if errors.Is(err, syscall.EISDIR) {
			err = errGone
		}
		if err != nil {
			return true, err
		}
	} else {
		err := g.lifted(p.Parent(), parent, func() error {
			return g.t.tmp.rename(s.temp.name, parent, p.Base(), replacing)
		})
		if err != nil {
			return false, err
		}
	}
	g.used(s)
	g.dirty[p] = true
	return existed, nil
}

// standing returns what stands at p, the zero stat if nothing does. What is
// on another file system is not ours to replace.
func (g *group) standing(parent directory, p events.Path) (stat, error) {
	var st stat
	err := g.lifted(p.Parent(), parent, func() (err error) {
		st, err = parent.lstat(p.Base())
		return err
	})
	switch {
	case absent(err):
		return stat{}, nil
	case err != nil:
		return stat{}, err
	case st.dev != g.t.rootDev:
		return stat{}, ErrMount
	}
	return st, nil
}

// parent holds the directory that p is in. What is missing on the way is
// made; what is no directory is swapped for one, since the entry proves that
// a directory stands there at the source. No symlink is followed.
func (g *group) parent(p events.Path) (directory, error) {
	d, err := g.open(p.Parent())
	if err == nil || !absent(err) {
		return d, err
	}
	for _, q := range lineage(p.Parent()) {
		if _, err := g.open(q); err == nil {
			continue
		} else if !absent(err) {
			return nil, err
		}
		if err := g.makeAncestor(q); err != nil {
			return nil, err
		}
	}
	return g.open(p.Parent())
}

// makeAncestor makes a directory whose own entry will follow.
func (g *group) makeAncestor(p events.Path) error {
	parent, err := g.open(p.Parent())
	if err != nil {
		return err
	}
	name := g.t.tempName()
	if err := g.t.tmp.mkdir(name); err != nil {
		return err
	}
	s := &Staged{t: g.t, e: &events.Entry{Path: p, Kind: events.Dir}, temp: &temp{name: name, kind: events.Dir}}
	err = g.t.tmp.chmod(name, 0o755)
	if err == nil {
		_, err = g.putDir(s, parent)
	}
	if err != nil {
		s.Discard()
		return err
	}
	g.want[p] = &wanted{fresh: true}
	return nil
}

// restage makes a temp again, durable at once, for an entry whose path is no
// longer what it was when the entry was staged.
func (g *group) restage(s *Staged) error {
	s.right = false
	if err := s.makeTemp(); err != nil {
		return step("stage", s.e.Path, err)
	}
	if s.temp == nil {
		return nil
	}
	if err := g.syncTemps([]*temp{s.temp}, nil); err != nil {
		s.Discard()
		return step("sync", s.e.Path, err)
	}
	return nil
}

// used notes that the temp is in the tree now.
func (g *group) used(s *Staged) {
	g.t.closeFile(s.temp)
	s.temp = nil
}

// swap puts what is staged in the place of something of another kind, which
// is then in tmp by the temp's name.
func (g *group) swap(s *Staged, parent directory) error {
	t, p := g.t, s.e.Path
	g.syncAll = true // of tmp, too: what was swapped out must not be lost
	exchange := func() error {
		err := t.tmp.rename(s.temp.name, parent, p.Base(), exchanging)
		if !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOSYS) && !errors.Is(err, syscall.EOPNOTSUPP) {
			return err
		}
		// A file system that cannot exchange: for an instant nothing stands
		// there.
		away := t.tempName()
		if err := parent.rename(p.Base(), t.tmp, away, replacing); err != nil {
			return err
		}
		if err := t.tmp.rename(s.temp.name, parent, p.Base(), replacing); err != nil {
			return errors.Join(err, t.tmp.rename(away, parent, p.Base(), replacing))
		}
		return t.tmp.rename(away, t.tmp, s.temp.name, replacing)
	}
	err := g.lifted(p.Parent(), parent, exchange)
	if errors.Is(err, syscall.EACCES) && g.liftMoved(p) == nil {
		err = exchange()
	}
	return err
}

// liftMoved gives us the right to move the directory at p to another parent:
// its ".." is written.
func (g *group) liftMoved(p events.Path) error {
	d, err := g.open(p)
	if err != nil {
		return err
	}
	lifted, err := g.lift(p, d)
	if err == nil && !lifted {
		err = syscall.EACCES
	}
	return err
}

// discardDir gets rid of a directory that was swapped out into tmp: to the
// trash if it has something in it.
func (g *group) discardDir(s *Staged, p events.Path) error {
	t, name := g.t, s.temp.name
	g.forget(p)
	g.used(s)
	err := t.tmp.remove(name, true)
	if notEmpty(err) {
		err = g.toTrash(t.tmp, name, p)
	}
	if err != nil {
		// It is out of the tree, which is what the entry asks for; the next
		// Open finds it.
		t.log.Warn("replaced directory is left in staging", "path", quote(p), "err", err)
	}
	return nil
}

// movable refuses to move a directory that has a mount in it.
func movable(parent directory, name string) error {
	mounted, err := parent.mounts(name)
	if err == nil && mounted {
		err = ErrMount
	}
	return err
}

// toTrash moves name of d, which stood at p in the tree, to a batch of its own
// in the trash.
func (g *group) toTrash(d directory, name string, p events.Path) error {
	b, err := g.t.newBatch()
	if err != nil {
		return step("trash", p, err)
	}
	defer b.close()
	g.syncAll = true
	return step("trash", p, b.rename(d, name, p.String()))
}

// linkToTrash gives what stands at p a second name, in a batch of its own in
// the trash; nil if it cannot.
func (g *group) linkToTrash(parent directory, p events.Path) *batch {
	b, err := g.t.newBatch()
	if err == nil {
		defer b.close()
		g.syncAll = true
		err = b.put(p.String(), func(to directory, name string) error { return parent.link(p.Base(), to, name) })
	}
	if err != nil {
		g.t.log.Debug("what is replaced is not kept in the trash", "path", quote(p), "err", err)
		g.takeBack(b)
		return nil
	}
	return b
}

// takeBack removes a batch of second names; nil is none.
func (g *group) takeBack(b *batch) {
	if b == nil {
		return
	}
	if err := g.t.removeAll(g.t.trash, b.name); err != nil { // it expires
		g.t.log.Debug("second name in the trash not removed", "err", err)
	}
}
