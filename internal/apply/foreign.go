package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"treecast/internal/events"
)

// RemoveForeign moves paths to the trash, and returns those that it moved: a
// path that lies in another one goes with it. A path that is not
// there is passed over. Their parents keep their mtimes. Durable on return.
//
// What cannot be moved does not hinder the others; the first such error is
// returned, beside them, as a *[StepError]. A Commit and RemoveForeign wait
// for one another. The root is refused.
func (t *Tree) RemoveForeign(ctx context.Context, paths []events.Path) ([]events.Path, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.journal == nil {
		return nil, step("trash", events.Path{}, ErrReadOnly)
	}
	if err := ctx.Err(); err != nil {
		return nil, step("trash", events.Path{}, err)
	}
	paths = slices.Clone(paths)
	slices.SortFunc(paths, events.Path.Compare)
	paths = topmost(paths)
	if len(paths) > 0 && paths[0].IsRoot() {
		return nil, step("trash", events.Path{}, fmt.Errorf("%w: the root is never removed", events.ErrPath))
	}
	g := t.begin()
	defer g.end()
	tops := make([]*Staged, len(paths))
	for i, p := range paths { // to the plan they are tombstones
		tops[i] = &Staged{t: t, e: &events.Entry{Path: p, Kind: events.Tombstone}}
	}
	g.plan(tops)
	if err := g.secure(nil); err != nil {
		return nil, err
	}
	moved, err := g.takeAwayAll(ctx, paths)
	g.settle(nil)
	if err2 := g.syncDirs(); err2 != nil {
		return nil, err2
	}
	return moved, err
}

func (g *group) takeAwayAll(ctx context.Context, paths []events.Path) (moved []events.Path, first error) {
	var b *batch
	defer func() {
		if b != nil {
			b.close()
		}
	}()
	for _, p := range paths {
		if ctx.Err() != nil {
			return moved, step("trash", p, errors.Join(first, ctx.Err()))
		}
		g.trim()
		done, err := func() (bool, error) {
			parent, err := g.open(p.Parent())
			if absent(err) {
				return false, nil
			}
			if err != nil {
				return false, err
			}
			st, err := g.standing(parent, p)
			if err != nil || st.ino == 0 {
				return false, err
			}
			if b == nil {
				if b, err = g.t.newBatch(); err != nil {
					return false, err
				}
			}
			if err := g.enter(p.Parent(), parent); err != nil {
				return false, err
			}
			return true, g.takeAway(parent, p, b)
		}()
		if err != nil {
			if first == nil {
				first = step("trash", p, err)
			}
			continue
		}
		if done {
			g.forget(p)
			moved = append(moved, p)
		}
	}
	return moved, first
}

// topmost drops from sorted paths those that lie in another one, or are one.
func topmost(sorted []events.Path) []events.Path {
	top := sorted[:0]
	for _, p := range sorted {
		if len(top) == 0 || !p.Within(top[len(top)-1]) {
			top = append(top, p)
		}
	}
	return top
}
