package apply

import (
	"context"
	"errors"

	"treecast/internal/events"
)

// A group is one Commit under way, and what a recovery is made of.
type group struct {
	t       *Tree
	held    map[events.Path]directory
	want    map[events.Path]*wanted       // directories that the group changes
	comes   map[events.Path]*events.Entry // the last Dir entry that the group has of a path
	dirty   map[events.Path]bool          // directories to be made durable
	syncAll bool                          // more than directories is to be made durable
	failed  []*events.Entry
}

func (t *Tree) begin() *group {
	return &group{
		t:     t,
		held:  map[events.Path]directory{},
		want:  map[events.Path]*wanted{},
		comes: map[events.Path]*events.Entry{},
		dirty: map[events.Path]bool{},
	}
}

func (g *group) end() { g.letGo(events.Path{}) }

// Commit makes staged entries visible, in their order, and durable, and says
// of each what became of it. A result without an error is done: it is on
// stable storage, and an ack may be given. An entry that went wrong does not
// hurt the others, but for those that must come after it (see
// [events.Ordered]): they are not applied and have [ErrBehind].
//
// An error of Commit itself, beside nil results, means that nothing of the
// group may be acked, since nothing of it may be durable. All of it is to be
// committed again, or staged and committed again, which is harmless for what
// did become visible.
//
// A reader of the tree sees each path change in one rename, its attributes
// included. Directories keep the mtime that they had, unless the group has
// their entry, whose attributes are set last.
//
// What is done is used up; what had an error may be committed again or
// discarded. ctx is looked at before the first change, not after it. One
// Commit runs at a time, others wait. A Commit of nothing makes up for what an
// earlier one could not: directories that it could not settle, a failed sync.
//
// Errors are *[StepError].
func (t *Tree) Commit(ctx context.Context, staged []*Staged) ([]Result, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := ctx.Err()
	if err == nil && t.journal == nil {
		err = ErrReadOnly
	}
	if err != nil {
		return nil, step("commit", events.Path{}, err)
	}
	g := t.begin()
	defer g.end()
	for p, state := range t.owed {
		g.want[p] = &wanted{before: state}
	}
	g.plan(staged)
	if err := g.secure(staged); err != nil {
		return nil, err
	}
	results := make([]Result, len(staged))
	for i, s := range staged {
		g.trim()
		results[i] = g.apply(i, s)
	}
	g.settle(results)
	if err := g.syncDirs(); err != nil {
		return nil, err
	}
	for i, s := range staged {
		if results[i].Err == nil {
			s.Discard() // it may have been found right after all
			s.payload = nil
		}
	}
	return results, nil
}

// plan notes which directories the group is going to change, so that one
// journal and one sync do for all of them. What it cannot foresee is seen to
// when it comes.
func (g *group) plan(staged []*Staged) {
	missing := map[events.Path]bool{}
	for _, s := range staged {
		g.trim()
		p := s.e.Path
		switch {
		case s.skip, s.right:
			continue
		case s.e.Kind == events.Dir:
			g.comes[p] = s.e
			if d, err := g.t.root.lstat(p.String()); err == nil && d.kind == events.Dir {
				continue
			}
		}
		if p.IsRoot() {
			continue
		}
		for parent := p.Parent(); ; parent = parent.Parent() {
			if missing[parent] && !parent.IsRoot() {
				continue
			}
			if g.want[parent] != nil {
				break
			}
			d, err := g.open(parent)
			if s.e.Kind == events.Tombstone {
				if absent(err) {
					break // nothing there, nothing to do
				}
				if err == nil {
					if _, err := d.lstat(p.Base()); absent(err) {
						break
					}
				}
			}
			if err == nil {
				_, err = g.touch(parent, d)
			}
			if err == nil || !absent(err) || parent.IsRoot() {
				break
			}
			missing[parent] = true
		}
	}
}

// apply does one entry's part that readers see.
func (g *group) apply(i int, s *Staged) Result {
	p := s.e.Path
	for _, f := range g.failed {
		if events.Ordered(f, s.e) {
			g.failed = append(g.failed, s.e)
			return Result{Err: step("commit", p, ErrBehind)}
		}
	}
	var outcome Outcome
	var err error
	s.item = ""
	switch {
	case s.skip:
		outcome = Skipped
	case s.e.Kind == events.Tombstone:
		if outcome, err = g.remove(p); outcome == Deleted {
			s.item = events.Itemize(nil, s.e)
		}
	case s.e.Kind == events.Dir:
		outcome, err = g.placeDir(i, s)
	default:
		outcome, err = g.place(s)
	}
	if err != nil {
		g.failed = append(g.failed, s.e)
		return Result{Err: step("commit", p, err)}
	}
	if err := g.t.parts.remove(p); err != nil { // of an older version; it expires
		g.t.log.Debug("part could not be removed", "path", quote(p), "err", err)
	}
	return Result{Outcome: outcome, Itemized: s.item}
}

// recent reports whether what st is of may not be durable yet, whoever wrote
// it: an ack for it must wait for a sync.
func (g *group) recent(st stat) bool { return st.ctime.Compare(g.t.syncedAt) >= 0 }

// errGone reports a path that something else changes at the same time.
var errGone = errors.New("path changes under our hands")
