package apply

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

func TestEveryKindArrivesWithItsAttributes(t *testing.T) {
	b := newBench(t)
	items := []item{
		dir("d").at(-1).with(0o2751),
		reg("d/f", "hello"),
		reg("d/empty", ""),
		reg("d/suid", "x").with(0o4755),
		reg("d/none", "x").with(0),
		reg("d/old", "before 1970").at(-1_000_000_000),
		reg("d/late", "in 2400").at(13_569_465_600),
		link("d/l", "../../nowhere/\xff\n"),
		fifo("d/p"),
		newItem(events.Socket, "d/s", 0o600, ""),
		newItem(events.CharDevice, "d/null", 0o666, ""),
		newItem(events.BlockDevice, "d/block", 0o660, ""),
		dir("d/sticky").with(0o1777),
		dir("d/closed").with(0),
		dir("d/d/deep/er").with(0o555),
		dir(".").at(77).with(0o750),
	}
	for i := range items {
		items[i].uid, items[i].gid = 1234, 4321
	}
	// The deep directory's ancestors come without entries of their own.
	items = append(items, dir("d/d/deep"), dir("d/d"))
	outcomes := b.apply(items...)
	b.check(items...)
	for i, o := range outcomes {
		if want := Created; o != want && items[i].path != "." {
			t.Errorf("%s: %s, want %s", items[i].path, o, want)
		}
	}
	for i, o := range b.apply(items...) {
		if o != Unchanged {
			t.Errorf("%s again: %s", items[i].path, o)
		}
	}
	b.check(items...)
	if l := b.litter(); len(l) > 0 {
		t.Errorf("litter %q", l)
	}
}

func TestWeirdNames(t *testing.T) {
	b := newBench(t)
	long := strings.Repeat("n", 255)
	deep := strings.Repeat(strings.Repeat("d", 203)+"/", 20) + strings.Repeat("f", 15)
	if len(deep) != 4095 {
		t.Fatal(len(deep))
	}
	items := []item{
		reg("new\nline", "1"), reg("\xff\xfe", "2"), reg(" ", "3"), reg("-rf", "4"), reg("a\\b\"c'", "5"),
		reg("\x1b[2J", "6"), reg(long, "7"), reg("...", "8"), reg("*", "9"), reg("日本", "10"), link(long[:254], "x"),
	}
	b.apply(items...)
	b.check(items...)
	p := reg(deep, "deep")
	b.want(b.apply(p), Created)
	b.want(b.apply(p), Unchanged)
	b.want(b.apply(gone(deep)), Deleted)
	b.want(b.apply(gone(strings.Repeat("d", 203))), Deleted)
	b.want(b.apply(reg(deep, "deep"), gone(strings.Repeat("d", 203))), Created, Deleted)
}

func TestOverwriteKeepsDirectoryTimes(t *testing.T) {
	b := newBench(t)
	root := dir(".").at(1000)
	d, e := dir("d").at(2000), dir("d/e").at(3000)
	b.apply(d, e, reg("d/e/f", "one"), root)
	b.check(root, d, e)
	f := reg("d/e/f", "two").at(4000)
	b.want(b.apply(f), Updated)
	b.check(f, root, d, e)
	// Deleting one of two names of the same group, with its own entry for
	// one of the directories.
	d = d.at(5000)
	b.want(b.apply(gone("d/e/f"), d), Deleted, Updated)
	b.check(root, d, e, gone("d/e/f"))
	// A directory's entry before its children's, in one group.
	g := reg("d/g", "g")
	d = d.at(6000)
	b.want(b.apply(d, g), Updated, Created)
	b.check(root, d, g)
	// Implicit directories do not disturb what they are made in.
	b.want(b.apply(reg("d/x/y/z", "z")), Created)
	b.check(root, d)
}

