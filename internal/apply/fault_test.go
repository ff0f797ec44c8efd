package apply

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"treecast/internal/events"
)

// story is work that is broken at every call.
type story struct {
	name    string
	before  []item            // applied and acked
	foreign map[string]string // files that someone else put there then
	kept    map[string]string // files of before that are in the tree or in the trash
	groups  [][]item
	change  func(*Options)
	do      func(*stand) error  // after the groups; may be done again
	done    func(*stand) string // how that is lacking, "" if it is not
}

func stories() []story {
	d, root := dir("d").at(2000), dir(".").at(1000)
	return []story{
		{name: "new file", before: []item{root}, groups: [][]item{{reg("f", "new")}}},
		{name: "overwrite", before: []item{reg("d/f", "old"), d, root}, groups: [][]item{{reg("d/f", "new")}}},
		{name: "overwrite twice", before: []item{reg("d/f", "old"), d, root},
			groups: [][]item{{reg("d/f", "new")}, {reg("d/f", "newer").at(5)}}},
		{name: "journal is superseded", before: []item{reg("d/f", "old"), d, root},
			groups: [][]item{{reg("d/f", "new")}, {reg("d/g", "g"), dir("d").at(3000)}, {reg("d/g", "h")}, {gone("d/g"), dir("d").at(4000).with(0o711)}}},
		{name: "journal's directory is made anew", before: []item{reg("d/f", "old"), d, root},
			groups: [][]item{{reg("d/f", "new")}, {gone("d/f"), gone("d"), dir(".").at(3)}, {dir("d").at(7), reg("d/f", "again"), dir(".").at(4)}}},
		{name: "many files", before: []item{reg("d/f1", "old"), d, root}, groups: [][]item{{
			reg("d/f1", "new"), reg("d/f2", "2"), reg("d/f3", ""), reg("f4", "4"), reg("f5", "5"), reg("f6", "6")}}},
		{name: "new tree", before: []item{root}, groups: [][]item{{
			dir("a"), dir("a/b"), reg("a/b/f", "f"), link("a/l", "b"), fifo("a/p"), dir("a/b").at(8), dir("a").at(9), dir(".").at(10)}}},
		{name: "file over full directory", before: []item{reg("d/f", "old"), d, root},
			foreign: map[string]string{"d/foreign": "precious"}, groups: [][]item{{reg("d", "file")}}},
		{name: "file over empty directory", before: []item{d, root}, groups: [][]item{{link("d", "x")}}},
		{name: "directory over file", before: []item{reg("d", "old"), root}, groups: [][]item{{d, reg("d/f", "f"), d.at(5)}}},
		{name: "ancestor is a link", before: []item{link("d", "."), root}, groups: [][]item{{reg("d/e/f", "f"), dir("d/e"), d}}},
		{name: "tombstones", before: []item{reg("d/e/f", "f"), reg("d/g", "g"), dir("d/e"), d, root},
			groups: [][]item{{gone("d/e/f"), gone("d/e"), d.at(5)}, {gone("d/g")}}},
		{name: "tombstone of full directory", before: []item{reg("d/f", "f"), d, root},
			foreign: map[string]string{"d/foreign": "precious"}, groups: [][]item{{gone("d")}}},
		{name: "directory's attributes", before: []item{reg("d/f", "f"), d, root},
			groups: [][]item{{dir("d").at(5).with(0o2700), dir(".").at(6).with(0o1755)}}},
		{name: "decayed file is kept", before: []item{reg("d/f", "bad!"), reg("d/g", "bad bad bad").in(4), d, root},
			kept:   map[string]string{"d/f": "bad!", "d/g": "bad bad bad"},
			groups: [][]item{{reg("d/f", "good").kept(), reg("d/g", "bad good bad").in(4).kept(), link("d/n", "x").kept()}}},
		{name: "foreign paths", before: []item{reg("d/f", "f"), d, root}, foreign: map[string]string{"d/foreign": "precious", "other": "precious"},
			do: func(st *stand) error {
				_, err := st.tree.RemoveForeign(st.t.Context(), []events.Path{parse("d/foreign"), parse("other")})
				return err
			},
			done: func(st *stand) string {
				return differs(st.opts.Root, gone("d/foreign")) + differs(st.opts.Root, gone("other"))
			}},
		{name: "old trash", before: []item{reg("d/e/f", "f"), reg("d/g", "g"), dir("d/e"), d, root}, groups: [][]item{{reg("d", "file")}},
			change: func(o *Options) { o.TrashKeep = 1 },
			do: func(st *stand) error {
				_, err := st.tree.ExpireTrash(st.t.Context())
				return err
			},
			done: func(st *stand) string {
				names, err := st.tree.trash.names()
				if err != nil || len(names) > 0 {
					return fmt.Sprint("trash ", names, err)
				}
				return ""
			}},
		{name: "parked", before: []item{root},
			do: func(st *stand) error { return st.tree.Park(Parked{Seq: 7, Path: "p"}) },
			done: func(st *stand) string {
				if list := st.tree.Parked(); len(list) != 1 || list[0].Seq != 7 {
					return fmt.Sprint("parked ", list)
				}
				return ""
			}},
		{name: "first start", groups: [][]item{{reg("f", "f"), root}}},
		{name: "chunks", before: []item{reg("d/f", "old old old").in(4), d, root}, groups: [][]item{
			{reg("d/f", "old new old!").in(4)}, {reg("d/g", "old new old!").at(reg("d/f", "").mtime.Sec).in(4).was("d/f")}, {gone("d/f")}}},
		{name: "renamed chunks", before: []item{reg("d/f", "old old old").at(5).in(4), d, root}, groups: [][]item{
			{reg("g", "old old old").at(5).in(4).was("d/f"), gone("d/f"), reg("s", "1234\x00\x00\x00\x00\x00\x005").in(4)}}},
		{name: "renamed", before: []item{reg("d/f", "old").at(5), reg("d/g", "g").at(5), d, root}, groups: [][]item{
			{reg("g", "old").at(5).was("d/f"), gone("d/f")}, {reg("d/f", "new").at(6), reg("e/g", "g").at(5).was("d/g"), gone("d/g")}}},
		{name: "mixed", before: []item{reg("d/f", "f"), reg("e/f", "old"), dir("e").at(3), d, root}, groups: [][]item{
			{reg("d/f", "new"), gone("e/f"), link("e/f", "x"), dir("e").at(4), reg("n", "n")},
			{reg("d", "file"), dir("n"), reg("n/x", "x"), reg("e/y", "y"), dir("n")}}},
	}
}

