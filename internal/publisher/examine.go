package publisher

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"treecast/internal/events"
	"treecast/internal/source"
)

// A plan is what a round found to send.
type plan struct {
	began      time.Time
	changes    []change                      // ordered for nodes; files are not read yet
	tombstones []events.Path                 // deepest first
	lost       int                           // files that only a listing found missing, and that have no new name
	emptied    bool                          // a listing of the root had nothing, the index has
	moved      map[events.Digest]events.Path // bodies of files that are gone
	seen       int                           // paths looked at
	before     int                           // changes that were published in parts of it
	scanned    bool                          // the root was listed, with all under it
	failed     []task                        // to be looked at again
}

// A change is a path whose state differs from what is published.
type change struct {
	meta  source.Meta
	task  task
	isNew bool // not published yet, as far as is known for sure
}

// An examiner makes a plan. It reads the disk and the index and changes
// neither, but for what it gives to part.
type examiner struct {
	p       *Publisher
	index   *index
	part    func(context.Context, plan) error // nil: the plan is made whole
	plan    plan
	since   uint64               // the oldest of the tasks': what is put back stands for any of them
	asked   map[events.Path]bool // the tasks' paths
	planned map[events.Path]bool // there, and looked at in this round; but for files that are as published and were not asked for: most of a tree
	walked  map[events.Path]bool // tried to list in this round; true: it was complete
	skipped map[string]bool      // there, and not looked at: it is not for publishing, or could not be
	gone    map[events.Path]bool // the tombstones; true: found by a listing
}

// examine looks at every task's path. An error ends the round with nothing
// more sent: the context's, that the root is lost, or part's.
//
// Where nothing, or next to it, is published, there is nothing to guard, and part
// is given what was found so far, whenever that is much: a first scan takes no
// more memory than the index, and nodes have the first files before it has ended.
func (p *Publisher) examine(ctx context.Context, x *index, tasks []task, part func(context.Context, plan) error) (plan, error) {
	if err := p.src.Check(); err != nil {
		return plan{}, err
	}
	if x.Files() > p.floor {
		part = nil
	}
	ex := &examiner{
		p: p, index: x, part: part, plan: plan{began: time.Now()},
		asked: make(map[events.Path]bool), planned: make(map[events.Path]bool), walked: make(map[events.Path]bool), skipped: make(map[string]bool), gone: make(map[events.Path]bool),
	}
	// Ancestors before descendants: then a deep hint answers those under it.
	slices.SortFunc(tasks, func(a, b task) int { return a.path.Compare(b.path) })
	ex.since = math.MaxUint64
	for _, t := range tasks {
		ex.since = min(ex.since, t.since)
		ex.asked[t.path] = true
	}
	for _, t := range tasks {
		if err := ctx.Err(); err != nil {
			return plan{}, err
		}
		if err := ex.look(ctx, t); err != nil {
			return plan{}, err
		}
	}
	if len(ex.walked) > 0 {
		p.report.Prune(ex.vanished)
	}
	ex.order()
	return ex.plan, nil
}

// look answers one task.
func (ex *examiner) look(ctx context.Context, t task) error {
	if ex.planned[t.path] && !t.deep {
		return nil
	}
	m, err := ex.p.src.Lstat(t.path)
	var skip *source.SkipError
	switch {
	case err == nil:
		if err := ex.parents(t.path); err != nil {
			return err
		}
		ex.add(m, t)
		if m.Entry.Kind == events.Dir && (t.deep || ex.index.Get(t.path) == nil) {
			return ex.walk(ctx, t)
		}
	case errors.Is(err, source.ErrAbsent):
		ex.bury(t.path, false)
	case errors.Is(err, source.ErrRootLost):
		return err
	case errors.As(err, &skip):
		ex.p.report.Skipped(skip, below)
	default:
		ex.p.report.Failed("look", t.path.String(), err, below)
		t.deep = true // what is under it is not known either
		ex.plan.failed = append(ex.plan.failed, t)
	}
	return nil
}