func TestSwapsOfAllKinds(t *testing.T) {
	makers := map[string]func(string) item{
		"file": func(p string) item { return reg(p, "file") },
		"dir":  dir,
		"full": dir, // with something in it
		"link": func(p string) item { return link(p, "../html") },
		"fifo": fifo,
		"char": func(p string) item { return newItem(events.CharDevice, p, 0o600, "") },
		"gone": gone,
	}
	b := newBench(t)
	root := dir(".").at(9)
	b.apply(root)
	for from, makeFrom := range makers {
		for to, makeTo := range makers {
			name := from + "-" + to
			b.apply(makeFrom(name), root)
			if from == "full" {
				b.apply(reg(name+"/in/it", "content"))
			}
			it := makeTo(name)
			got := b.apply(it)[0]
			b.check(it, root)
			want := Updated
			switch {
			case from == "gone" && to == "gone", from == to && from != "full", from == "dir" && to == "full":
				want = Unchanged
			case from == "full" && (to == "full" || to == "dir"):
				want = Unchanged
				if got == Updated { // the implicit "in" altered no entry of ours
					want = Updated
				}
			case from == "gone":
				want = Created
			case to == "gone":
				want = Deleted
			}
			if got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
			in := filepath.Join(name, "in", "it")
			if from == "full" && to != "full" && to != "dir" && !contains(trashed(t, b.staging()), in) {
				t.Errorf("%s is not in the trash", in)
			}
		}
	}
	if l := b.litter(); len(l) > 0 {
		t.Errorf("litter %q", l)
	}
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

func TestSameSizeAndTimeWithOtherContent(t *testing.T) {
	b := newBench(t)
	b.apply(reg("f", "one"))
	b.want(b.apply(reg("f", "two")), Updated)
	b.check(reg("f", "two"))
}

// TestResultsAreItemized: as rsync -i would have said it.
func TestResultsAreItemized(t *testing.T) {
	b := newBench(t)
	later := reg("f", "one").at(5)
	wider := later
	wider.mode = 0o666
	d := dir("d")
	closed := d
	closed.mode = 0o700
	for _, c := range []struct {
		item item
		want string
	}{
		{d, "cd+++++++++"},
		{d, ""},
		{closed, ".d...p....."},
		{reg("f", "one"), ">f+++++++++"},
		{reg("f", "two"), ">f........."},
		{later, ">f..t......"},
		{later, ""},
		{wider, ".f...p....."},
		{reg("f", "three").at(5), ">f.s.p....."},
		{link("f", "x"), "cL+++++++++"},
		{link("f", "y"), "cLc........"},
		{dir("f"), "cd+++++++++"},
		{reg("f/g", "x"), ">f+++++++++"},
		{gone("f"), "*deleting  "},
		{gone("f"), ""},
	} {
		results, err := b.tree.Commit(t.Context(), b.stage(c.item))
		must(t, err)
		if r := results[0]; r.Err != nil || r.Itemized != c.want {
			t.Errorf("%s %v: %q, %v, want %q", c.item.path, r.Outcome, r.Itemized, r.Err, c.want)
		}
	}
}

func TestUnchangedIsCheckedAgainInCommit(t *testing.T) {
	b := newBench(t)
	f := reg("d/f", "one")
	d := dir("d")
	b.apply(d, f)
	staged := b.stage(f, f, f)
	// Someone else, or an entry of a group that came between, is in the way.
	must(t, os.WriteFile(b.path("d/f"), []byte("two"), 0o644))
	other := b.stage(gone("d"))
	results, err := b.tree.Commit(t.Context(), []*Staged{staged[0], other[0], staged[1], staged[2]})
	must(t, err)
	for i, want := range []Outcome{Updated, Deleted, Created, Unchanged} {
		if results[i].Err != nil || results[i].Outcome != want {
			t.Errorf("%d: %v %v, want %v", i, results[i].Outcome, results[i].Err, want)
		}
	}
	b.check(f)
}

func TestAttackBySymlink(t *testing.T) {
	b := newBench(t)
	outside := filepath.Join(b.top, "outside")
	must(t, os.Mkdir(outside, 0o755))
	must(t, os.WriteFile(filepath.Join(outside, "passwd"), []byte("root"), 0o600))
	before := listing(t, outside)
	for _, target := range []string{"../outside", outside, "."} {
		b.apply(link("a", target), link("l", target))
		// Deleting through it deletes nothing.
		b.want(b.apply(gone("a/passwd"), gone("a/x/y")), Unchanged, Unchanged)
		b.check(link("a", target))
		// Writing through it makes a directory of it.
		f := reg("a/passwd", "mine")
		b.want(b.apply(f), Created)
		b.check(f)
		b.want(b.apply(link("a", target)), Updated)
		b.want(b.apply(dir("a")), Updated)
		b.want(b.apply(gone("a")), Deleted)
		// Attributes are the link's, not those of what it points to.
		b.want(b.apply(link("l", target).at(99)), Updated)
	}
	if after := listing(t, outside); after != before {
		t.Errorf("outside changed from\n%s to\n%s", before, after)
	}
}

// listing is a directory's whole state, as text.
func listing(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		must(t, err)
		rel, _ := filepath.Rel(root, path)
		raw := ""
		if info.Mode().IsRegular() {
			bytes, err := os.ReadFile(path)
			must(t, err)
			raw = string(bytes)
		}
		fmt.Fprintf(&b, "%q %s %d %q\n", rel, info.Mode(), info.ModTime().UnixNano(), raw)
		return nil
	}))
	return b.String()
}