func TestFaultAtEveryCall(t *testing.T) {
	for _, s := range stories() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			opts := s.options(t, "")
			for kind := range fault(len(faultNames)) {
				fired := true
				for at := 1 + int(kind)%stride(); fired; at += stride() {
					t.Run(fmt.Sprintf("%s-%d", faultNames[kind], at), func(t *testing.T) {
						fired = s.broken(t, &opts, kind, at)
					})
					if at > 2000 {
						t.Fatal("no end")
					}
				}
			}
		})
	}
}

// stride is between two calls that a kind of fault comes at; the kinds begin at
// different ones, so that one comes at each. With TREECAST_TORTURE all do.
func stride() int {
	switch {
	case os.Getenv("TREECAST_TORTURE") != "":
		return 1
	case testing.Short():
		return 7
	}
	return len(faultNames)
}

// broken runs the story with one fault and reports whether that came.
func (s story) broken(t tb, opts *Options, kind fault, at int) bool {
	if kind < crash {
		s.kept = nil // what cannot be kept is replaced all the same
	}
	st := s.set(t, opts)
	st.hold()
	st.power.arm(kind, at)
	err := st.commit(s.groups)
	fired := st.power.fired
	if !fired && err != nil {
		t.Fatal(err)
	}
	// Whatever happened, the power may fail now.
	st.reboot().recovered("power cut")
	what := "tried again"
	if st.power.dead {
		// Or only the process was killed: what it did is there, durable or
		// not, and the next one finds it so.
		what = "killed"
		must(t, st.revive())
		st.checkOldOrNew(what + ", reopened")
	}
	// The process goes on, and tries again until it works.
	st.power.arm(crash, 0)
	must(t, st.commit(s.groups))
	st.checkNew(what)
	after := st.reboot()
	after.hold()
	after.checkNew(what + ", power cut after all is done")
	after.close()
	st.close()
	if t.Failed() {
		t.Logf("after %q", slices.Collect(lastOf(st.power.trace, 12)))
	}
	return fired
}

func lastOf(s []string, n int) func(func(string) bool) {
	return slices.Values(s[max(0, len(s)-n):])
}