// parents adds the ancestors of p that are not published, so that no node has
// to guess a directory's mode.
func (ex *examiner) parents(p events.Path) error {
	for !p.IsRoot() {
		p = p.Parent()
		if ex.planned[p] || ex.index.Get(p) != nil && ex.index.Get(p).kind == events.Dir {
			return nil
		}
		m, err := ex.p.src.Lstat(p)
		if errors.Is(err, source.ErrRootLost) {
			return err
		}
		if err == nil {
			ex.add(m, task{path: p})
		}
	}
	return nil
}

// add plans m if it differs from what is published.
func (ex *examiner) add(m source.Meta, t task) {
	path := m.Entry.Path
	delete(ex.gone, path) // it is back
	if ex.planned[path] {
		return
	}
	if ex.asked[path] || m.Entry.Kind == events.Dir {
		ex.planned[path] = true
	}
	ex.plan.seen++
	r := ex.index.Get(path)
	if m.Entry.Kind != events.Dir {
		// What was in a directory here is gone with it, by this very lstat.
		for name := range ex.index.Children(path) {
			if child, err := path.Join(name); err == nil {
				ex.bury(child, false)
			}
		}
	}
	if ex.index.Matches(r, &m.Entry) && !(m.Entry.Kind == events.File && ex.p.src.Racy(m)) {
		ex.p.report.Cleared(&m.Entry)
		if m.Entry.Size > events.MaxInlineBytes {
			ex.p.inodes.put(m)
		}
		return
	}
	ex.planned[path] = true
	t.path, t.deep, t.since = path, false, ex.since
	ex.plan.changes = append(ex.plan.changes, change{meta: m, task: t, isNew: !ex.index.Has(path)})
}

// walk lists the directory t.path and all under it. A listing that met an
// error proves nothing and is tried again.
func (ex *examiner) walk(ctx context.Context, t task) error {
	if _, walked := ex.walked[t.path]; walked || ctx.Err() != nil {
		return ctx.Err()
	}
	ex.walked[t.path] = false
	list, err := ex.p.src.List(t.path)
	if err != nil {
		var skip *source.SkipError
		switch {
		case errors.Is(err, source.ErrRootLost):
			return err
		case errors.Is(err, source.ErrAbsent):
			ex.bury(t.path, false)
		case errors.As(err, &skip):
			ex.p.report.Skipped(skip, below)
		default:
			ex.p.report.Failed("list", t.path.String(), err, below)
			ex.plan.failed = append(ex.plan.failed, task{path: t.path, deep: true, attempts: t.attempts, since: ex.since})
		}
		return nil
	}
	ex.walked[t.path] = true
	ex.p.report.Listed(t.path.String())
	if t.path.IsRoot() {
		ex.plan.scanned = true
	}
	there := make(map[string]bool, len(list.Children)+len(list.Skipped)+len(list.Unknown))
	for _, skip := range list.Skipped {
		ex.p.report.Skipped(skip, below)
		there[filepath.Base(skip.Path)] = true
		ex.skipped[skip.Path] = true
	}
	for _, name := range list.Unknown {
		there[name] = true
		if child, err := t.path.Join(name); err == nil {
			ex.skipped[child.String()] = true
			ex.p.report.Failed("look", child.String(), errUnknown, below)
			ex.plan.failed = append(ex.plan.failed, task{path: child, deep: true, attempts: t.attempts, since: ex.since})
		}
	}
	for _, m := range list.Children {
		there[m.Entry.Path.Base()] = true
		ex.add(m, task{path: m.Entry.Path})
		if m.Entry.Kind == events.Dir {
			if err := ex.walk(ctx, task{path: m.Entry.Path, deep: true}); err != nil {
				return err
			}
		}
	}
	if ex.part != nil && len(ex.plan.changes) >= ex.p.part {
		if err := ex.publishPart(ctx); err != nil {
			return err
		}
	}
	for name := range ex.index.Children(t.path) {
		if there[name] {
			continue
		}
		if child, err := t.path.Join(name); err == nil {
			ex.bury(child, true)
		}
	}
	if t.path.IsRoot() && len(there) == 0 && ex.index.Len() > 1 {
		ex.plan.emptied = true
	}
	return nil
}