func TestTombstones(t *testing.T) {
	b := newBench(t)
	root := dir(".").at(9)
	b.apply(dir("d"), reg("d/f", "x"), link("l", "d"), fifo("p"), root)
	b.want(b.apply(gone("nothing"), gone("nothing/at/all"), gone("d/f/x"), gone("l/f")),
		Unchanged, Unchanged, Unchanged, Unchanged)
	b.want(b.apply(gone("d/f"), gone("d"), gone("l"), gone("p")), Deleted, Deleted, Deleted, Deleted)
	b.check(root, gone("d"), gone("l"), gone("p"))
	if got := trashed(t, b.staging()); len(got) > 0 {
		t.Errorf("in the trash: %q", got)
	}
	// Deepest first, and a path that comes again in the same group.
	b.want(b.apply(reg("x/y", "1"), gone("x/y"), gone("x"), dir("x"), reg("x/y", "2"), root),
		Created, Deleted, Deleted, Created, Created)
	b.check(reg("x/y", "2"), dir("x"), root)
}

func TestTombstoneOfDirectoryWithForeignContent(t *testing.T) {
	for _, foreign := range []Foreign{TrashForeign, KeepForeign} {
		b := newBench(t, func(o *Options) { o.Foreign = foreign })
		b.apply(dir("d"), reg("d/ours", "x"), dir(".").at(9))
		must(t, os.WriteFile(b.path("d/theirs"), []byte("precious"), 0o600))
		got := b.apply(gone("d/ours"), gone("d"))
		b.check(dir(".").at(9))
		if foreign == TrashForeign {
			b.want(got, Deleted, Deleted)
			b.check(gone("d"))
			if !contains(trashed(t, b.staging()), "d/theirs") {
				t.Error("not in the trash")
			}
			continue
		}
		b.want(got, Deleted, Skipped)
		b.want(b.apply(gone("d")), Skipped)
		if raw, err := os.ReadFile(b.path("d/theirs")); err != nil || string(raw) != "precious" {
			t.Error("foreign file was touched", err)
		}
		if n := strings.Count(b.log.String(), "kept"); n != 1 {
			t.Errorf("reported %d times", n)
		}
	}
}

func TestSpecialsAreSkippedUnlessWanted(t *testing.T) {
	b := newBench(t, func(o *Options) { o.Specials = false })
	b.apply(reg("p", "stays"))
	b.want(b.apply(fifo("p"), newItem(events.Socket, "s", 0o600, "")), Skipped, Skipped)
	b.check(reg("p", "stays"), gone("s"))
}

