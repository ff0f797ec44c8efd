package publisher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"

	"pgregory.net/rapid"

	"treecast/internal/events"
	"treecast/internal/source"
)

// A world is a source tree in memory, which can fail as one on disk does. It is
// a disk; whoever changes it is told of by hints, as by a watcher.
type world struct {
	mu     sync.Mutex
	things map[events.Path]thing
	clock  int64
	inodes uint64
	hints  map[events.Path]bool // true: deep

	lost    bool                  // the root is
	blind   map[events.Path]error // what a look at a path gives
	closed  map[events.Path]error // what a listing of it gives
	unread  map[events.Path]error // what reading it gives
	calls   int                   // of looker
	atCall  int                   // before which happens is called; 0: never
	happens func()
}

// A thing is what stands at a path. A symlink's body is its target.
type thing struct {
	kind         events.Kind
	mode         uint16
	mtime, ctime int64
	body         string
	ino          uint64
}

// A worldOp is one change of a world; one that is impossible does nothing.
type worldOp struct {
	name  string
	a, b  events.Path
	value int
}

// opNames are weighted by being there more than once.
var opNames = []string{"file", "file", "file", "dir", "symlink", "remove", "remove", "rename", "rename", "swap", "cycle", "chmod", "touch", "copy"}

// pathNames have what file systems allow and programs stumble over; a few of them
// often, so that what is drawn meets.
var pathNames = []string{"a", "a", "a", "a", "a", "b", "b", "b", "c", "c", "A", "x.html", "\xff\xfe", " ", "-", "a\nb", "...", "=5F", "é"}

func somePath(t *rapid.T, label string) events.Path {
	p := events.Path{}
	names := rapid.SampledFrom(pathNames)
	for range rapid.SampledFrom([]int{1, 2, 2, 3}).Draw(t, label+" depth") {
		var err error
		if p, err = p.Join(names.Draw(t, label)); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func someOps(t *rapid.T, most int) []worldOp {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) worldOp {
		return worldOp{rapid.SampledFrom(opNames).Draw(t, "op"), somePath(t, "path"), somePath(t, "other"), rapid.IntRange(0, 3).Draw(t, "value")}
	}), 0, most).Draw(t, "ops")
}

// somePaths are some of those that stand in the world, but for the root.
func (w *world) somePaths(t *rapid.T, label string, most int) []events.Path {
	all := slices.SortedFunc(maps.Keys(w.things), events.Path.Compare)[1:]
	if len(all) == 0 {
		return nil
	}
	return rapid.SliceOfN(rapid.SampledFrom(all), 0, most).Draw(t, label)
}

func newWorld(ops []worldOp) *world {
	w := &world{
		things: map[events.Path]thing{{}: {kind: events.Dir, mode: 0o755}}, hints: map[events.Path]bool{},
		blind: map[events.Path]error{}, closed: map[events.Path]error{}, unread: map[events.Path]error{},
	}
	w.do(ops)
	return w
}

// planted are the operations that make a small tree with something to lose.
func planted(t *rapid.T) []worldOp {
	var ops []worldOp
	for _, name := range []string{"a/", "a/a/", "a/a/a", "a/a/b", "a/b", "a/x.html", "b/", "b/a", "c"} {
		p, err := events.ParsePath(strings.TrimSuffix(name, "/"))
		if err != nil {
			t.Fatal(err)
		}
		op := worldOp{name: "file", a: p, value: len(ops)}
		if strings.HasSuffix(name, "/") {
			op.name = "dir"
		}
		ops = append(ops, op)
	}
	return ops
}

