package apply

import (
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

func entries(items ...item) map[events.Path]*events.Entry {
	m := map[events.Path]*events.Entry{}
	for _, it := range items {
		e := it.entry()
		m[e.Path] = e
	}
	return m
}

// byPath is what Compare wants.
func byPath(want map[events.Path]*events.Entry) []*events.Entry {
	return slices.SortedFunc(maps.Values(want), func(a, b *events.Entry) int { return a.Path.Compare(b.Path) })
}

// compare returns the differences as lines of text.
func (b *bench) compare(want map[events.Path]*events.Entry, checksum bool) []string {
	b.Helper()
	var lines []string
	must(b, b.tree.Compare(b.Context(), byPath(want), checksum, func(d Difference) error {
		if d.Want != want[d.Path] {
			b.Errorf("%s: Want is %v", d.Path, d.Want)
		}
		lines = append(lines, d.Itemized+" "+d.Path.String())
		return nil
	}))
	return lines
}

func (b *bench) differences(want map[events.Path]*events.Entry, checksum bool, lines ...string) {
	b.Helper()
	if got := b.compare(want, checksum); strings.Join(got, "\n") != strings.Join(lines, "\n") {
		b.Errorf("differences:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
}

func TestCompare(t *testing.T) {
	b := newBench(t)
	items := []item{dir("."), dir("a"), reg("a/f", "one"), reg("a-b", "x"), link("l", "to"), fifo("p"), dir("z"), reg("z/y", "yy")}
	b.apply(items...)
	b.apply(dir("a"), dir("z"), dir("."))
	want := entries(items...)
	b.differences(want, true)

	must(t, os.WriteFile(b.path("a/f"), []byte("two"), 0o644))
	must(t, os.Chtimes(b.path("a/f"), time.Time{}, mtimeOf(items[2])))
	b.differences(want, false)
	b.differences(want, true, ">fc........ a/f")

	must(t, os.Chmod(b.path("z/y"), 0o600))
	must(t, os.Chown(b.path("z/y"), 7, 8))
	must(t, os.WriteFile(b.path("a-b"), []byte("longer"), 0o644))
	must(t, os.Remove(b.path("l")))
	must(t, os.Symlink("elsewhere", b.path("l")))
	must(t, os.Remove(b.path("p")))
	must(t, os.MkdirAll(b.path("p/q"), 0o755))
	must(t, unix.Chmod(b.path("z"), 0o2755))
	must(t, os.Remove(b.path("a/f")))
	must(t, os.Chtimes(b.path("a"), time.Time{}, mtimeOf(items[1])))
	must(t, os.Chtimes(b.path("."), time.Time{}, mtimeOf(items[0])))
	want[parse("a/gone")] = gone("a/gone").entry()
	want[parse("z/new/x")] = reg("z/new/x", "x").entry()
	b.differences(want, true,
		">f+++++++++ a/f",
		">fcst...... a-b",
		"cLc.t...... l",
		"cS+++++++++ p",
		"*deleting   p/q",
		".d...p..... z",
		">f+++++++++ z/new/x",
		".f...pog... z/y",
	)
	// What is reported, applied, mends the tree.
	var staged []*Staged
	var foreign []events.Path
	must(t, b.tree.Compare(t.Context(), byPath(want), true, func(d Difference) error {
		if d.Want == nil {
			foreign = append(foreign, d.Path)
			return nil
		}
		var payload []byte
		for _, it := range append(items, reg("z/new/x", "x")) {
			if it.path == d.Path.String() {
				payload = it.payload(b.opts.Codec)
			}
		}
		s, err := b.tree.Stage(t.Context(), d.Want, payload)
		staged = append(staged, s)
		return err
	}))
	moved, err := b.tree.RemoveForeign(t.Context(), foreign)
	if len(moved) != 1 || err != nil {
		t.Error(moved, err)
	}
	results, err := b.tree.Commit(t.Context(), staged)
	must(t, err)
	for i, r := range results {
		if r.Err != nil {
			t.Error(staged[i].Entry().Path, r.Err)
		}
	}
	b.differences(want, true) // z/new has no entry, but one in it
}

// A directory of which only deletions are known is no less foreign: the stream
// may have lost its entry, and with that the source's word that it is gone.
func TestTombstonesKeepNoDirectory(t *testing.T) {
	b := newBench(t)
	b.apply(dir("d"), reg("d/f", "f"), dir("d/e"), dir("x"), dir("x/y"), dir("."))
	want := map[events.Path]*events.Entry{{}: dir(".").entry()}
	for _, it := range []item{gone("d/f"), gone("d/e/g"), gone("x/a"), dir("x/y")} {
		want[parse(it.path)] = it.entry()
	}
	b.differences(want, false, "*deleting   d", "*deleting   d/e", "*deleting   d/f")
}

func mtimeOf(it item) time.Time { return time.Unix(it.mtime.Sec, int64(it.mtime.Nsec)) }

func TestCompareStopsAsAsked(t *testing.T) {
	b := newBench(t)
	b.apply(reg("a", "a"), reg("b", "b"))
	enough := errors.New("enough")
	n := 0
	err := b.tree.Compare(t.Context(), nil, false, func(Difference) error { n++; return enough })
	if n != 1 || !errors.Is(err, enough) {
		t.Error(n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.tree.Compare(ctx, nil, false, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestCompareIgnoresUnwantedSpecials(t *testing.T) {
	b := newBench(t, func(o *Options) { o.Specials = false })
	must(t, unix.Mkfifo(b.path("theirs"), 0o600))
	want := entries(dir(".").at(3), fifo("p"))
	b.apply(dir(".").at(3))
	b.differences(want, true)
}

func TestCompareReadOnly(t *testing.T) {
	b := newBench(t)
	b.apply(reg("f", "x"), dir(".").at(3))
	before := listing(t, b.top)
	reader, err := OpenReadOnly(b.opts)
	must(t, err)
	var lines []string
	must(t, reader.Compare(t.Context(), byPath(entries(reg("f", "y"), dir(".").at(3))), true, func(d Difference) error {
		lines = append(lines, d.Itemized)
		return nil
	}))
	if len(lines) != 1 || lines[0] != ">fc........" {
		t.Error(lines)
	}
	must(t, reader.Close())
	if listing(t, b.top) != before {
		t.Error("something changed")
	}
}

// TestRsyncAgrees has the judge of P3 look at an applied tree, and at one
// with every sort of difference: the letters are the same.
func TestRsyncAgrees(t *testing.T) {
	rsync, err := exec.LookPath("rsync")
	if err != nil {
		unable(t, err)
	}
	src := newBench(t)
	items := []item{dir("d/e"), dir("d"), reg("d/f", "x"), reg("d/e/g", "yy").with(0o600), link("d/l", "f"), fifo("p"), dir(".").at(9)}
	src.apply(items...)
	dst := newBench(t)
	dst.apply(items...)
	judge := func(how string) string {
		out, err := exec.Command(rsync, how, "--delete", src.root+"/", dst.root+"/").CombinedOutput()
		if err != nil {
			t.Fatal(err, string(out))
		}
		return string(out)
	}
	if out := judge("-anic"); out != "" {
		t.Errorf("rsync sees\n%s", out)
	}
	// Each sort of difference, and some at once.
	dst.apply(reg("d/f", "z"), reg("d/e/g", "yyy").with(0o600), dir("d/e").with(0o711), link("d/l", "g"), dir("d"), dir(".").at(10))
	dst.apply(gone("p"), reg("s", "a directory at the source"), dir("s2"), reg("s2/in", "a file at the source"), reg("extra", "x"), dir("extras"), reg("extras/x", "x"))
	src.apply(dir("s"), reg("s/in", "x"), reg("s2", "x"), reg("mode", "x"), reg("time", "x"), reg("owner", "x"), dir(".").at(9))
	dst.apply(reg("mode", "x").with(0o640), reg("time", "x").at(77), reg("owner", "x"), dir(".").at(10))
	must(t, os.Chown(dst.path("owner"), 7, 8))
	items = append(items, dir("s"), reg("s/in", "x"), reg("s2", "x"), reg("mode", "x"), reg("time", "x"), reg("owner", "x"))
	for how, checksum := range map[string]bool{"-anic": true, "-ani": false} {
		ours := dst.compare(entries(items...), checksum)
		var theirs []string
		for line := range strings.Lines(judge(how)) {
			path := strings.TrimSuffix(strings.Split(strings.TrimSpace(line[12:]), " -> ")[0], "/")
			if path = strings.TrimPrefix(path, "./"); path == "" {
				path = "."
			}
			theirs = append(theirs, line[:12]+path)
		}
		slices.Sort(ours)
		slices.Sort(theirs)
		if !slices.Equal(ours, theirs) {
			t.Errorf("rsync %s says\n%s\nand we\n%s", how, strings.Join(theirs, "\n"), strings.Join(ours, "\n"))
		}
	}
}

func TestRemoveForeign(t *testing.T) {
	b := newBench(t)
	root, d := dir(".").at(3), dir("d").at(4)
	b.apply(d, reg("d/ours", "x"), root)
	must(t, os.MkdirAll(b.path("d/theirs/deep"), 0o755))
	must(t, os.WriteFile(b.path("d/theirs/deep/file"), []byte("precious"), 0o644))
	must(t, os.WriteFile(b.path("single"), nil, 0o644))
	b.apply(d, root)
	moved, err := b.tree.RemoveForeign(t.Context(), []events.Path{
		parse("d/theirs/deep/file"), parse("single"), parse("d/theirs"), parse("d/theirs/deep"), parse("not/there"), parse("single")})
	if !slices.Equal(moved, []events.Path{parse("d/theirs"), parse("single")}) || err != nil {
		t.Error(moved, err)
	}
	b.check(root, d, reg("d/ours", "x"), gone("d/theirs"), gone("single"))
	got := trashed(t, b.staging())
	if !contains(got, "d/theirs/deep/file") || !contains(got, "single") {
		t.Errorf("trash %q", got)
	}
	if _, err := b.tree.RemoveForeign(t.Context(), []events.Path{{}}); !errors.Is(err, events.ErrPath) {
		t.Error(err)
	}
	b.reopen()
	b.check(root, d)
	b.close()
	b.opts.TrashKeep = time.Nanosecond
	b.reopen()
	if got := trashed(t, b.staging()); len(got) > 0 {
		t.Errorf("trash %q", got)
	}
}

func TestCompareManyLevels(t *testing.T) {
	b := newBench(t)
	path := strings.TrimSuffix(strings.Repeat("d/", 2000), "/") + "/f"
	b.apply(reg(path, "x"))
	if n := len(b.compare(entries(reg(path, "x")), true)); n != 0 {
		t.Error(n)
	}
	if n := len(b.compare(nil, true)); n != 2001 {
		t.Error(n)
	}
	b.want(b.apply(gone("d")), Deleted)
	b.close()
	b.opts.TrashKeep = 1
	b.reopen()
}
