package apply

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"treecast/internal/events"
)

// stand is a story's tree in one of its states.
type stand struct {
	t     tb
	s     story
	opts  Options
	dir   string // in memory, with top in it; empty: the test's
	top   string
	power *power
	tree  *Tree
	acked map[[2]int]bool // group, index
	mark  uint64          // the last one that Mark returned for
	disk  func() error    // see power
}

func (s story) options(t tb, top string) Options {
	codec, err := events.NewCodec(1)
	must(t, err)
	t.Cleanup(codec.Close)
	o := Options{Root: filepath.Join(top, "html"), Site: "web", Node: "b", Codec: codec, Specials: true}
	if s.change != nil {
		s.change(&o)
	}
	return o
}

// set makes the tree as it is before the story, and holds it with a power
// that has not failed yet.
func (s story) set(t tb, codecFrom *Options) *stand {
	t.Helper()
	dir := memDir(t)
	st := s.setAt(t, filepath.Join(dir, "top"), codecFrom)
	st.dir = dir
	return st
}

// setAt is set with the tree in top.
func (s story) setAt(t tb, top string, codecFrom *Options) *stand {
	t.Helper()
	must(t, os.MkdirAll(filepath.Join(top, "html"), 0o755))
	o := *codecFrom
	o.Root = filepath.Join(top, "html")
	st := &stand{t: t, s: s, opts: o, top: top, acked: map[[2]int]bool{}}
	if len(s.before) > 0 {
		st.hold()
		st.s.do = nil
		must(t, st.commit([][]item{s.before}))
		st.s.do = s.do
		must(t, st.tree.Mark(Watermark{Site: "web", Seq: 1}))
		must(t, st.tree.Close())
		for path, content := range s.foreign {
			parent := filepath.Dir(filepath.Join(o.Root, path))
			var before, _ = os.Stat(parent)
			must(t, os.WriteFile(filepath.Join(o.Root, path), []byte(content), 0o600))
			must(t, os.Chtimes(parent, time.Time{}, before.ModTime()))
		}
		clear(st.acked)
	}
	st.mark = 1
	return st
}

func (st *stand) hold() {
	st.t.Helper()
	must(st.t, st.tryHold(failBefore, 0))
}

func (st *stand) tryHold(kind fault, at int) (err error) {
	st.power = newPower(st.t, st.top, kind, at)
	st.power.disk = st.disk
	st.tree, err = open(st.opts, st.power)
	return err
}

// commit applies what is not acked yet and stops at the first error.
func (st *stand) commit(groups [][]item) error {
	for g, items := range groups {
		var staged []*Staged
		var at []int
		discard := func() {
			for _, s := range staged {
				s.Discard()
			}
		}
		for i, it := range items {
			if st.acked[[2]int{g, i}] {
				continue
			}
			s, err := it.stage(st.t.Context(), st.tree)
			if err != nil {
				discard()
				return err
			}
			staged, at = append(staged, s), append(at, i)
		}
		results, err := st.tree.Commit(st.t.Context(), staged)
		for i, r := range results {
			if r.Err == nil {
				st.acked[[2]int{g, at[i]}] = true
			} else if err == nil {
				err = r.Err
			}
		}
		if err != nil {
			discard()
			return err
		}
		if err := st.tree.Mark(Watermark{Site: "web", Seq: uint64(g + 2)}); err != nil {
			return err
		}
		st.mark = uint64(g + 2)
	}
	if st.s.do != nil {
		return st.s.do(st)
	}
	return nil
}

// states says what each path is before the groups, and after each of their
// items.
func (s story) states() []map[string]item {
	state := map[string]item{}
	apply := func(it item) {
		if it.kind != events.Dir {
			for p := range state {
				if strings.HasPrefix(p, it.path+"/") {
					delete(state, p)
				}
			}
		}
		for p := parse(it.path).Parent(); !p.IsRoot() && it.kind != events.Tombstone; p = p.Parent() {
			if state[p.String()].kind != events.Dir {
				state[p.String()] = item{path: p.String(), kind: events.Dir, made: true}
			}
		}
		state[it.path] = it
	}
	for _, it := range s.before {
		apply(it)
	}
	states := []map[string]item{maps.Clone(state)}
	for _, g := range s.groups {
		for _, it := range g {
			apply(it)
			states = append(states, maps.Clone(state))
		}
	}
	return states
}

// checkNew checks that the tree is what the story leads to.
func (st *stand) checkNew(what string) {
	st.t.Helper()
	states := st.s.states()
	for _, it := range states[len(states)-1] {
		if diff := differs(st.opts.Root, it); diff != "" {
			st.t.Errorf("%s: %q %s", what, it.path, diff)
		}
	}
	if st.s.done != nil {
		if lacking := st.s.done(st); lacking != "" {
			st.t.Errorf("%s: %s", what, lacking)
		}
	}
	st.checkForeign(what)
}