// publishPart has published what is planned so far, but for the root, which comes
// last.
func (ex *examiner) publishPart(ctx context.Context) error {
	pl := &ex.plan
	sortChanges(pl.changes)
	part := plan{began: pl.began, changes: pl.changes, before: pl.before}
	var root []change
	if last := len(pl.changes) - 1; pl.changes[last].meta.Entry.Path.IsRoot() {
		part.changes, root = pl.changes[:last], slices.Clone(pl.changes[last:])
	}
	if err := ex.part(ctx, part); err != nil {
		return err
	}
	pl.before += len(part.changes)
	for _, c := range part.changes {
		e := &c.meta.Entry
		if e.Kind != events.Dir && !ex.asked[e.Path] && ex.index.Matches(ex.index.Get(e.Path), e) {
			delete(ex.planned, e.Path)
		}
	}
	pl.changes = append(pl.changes[:0], root...)
	return nil
}

// bury plans a tombstone for every published path at or under p. What was
// hinted was seen to go; listed paths were only found missing.
func (ex *examiner) bury(p events.Path, listed bool) {
	ex.p.report.Gone(p.String())
	for path := range ex.index.Subtree(p) {
		if before, ok := ex.gone[path]; !path.IsRoot() {
			ex.gone[path] = listed && (before || !ok)
		}
	}
}

// vanished reports whether a complete listing of this round lacks path, or
// something that it is in.
func (ex *examiner) vanished(path string) bool {
	for path != "." {
		parent := filepath.Dir(path)
		dir, err := events.ParsePath(parent)
		if err == nil && ex.walked[dir] && !ex.skipped[path] {
			if p, err := events.ParsePath(path); err != nil || !ex.planned[p] {
				return true
			}
		}
		path = parent
	}
	return false
}

// order sorts the plan for nodes and finds renames.
func (ex *examiner) order() {
	pl := &ex.plan
	pl.moved = make(map[events.Digest]events.Path)
	arrived := make(map[shape]int)
	missing := false // a path was not in a listing, and nothing hinted that it went
	for _, c := range pl.changes {
		if c.isNew && c.meta.Entry.Kind != events.Dir {
			arrived[shapeOf(&c.meta.Entry)]++
		}
	}
	for path, listed := range ex.gone {
		r := ex.index.Get(path)
		if listed {
			missing = true
			switch of := (shape{r.size, r.mtime}); {
			case r.kind == events.Dir:
			case arrived[of] > 0:
				arrived[of]--
			default:
				pl.lost++
			}
		}
		pl.tombstones = append(pl.tombstones, path)
		if r.kind == events.File && r.size > 0 {
			pl.moved[r.digest] = path
		}
	}
	pl.emptied = pl.emptied && missing
	slices.SortFunc(pl.tombstones, func(a, b events.Path) int {
		if d := b.Depth() - a.Depth(); d != 0 {
			return d
		}
		return a.Compare(b)
	})
	sortChanges(pl.changes)
}

// sortChanges sorts changes for nodes.
func sortChanges(changes []change) {
	slices.SortFunc(changes, func(a, b change) int {
		if d := rank(&a.meta.Entry) - rank(&b.meta.Entry); d != 0 {
			return d
		}
		return a.meta.Entry.Path.Compare(b.meta.Entry.Path)
	})
}

// rank is the order of kinds in a round: what is named comes before what
// names it.
func rank(e *events.Entry) int {
	switch {
	case e.Path.IsRoot():
		return 4 // see session.seal
	case e.Kind == events.Dir:
		return 0
	case e.Kind == events.Symlink:
		return 3
	}
	switch strings.ToLower(filepath.Ext(e.Path.Base())) {
	case ".html", ".htm", ".php":
		return 2
	}
	return 1
}

// check is the guard of P4: a listing that would delete most of the tree is
// more likely to be a mistake, an unmounted disk say, than anyone's wish.
//
// What only has another name now does not count. published is how many files
// are, and floor how many deletions never halt.
func (pl *plan) check(published, floor int) error {
	if pl.emptied {
		return fmt.Errorf("%w: the root is empty, and %d files are published", ErrMassDelete, published)
	}
	if pl.lost > floor && pl.lost > published/2 {
		return fmt.Errorf("%w: %d of %d published files are missing", ErrMassDelete, pl.lost, published)
	}
	return nil
}

// massDeleteFloor is the number of deletions that never halt by themselves,
// but where the root is not the directory that it was.
const massDeleteFloor = 100

var errUnknown = errors.New("lstat gave no answer")