func TestBadEntriesHurtNoOthers(t *testing.T) {
	b := newBench(t)
	good := reg("good", "x")
	ctx := t.Context()
	for _, bad := range []struct {
		change func(*events.Entry, *[]byte)
		want   error
	}{
		{func(e *events.Entry, p *[]byte) { e.Digest[3]++ }, events.ErrDigest},
		{func(e *events.Entry, p *[]byte) { e.Size++ }, events.ErrFrame},
		{func(e *events.Entry, p *[]byte) { *p = (*p)[:len(*p)-1] }, events.ErrFrame},
		{func(e *events.Entry, p *[]byte) { *p = nil }, events.ErrFrame},
		{func(e *events.Entry, p *[]byte) { e.Body = events.ChunksBody }, events.ErrFrame},
		{func(e *events.Entry, p *[]byte) { e.Kind = 99 }, events.ErrVersion},
		{func(e *events.Entry, p *[]byte) { e.Kind = 0 }, events.ErrVersion},
		{func(e *events.Entry, p *[]byte) { e.Kind, e.Target = events.Symlink, "a\x00b" }, events.ErrEntry},
		{func(e *events.Entry, p *[]byte) { e.Kind, e.Path = events.Tombstone, parse(".") }, events.ErrEntry},
		{func(e *events.Entry, p *[]byte) { e.Path = parse(".") }, events.ErrEntry},
	} {
		it := reg("bad", "some text that is long enough")
		e, payload := it.entry(), it.payload(b.opts.Codec)
		bad.change(e, &payload)
		_, err := b.tree.Stage(ctx, e, payload)
		var where *StepError
		if !errors.Is(err, bad.want) || !Permanent(err) || !errors.As(err, &where) || where.Step != "stage" {
			t.Errorf("%v, want %v", err, bad.want)
		}
	}
	b.want(b.apply(good), Created)
	if l := b.litter(); len(l) > 0 {
		t.Errorf("litter %q", l)
	}
}

func TestKinAreHeldBehindAFailure(t *testing.T) {
	if os.Geteuid() != 0 {
		unable(t, "takes root")
	}
	b := newBench(t)
	b.apply(dir("fixed"), dir("free"))
	immutable(t, b.path("fixed"))
	staged := b.stage(reg("fixed/f", "1"), reg("free/f", "2"), dir("fixed").at(1), reg("fixed/f", "3"), reg("fixed/other", "4"), reg("z", "5"), gone("fixed"))
	results, err := b.tree.Commit(t.Context(), staged)
	must(t, err)
	for i, want := range []error{syscall.EPERM, nil, syscall.EPERM, ErrBehind, syscall.EPERM, nil, ErrBehind} {
		if got := results[i].Err; !errors.Is(got, want) || (got == nil) != (want == nil) || got != nil && Permanent(got) {
			t.Errorf("%d: %v, want %v", i, got, want)
		}
	}
	b.check(reg("free/f", "2"), reg("z", "5"), dir("fixed"))
	mutable(t, b.path("fixed"))
	// The same staged entries again, as after a wait.
	results, err = b.tree.Commit(t.Context(), []*Staged{staged[0], staged[2], staged[3], staged[4]})
	must(t, err)
	for i, r := range results {
		if r.Err != nil {
			t.Errorf("%d: %v", i, r.Err)
		}
	}
	b.check(reg("fixed/f", "3"), reg("fixed/other", "4"), dir("fixed").at(1))
	if l := b.litter(); len(l) > 0 {
		t.Errorf("litter %q", l)
	}
}

func TestDiscardLeavesNothing(t *testing.T) {
	b := newBench(t)
	before := listing(t, b.root)
	for _, s := range b.stage(reg("f", "x"), dir("d"), link("l", "x"), fifo("p"), gone("g")) {
		s.Discard()
		s.Discard()
	}
	if l := b.litter(); len(l) > 0 {
		t.Errorf("litter %q", l)
	}
	if listing(t, b.root) != before {
		t.Error("the tree was touched")
	}
}