// do changes the world.
func (w *world) do(ops []worldOp) {
	for _, op := range ops {
		w.clock++
		switch op.name {
		case "file":
			w.put(op.a, thing{kind: events.File, mode: 0o644, mtime: w.clock, body: fmt.Sprint("body ", op.value)})
		case "copy": // cp -p: only the bytes, if those, and ctime tell
			if from, ok := w.things[op.b]; ok && from.kind == events.File {
				from.body = fmt.Sprint("body ", op.value)
				w.put(op.a, from)
			}
		case "dir":
			w.put(op.a, thing{kind: events.Dir, mode: 0o755, mtime: w.clock})
		case "symlink":
			w.put(op.a, thing{kind: events.Symlink, mode: 0o777, mtime: w.clock, body: fmt.Sprint(op.value)})
		case "remove":
			w.remove(op.a)
		case "rename":
			w.rename(op.a, op.b)
		case "swap":
			w.swap(op.a, op.b)
		case "cycle":
			w.swap(op.a, op.b)
			if c, err := op.a.Parent().Join(op.b.Base()); err == nil {
				w.swap(op.b, c)
			}
		case "chmod", "touch":
			if at, ok := w.things[op.a]; ok {
				if at.ctime = w.clock; op.name == "touch" {
					at.mtime = int64(op.value)
				} else if at.kind != events.Symlink {
					at.mode = 0o700 + uint16(op.value)
				}
				w.things[op.a] = at
				w.hint(op.a, false)
			}
		}
	}
}

func (w *world) isDir(p events.Path) bool { return w.things[p].kind == events.Dir }

func (w *world) hint(p events.Path, deep bool) { w.hints[p] = w.hints[p] || deep }

// enter notes that names in the directory of p changed.
func (w *world) enter(p events.Path) {
	dir := w.things[p.Parent()]
	dir.mtime, dir.ctime = w.clock, w.clock
	w.things[p.Parent()] = dir
	w.hint(p.Parent(), false)
	w.hint(p, w.isDir(p))
}

// put makes something at p, in place of what stands there.
func (w *world) put(p events.Path, at thing) {
	if p.IsRoot() || !w.isDir(p.Parent()) || w.isDir(p) && at.kind == events.Dir {
		return
	}
	w.take(p)
	w.inodes++
	at.ino, at.ctime = w.inodes, w.clock
	w.things[p] = at
	w.enter(p)
}

func (w *world) remove(p events.Path) {
	if _, ok := w.things[p]; ok && !p.IsRoot() {
		w.take(p)
		w.enter(p)
	}
}

// take returns what is at and under p, and takes it out.
func (w *world) take(p events.Path) map[events.Path]thing {
	taken := map[events.Path]thing{}
	for q, at := range w.things {
		if q.Within(p) {
			taken[q] = at
			delete(w.things, q)
		}
	}
	return taken
}

// move puts what was taken from a to b.
func (w *world) move(taken map[events.Path]thing, a, b events.Path) {
	for q, at := range taken {
		if q == a {
			at.ctime = w.clock // as most file systems have it
		}
		w.things[reroot(q, a, b)] = at
	}
	w.enter(b)
}

func reroot(p, from, to events.Path) events.Path {
	if p == from {
		return to
	}
	q, err := reroot(p.Parent(), from, to).Join(p.Base())
	if err != nil {
		panic(err)
	}
	return q
}

func (w *world) rename(a, b events.Path) {
	if _, ok := w.things[a]; !ok || a.Kin(b) || !w.isDir(b.Parent()) {
		return
	}
	taken := w.take(a)
	w.take(b)
	w.enter(a)
	w.move(taken, a, b)
}

// swap is renameat2 with RENAME_EXCHANGE.
func (w *world) swap(a, b events.Path) {
	_, hasA := w.things[a]
	_, hasB := w.things[b]
	if hasA && hasB && !a.Kin(b) {
		takenA, takenB := w.take(a), w.take(b)
		w.move(takenA, a, b)
		w.move(takenB, b, a)
	}
}

// tasks are the hints since the last call.
func (w *world) tasks() []task {
	var tasks []task
	for p, deep := range w.hints {
		tasks = append(tasks, task{path: p, deep: deep})
	}
	clear(w.hints)
	slices.SortFunc(tasks, func(a, b task) int { return a.path.Compare(b.path) })
	return tasks
}

