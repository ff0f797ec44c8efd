package apply

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"treecast/internal/powercut"
)

// TestPowerCutOnExt4 has a real file system forget what was not synced: ext4
// on a loop device is shut down without flushing its log, as xfstests do it,
// and mounted again.
func TestPowerCutOnExt4(t *testing.T) {
	root, d := dir(".").at(9), dir("d").at(5)
	many := []item{root}
	for i := range 20 {
		many = append(many, reg(fmt.Sprintf("n%d/f", i), "x"), dir(fmt.Sprintf("n%d", i)))
	}
	for name, groups := range map[string][][]item{
		"one file":   {{reg("new", "x"), root}, {reg("d/f", "two")}},
		"many files": {many, {reg("d/f", "two")}},
		"link":       {{link("d/l", "x"), dir("d").at(6)}},
		"tombstone":  {{gone("d/f"), d}},
		"chunks":     {{reg("c", "one two three").at(6).in(4), root}, {reg("d/c", "one two three").at(6).in(4).was("c"), d}},
		"swaps":      {{reg("s", "x"), root}, {dir("s"), reg("s/f", "x"), dir("s"), root}, {reg("s", "y"), root}},
		"attributes": {{dir("d").at(7).with(0o2711), dir(".").at(8)}},
	} {
		t.Run(name, func(t *testing.T) {
			disk := newDisk(t)
			b := benchAt(t, disk.Dir)
			b.reopen()
			b.apply(d, reg("d/f", "one"), d, root)
			want := map[string]item{"d": d, ".": root, "d/f": reg("d/f", "one")}
			for _, g := range groups {
				b.apply(g...)
				for _, it := range g {
					want[it.path] = it
				}
			}
			must(t, b.tree.Mark(Watermark{Site: "web", Seq: 42}))
			must(t, disk.Cut(powercut.Unwritten))
			_ = b.tree.Close() // of a dead disk
			b.tree = nil
			must(t, disk.Restore())
			check := func() {
				for _, it := range want {
					if _, replaced := want["s"]; it.path == "s/f" && replaced {
						continue
					}
					b.check(it)
				}
			}
			check() // before Open mends anything
			b.reopen()
			check()
			if w, ok := b.tree.Watermark(); !ok || w.Seq != 42 {
				t.Error(w, ok)
			}
			b.close()
		})
	}
}

// newDisk makes a disk with options of mkfs.
func newDisk(t *testing.T, options ...string) *powercut.Disk {
	t.Helper()
	top := t.TempDir()
	d, err := powercut.New(filepath.Join(top, "image"), filepath.Join(top, "mount"), 64<<20, options...)
	if err != nil {
		unable(t, err)
	}
	t.Cleanup(func() { must(t, d.Detach()) })
	return d
}

// TestPowerCutAtEveryCall has a real file system's power cut at every call of
// every story, with the staging beside the tree, and in a tree that is the disk.
// Without TREECAST_TORTURE it is some of the calls.
func TestPowerCutAtEveryCall(t *testing.T) {
	torture := os.Getenv("TREECAST_TORTURE") != ""
	for i, s := range stories() {
		for j, place := range []string{"beside", "inside"} {
			for k, how := range []powercut.How{powercut.Unwritten, powercut.Logged} {
				if !torture && (i%2 != j || i/2%2 != k) {
					continue
				}
				step := 1
				if !torture {
					step = 23
				}
				t.Run(fmt.Sprintf("%s, staging %s, %s", s.name, place, how), func(t *testing.T) { s.cutAtEvery(t, step, place, how) })
			}
		}
	}
}

func (s story) cutAtEvery(t *testing.T, step int, place string, how powercut.How) {
	opts := s.options(t, "")
	dir := t.TempDir()
	top := filepath.Join(dir, "top")
	mount := top
	if place == "inside" {
		mount = filepath.Join(top, "html")
	}
	base := filepath.Join(dir, "base")
	d, err := powercut.New(base, mount, 32<<20)
	if err != nil {
		unable(t, err)
	}
	t.Cleanup(func() { _ = d.Detach() }) // between two mounts there is nothing to detach
	before := s.setAt(t, top, &opts)
	must(t, d.Unmount())
	fired := true
	for at := 1; fired; at += step {
		d.Image = filepath.Join(dir, "image"+strconv.Itoa(at))
		out, err := exec.CommandContext(t.Context(), "cp", "--sparse=always", base, d.Image).CombinedOutput()
		if err != nil {
			t.Fatalf("%v %s", err, out)
		}
		must(t, d.Mount())
		st := *before
		st.acked = map[[2]int]bool{}
		fired = st.cutAt(d, how, at)
		if t.Failed() {
			t.Fatalf("at call %d; after %q", at, slices.Collect(lastOf(st.power.trace, 12)))
		}
		must(t, d.Unmount())
		must(t, os.Remove(d.Image))
	}
}

// cutAt does the story's work and has the power cut at a call, or at the end.
func (st *stand) cutAt(d *powercut.Disk, how powercut.How, at int) (fired bool) {
	t := st.t
	st.disk = func() error { return d.Cut(how) }
	st.hold()
	st.power.arm(crash, at)
	err := st.commit(st.s.groups)
	fired = st.power.fired
	if !fired {
		must(t, err)
		must(t, d.Cut(how))
	}
	_ = st.tree.Close() // of a dead disk
	must(t, d.Restore())
	st.checkWhole("power cut")
	st.recovered("power cut")
	must(t, d.Cut(how))
	must(t, d.Restore())
	st.hold()
	st.checkNew("power cut after all is done")
	st.close()
	return fired
}

// checkWhole checks, before anything is mended, that each file is one of its
// versions.
func (st *stand) checkWhole(what string) {
	st.t.Helper()
	versions := map[string][]item{}
	for _, items := range append([][]item{st.s.before}, st.s.groups...) {
		for _, it := range items {
			versions[it.path] = append(versions[it.path], it)
		}
	}
	for p, all := range versions {
		fi, err := os.Lstat(filepath.Join(st.opts.Root, p))
		if err != nil || !fi.Mode().IsRegular() {
			continue
		}
		if !slices.ContainsFunc(all, func(it item) bool { return differs(st.opts.Root, it) == "" }) {
			st.t.Errorf("%s: %q is torn", what, p)
		}
	}
}