// checkForeign checks that nothing of someone else's is lost.
func (st *stand) checkForeign(what string) {
	st.t.Helper()
	for _, files := range []map[string]string{st.s.foreign, st.s.kept} {
		for path, content := range files {
			found := false
			must(st.t, filepath.WalkDir(st.top, func(p string, d os.DirEntry, err error) error {
				if d.Name() == filepath.Base(path) {
					raw, err := os.ReadFile(p)
					found = found || err == nil && string(raw) == content
				}
				return err
			}))
			if !found {
				st.t.Errorf("%s: foreign %q is lost", what, path)
			}
		}
	}
}

// checkOldOrNew checks every path after recovery: as after one of the items or
// as before, the acked ones new; directories without an entry under way
// exactly so.
func (st *stand) checkOldOrNew(what string) {
	st.t.Helper()
	comes := map[string]bool{}
	final := map[string][2]int{}
	paths := map[string]bool{}
	states := st.s.states()
	for p := range states[0] {
		paths[p] = true
	}
	for g, items := range st.s.groups {
		for i, it := range items {
			paths[it.path] = true
			final[it.path] = [2]int{g, i}
			comes[it.path] = comes[it.path] || !st.acked[[2]int{g, i}]
		}
	}
	for p := range paths {
		var reasons []string
		ok := false
		for _, state := range states {
			it, known := state[p]
			if !known {
				it = gone(p)
			}
			diff := differs(st.opts.Root, it)
			if it.kind == events.Dir && comes[p] && !strings.HasPrefix(diff, "is a ") && !strings.HasPrefix(diff, "no such") {
				diff = "" // its attributes come again
			}
			ok = ok || diff == ""
			reasons = append(reasons, diff)
		}
		if !ok {
			st.t.Errorf("%s: %q is neither old nor new: %q", what, p, reasons)
		}
		at, is := final[p]
		if !is || !st.acked[at] {
			continue
		}
		it := st.s.groups[at[0]][at[1]]
		// A later entry of an ancestor may have replaced it, or is about to.
		replaced := false
		for g, items := range st.s.groups {
			for i, other := range items {
				later := g > at[0] || g == at[0] && i > at[1]
				replaced = replaced || later && parse(it.path).Kin(parse(other.path)) && other.path != p
			}
		}
		if diff := differs(st.opts.Root, it); diff != "" && !replaced {
			st.t.Errorf("%s: %q was acked, but %s", what, p, diff)
		}
	}
	st.checkForeign(what)
}

// rawMark reads the watermark whatever root it is of: a copy of a tree has
// another.
func rawMark(t tb, tree *Tree) uint64 {
	t.Helper()
	s := newMarkSlots(tree.staging)
	defer s.close()
	record, err := s.load()
	must(t, err)
	if record == nil {
		return 0
	}
	var r markRecord
	must(t, json.Unmarshal(record, &r))
	return r.Seq
}

// memDir is a TempDir in memory if there is such a place: these tests model
// power loss and need no disk, and there are thousands of them.
func memDir(t tb) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "treecast-test-")
	if err != nil {
		dir, err = os.MkdirTemp("", "treecast-test-")
		must(t, err)
	}
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

// reboot is a power cut and a start from what is left. The tree is left as it
// was, for the process that did not die.
func (st *stand) reboot() *stand {
	st.t.Helper()
	dir := memDir(st.t)
	top := filepath.Join(dir, "top")
	st.power.survive(st.t, top)
	next := &stand{t: st.t, s: st.s, opts: st.opts, dir: dir, top: top, acked: map[[2]int]bool{}, mark: st.mark}
	next.opts.Root = filepath.Join(top, "html")
	for k := range st.acked {
		next.acked[k] = true
	}
	return next
}

// revive is a kill -9 and a new start, with the power on all the time.
func (st *stand) revive() (err error) {
	st.t.Helper()
	_ = st.tree.Close() // the kernel closes what a killed process had open
	st.power.mu.Lock()
	st.power.dead, st.power.at = false, 0
	st.power.mu.Unlock()
	st.tree, err = open(st.opts, st.power)
	return err
}

func (st *stand) close() {
	st.t.Helper()
	st.power.mu.Lock()
	st.power.dead, st.power.at = false, 0
	st.power.mu.Unlock()
	must(st.t, st.tree.Close())
	st.remove()
}

// remove takes away what only memory holds, at once: a test has thousands of
// stands, and one that is killed leaves what is there.
func (st *stand) remove() {
	st.t.Helper()
	if st.dir != "" {
		must(st.t, os.RemoveAll(st.dir))
	}
}

// recovered checks a tree after a power cut: old or new, then, with what was
// not acked applied again, new, and that durably.
func (st *stand) recovered(what string) {
	st.t.Helper()
	st.hold()
	st.checkOldOrNew(what + ", reopened")
	if seq := rawMark(st.t, st.tree); seq < st.mark && len(st.s.before) > 0 || seq > uint64(len(st.s.groups)+1) {
		st.t.Errorf("%s: watermark %d, marked was %d", what, seq, st.mark)
	}
	if l, err := st.tree.tmp.names(); err != nil || len(l) > 0 {
		st.t.Errorf("%s: litter %q %v", what, l, err)
	}
	must(st.t, st.commit(st.s.groups))
	st.checkNew(what + ", replayed")
	st.close()
}