// TestFaultInRecovery cuts the power in the middle of a group, and again at
// every call of the Open that follows.
func TestFaultInRecovery(t *testing.T) {
	for _, s := range stories() {
		if s.name != "mixed" && s.name != "file over full directory" && s.name != "first start" {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			opts := s.options(t, "")
			step := 7
			if s.name == "first start" { // the only one with a trial rename
				step = 1
			}
			for at := 1; ; at += step {
				st := s.set(t, &opts)
				st.hold()
				st.power.arm(crash, at)
				_ = st.commit(s.groups)
				if !st.power.fired {
					st.close()
					break
				}
				for kind := range fault(len(faultNames)) {
					for at2 := 1 + int(kind)%stride(); ; at2 += stride() {
						second := st.reboot()
						err := second.tryHold(kind, at2)
						if second.power.fired {
							second.reboot().recovered(fmt.Sprintf("crash at %d, %s in recovery at %d", at, faultNames[kind], at2))
						}
						if err == nil {
							second.close()
						} else {
							second.remove()
						}
						if !second.power.fired || t.Failed() {
							break
						}
					}
				}
				st.close()
			}
		})
	}
}

// TestOtherWorkAfterAFault has a group fail, and then, for its entries were
// superseded, not the same but other work done.
func TestOtherWorkAfterAFault(t *testing.T) {
	s := story{before: []item{reg("d/f", "old"), reg("e/f", "old"), dir("d").at(2), dir("e").at(3), dir(".").at(1)}}
	opts := s.options(t, "")
	first := [][]item{{reg("d/f", "one"), reg("e/f", "one")}}
	s.groups = [][]item{{reg("d/f", "two"), dir("d").at(5)}, {reg("e/f", "two"), dir("e").at(7).with(0o711)}}
	for _, kind := range []fault{failBefore, failAfter} {
		for at := 1; ; at++ {
			st := s.set(t, &opts)
			st.hold()
			st.power.arm(kind, at)
			_ = st.commit(first)
			fired := st.power.fired
			clear(st.acked)
			st.power.arm(crash, 0)
			must(t, st.commit(s.groups))
			what := fmt.Sprintf("%s at %d", faultNames[kind], at)
			st.checkNew(what)
			after := st.reboot()
			after.hold()
			after.checkNew(what + ", power cut")
			after.close()
			st.close()
			if !fired || t.Failed() {
				break
			}
		}
	}
}

// TestABlindComparisonSaysSo: whichever call fails, a difference is found or the
// path is among those that could not be looked at.
func TestABlindComparisonSaysSo(t *testing.T) {
	s := story{name: "blind", before: []item{reg("d/f", "old"), dir("d"), dir(".")}}
	opts := s.options(t, "")
	st := s.set(t, &opts)
	st.hold()
	defer st.close()
	want := entries(reg("d/f", "newer"), dir("d"), dir("."))
	for at, fired := 1, true; fired; at++ {
		found := false
		st.power.arm(failBefore, at)
		err := st.tree.Compare(t.Context(), byPath(want), false, func(d Difference) error {
			found = found || d.Path == parse("d/f")
			return nil
		})
		var unseen *UnseenError
		if errors.As(err, &unseen) {
			found = found || slices.ContainsFunc(unseen.Paths, parse("d/f").Within)
		}
		if fired = st.power.fired; !found || fired != (err != nil) {
			t.Errorf("call %d: found %v, %v", at, found, err)
		}
	}
}

// TestFailedSyncIsMadeUpFor has all that is found right look old, so that only
// the failure itself can tell that a sync is due.
func TestFailedSyncIsMadeUpFor(t *testing.T) {
	s := story{before: []item{reg("d/f", "old"), dir("d").at(2), dir(".").at(1)},
		groups: [][]item{{reg("d/f", "new"), gone("d/g"), reg("n", "n")}}}
	opts := s.options(t, "")
	for at := 1; ; at++ {
		st := s.set(t, &opts)
		st.hold()
		st.tree.syncedAt = events.Time{Sec: 1 << 40}
		st.power.arm(failBefore, at)
		_ = st.commit(s.groups)
		fired := st.power.fired
		st.power.arm(crash, 0)
		must(t, st.commit(s.groups))
		after := st.reboot()
		after.hold()
		after.checkNew(fmt.Sprintf("failed at %d, power cut", at))
		after.close()
		st.close()
		if !fired || t.Failed() {
			break
		}
	}
}