func TestManyTemps(t *testing.T) {
	b := newBench(t)
	var items []item
	for i := range 300 {
		items = append(items, dir(fmt.Sprintf("d%d", i)), reg(fmt.Sprintf("d%d/f", i), fmt.Sprint(i)))
	}
	items = append(items, dir(".").at(9))
	b.apply(items...)
	b.check(items...)
	if n := b.tree.open.Load(); n != 0 {
		t.Errorf("%d files are counted as open", n)
	}
	var changed []item
	for i := range 300 {
		changed = append(changed, reg(fmt.Sprintf("d%d/f", i), fmt.Sprint(-i)).at(5))
	}
	b.apply(changed...)
	b.check(changed...)
	for i, it := range items {
		if it.kind == events.Dir {
			b.check(items[i])
		}
	}
}

// A small file whose old name is here with the same bytes and attributes is not
// written again, and the two do not depend on each other.
func TestRenamedSmallFileIsALink(t *testing.T) {
	b := newBench(t)
	inode := func(p string) uint64 {
		st, err := b.tree.root.lstat(p)
		must(t, err)
		return st.ino
	}
	old := reg("d/f", "bytes").at(5)
	for name, c := range map[string]struct {
		moved  item
		before func() // what happens to the old name
		linked bool
	}{
		"the same":             {moved: reg("n", "bytes").at(5).was("d/f"), linked: true},
		"another time":         {moved: reg("n", "bytes").at(6).was("d/f")},
		"another mode":         {moved: reg("n", "bytes").at(5).with(0o600).was("d/f")},
		"another size":         {moved: reg("n", "bytes!").at(5).was("d/f")},
		"other bytes":          {moved: reg("n", "sizes").at(5).was("d/f")},
		"no old name":          {moved: reg("n", "bytes").at(5).was("d/g")},
		"old name is gone":     {moved: reg("n", "bytes").at(5).was("d/f"), before: func() { must(t, os.Remove(b.path("d/f"))) }},
		"old name is a link":   {moved: reg("n", "bytes").at(5).was("l"), before: func() { must(t, os.Symlink("d/f", b.path("l"))) }},
		"in a linked place":    {moved: reg("n", "bytes").at(5).was("l/f"), before: func() { must(t, os.Symlink("d", b.path("l"))) }},
		"altered by hand":      {moved: reg("n", "bytes").at(5).was("d/f"), before: func() { alter(t, b.path("d/f"), "other", old.mtime) }},
		"it is its own":        {moved: reg("d/f", "bytes").at(6).was("d/f")},
		"there is another":     {moved: reg("n", "bytes").at(5).was("d/f"), before: func() { b.apply(reg("n", "n")) }, linked: true},
		"there is the same":    {moved: reg("n", "bytes").at(5).was("d/f"), before: func() { must(t, os.Link(b.path("d/f"), b.path("n"))) }, linked: true},
		"there is a directory": {moved: reg("n", "bytes").at(5).was("d/f"), before: func() { b.apply(dir("n")) }, linked: true},
	} {
		b.apply(old, dir("d"))
		if c.before != nil {
			c.before()
		}
		was := inode("d")
		if name != "old name is gone" {
			was = inode("d/f")
		}
		b.apply(c.moved)
		b.check(c.moved)
		if linked := inode(c.moved.path) == was; linked != c.linked {
			t.Errorf("%s: linked is %v", name, linked)
		}
		// What comes to the old name is not seen under the new one.
		b.apply(reg("d/f", "newer").at(7))
		if c.moved.path != "d/f" {
			b.check(c.moved)
		}
		b.apply(gone("d/f"))
		if c.moved.path != "d/f" {
			b.check(c.moved)
		}
		if l := b.litter(); len(l) > 0 {
			t.Errorf("%s: litter %q", name, l)
		}
		b.apply(gone("n"), gone("l"))
	}
}

// alter writes a file in place and puts its time back.
func alter(t *testing.T, path, body string, mtime events.Time) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(body), 0o644))
	must(t, utimes(unix.AT_FDCWD, path, mtime, 0))
}