func (w *world) meta(p events.Path, read bool) source.Meta {
	at := w.things[p]
	m := source.Meta{Dev: 1, Ino: at.ino, Entry: events.Entry{
		Path: p, Kind: at.kind, Mode: at.mode, Mtime: events.Time{Sec: at.mtime}, Ctime: events.Time{Sec: at.ctime},
	}}
	switch at.kind {
	case events.File:
		if m.Entry.Size = int64(len(at.body)); read {
			m.Entry.Digest, m.Entry.Body = events.Sum([]byte(at.body)), events.InlineBody
		}
	case events.Symlink:
		m.Entry.Target = at.body
	}
	return m
}

// call is any call of a looker.
func (w *world) call() error {
	if w.calls++; w.calls == w.atCall {
		w.happens()
	}
	if w.lost {
		return source.ErrRootLost
	}
	return nil
}

func (w *world) Check() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.call()
}

func (w *world) Lstat(p events.Path) (source.Meta, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.call(); err != nil {
		return source.Meta{}, err
	}
	return w.look(p, false)
}

func (w *world) look(p events.Path, read bool) (source.Meta, error) {
	for q := p; ; q = q.Parent() {
		if err := w.blind[q]; err != nil {
			return source.Meta{}, err
		}
		if q.IsRoot() {
			break
		}
	}
	if _, ok := w.things[p]; !ok {
		return source.Meta{}, source.ErrAbsent
	}
	return w.meta(p, read), nil
}

func (w *world) List(dir events.Path) (source.Listing, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.call(); err != nil {
		return source.Listing{}, err
	}
	m, err := w.look(dir, false)
	if err == nil && m.Entry.Kind != events.Dir {
		err = source.ErrUnstable
	}
	if err == nil {
		err = w.closed[dir]
	}
	if err != nil {
		return source.Listing{}, err
	}
	l := source.Listing{Dir: m}
	for _, p := range slices.SortedFunc(maps.Keys(w.things), events.Path.Compare) {
		if p.IsRoot() || p.Parent() != dir {
			continue
		}
		err := w.blind[p]
		var skip *source.SkipError
		switch {
		case err == nil:
			l.Children = append(l.Children, w.meta(p, false))
		case errors.As(err, &skip):
			l.Skipped = append(l.Skipped, skip)
		default:
			l.Unknown = append(l.Unknown, p.Base())
		}
	}
	slices.SortFunc(l.Children, func(a, b source.Meta) int { return cmp.Compare(a.Entry.Path.Base(), b.Entry.Path.Base()) })
	return l, nil
}

func (w *world) Racy(source.Meta) bool { return false }

func (w *world) Settled(events.Path) (settled, known bool, err error) { return true, true, nil }

func (w *world) Read(p events.Path, _ []byte) (source.Meta, []byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, err := w.look(p, true)
	switch {
	case err == nil && w.lost:
		err = source.ErrRootLost
	case err == nil && m.Entry.Kind != events.File:
		err = source.ErrUnstable
	case err == nil:
		err = w.unread[p]
	}
	if err != nil {
		return source.Meta{}, nil, err
	}
	return m, []byte(w.things[p].body), nil
}

func (w *world) Chunk(context.Context, events.Path, uint32, source.Body, func(context.Context, source.Piece) error) (source.Meta, source.Body, error) {
	panic("no file is large")
}

// breakSome has looks at some paths fail.
func (w *world) breakSome(t *rapid.T) {
	for _, p := range w.somePaths(t, "broken", 4) {
		unreadable := &source.SkipError{Path: p.String(), Reason: source.Unreadable}
		failed := &source.PathError{Step: "list", Path: p, Err: syscall.EIO}
		switch rapid.SampledFrom([]string{"list", "unlistable", "look", "unreadable", "read", "busy", "unstable"}).Draw(t, "fault") {
		case "list":
			w.closed[p] = failed
		case "unlistable":
			w.closed[p] = unreadable
		case "look":
			w.blind[p] = failed
		case "unreadable":
			w.blind[p] = unreadable
		case "read":
			w.unread[p] = failed
		case "busy":
			w.unread[p] = source.ErrBusy
		case "unstable":
			w.unread[p] = source.ErrUnstable
		}
	}
}

func (w *world) mend() {
	clear(w.blind)
	clear(w.closed)
	clear(w.unread)
	w.lost, w.atCall = false, 0
}
