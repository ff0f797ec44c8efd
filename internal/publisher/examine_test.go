package publisher

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"treecast/internal/events"
	"treecast/internal/source"
)

// newTestPublisher returns a publisher of a temporary tree that is connected
// to nothing, and the tree's directory.
func newTestPublisher(t *testing.T) (*Publisher, string) {
	t.Helper()
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	src, err := source.Open(source.Options{Root: dir, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	})
	return &Publisher{Options: Options{Root: dir, Log: log}, src: src, dirty: newDirtySet(settleQuiet), report: newReport(log)}, dir
}

// build makes files, and directories where the name ends in a slash.
func build(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		at := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(at), 0o755)
		if err == nil && name[len(name)-1] == '/' {
			err = os.MkdirAll(at, 0o755)
		} else if err == nil {
			err = os.WriteFile(at, []byte(name), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// settled returns an index in which all of the tree is published.
func settled(t *testing.T, p *Publisher) *index {
	t.Helper()
	x := newIndex()
	for _, c := range plans(t, p, x, task{deep: true}).changes {
		e := c.meta.Entry
		if e.Kind == events.File {
			m, _, err := p.src.Read(e.Path, nil)
			if err != nil {
				t.Fatal(err)
			}
			e = m.Entry
		}
		x.Put(&e)
	}
	return x
}

func plans(t *testing.T, p *Publisher, x *index, tasks ...task) plan {
	t.Helper()
	pl, err := p.examine(t.Context(), x, tasks, nil)
	if err != nil {
		t.Fatal(err)
	}
	return pl
}

// names are what a plan sends, in its order; tombstones have a minus.
func (pl *plan) names() []string {
	var names []string
	for _, c := range pl.changes {
		names = append(names, c.meta.Entry.Path.String())
	}
	for _, p := range pl.tombstones {
		names = append(names, "-"+p.String())
	}
	return names
}

// TestRoundsAreOrdered: directories, files, pages, symlinks, the root that
// seals the stream, then tombstones deepest first.
func TestRoundsAreOrdered(t *testing.T) {
	p, dir := newTestPublisher(t)
	build(t, dir, "gone/deep/er/f", "gone/g")
	x := settled(t, p)
	if err := os.Rename(filepath.Join(dir, "gone"), filepath.Join(dir, "moved")); err != nil {
		t.Fatal(err)
	}
	build(t, dir, "index.html", "app.js", "css/site.css", "a.php")
	if err := os.Symlink("css", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	pl := plans(t, p, x, task{deep: true})
	want := []string{
		"css", "moved", "moved/deep", "moved/deep/er",
		"app.js", "css/site.css", "moved/deep/er/f", "moved/g",
		"a.php", "index.html", "link", ".",
		"-gone/deep/er/f", "-gone/deep/er", "-gone/deep", "-gone/g", "-gone",
	}
	if got := pl.names(); !slices.Equal(got, want) {
		t.Errorf("have %q,\nwant %q", got, want)
	}
	if from := pl.moved[x.Get(path(t, "gone/g")).digest]; from != path(t, "gone/g") {
		t.Errorf("the bytes of gone/g are not known to stand there: %v", from)
	}
}

// TestHintBringsParents: a hint of a file alone publishes its new ancestors
// too, so that no node guesses a mode.
func TestHintBringsParents(t *testing.T) {
	p, dir := newTestPublisher(t)
	x := settled(t, p)
	build(t, dir, "x/y/z/f")
	pl := plans(t, p, x, task{path: path(t, "x/y/z/f")})
	if got, want := pl.names(), []string{"x", "x/y", "x/y/z", "x/y/z/f"}; !slices.Equal(got, want) {
		t.Errorf("have %q, want %q", got, want)
	}
}

// TestKindChangeBuriesWhatWasIn: a directory that became a file has no
// descendants, by the same lstat.
func TestKindChangeBuriesWhatWasIn(t *testing.T) {
	p, dir := newTestPublisher(t)
	build(t, dir, "d/e/f", "d/g")
	x := settled(t, p)
	if err := os.RemoveAll(filepath.Join(dir, "d")); err != nil {
		t.Fatal(err)
	}
	build(t, dir, "d")
	pl := plans(t, p, x, task{path: path(t, "d")})
	if got, want := pl.names(), []string{"d", "-d/e/f", "-d/e", "-d/g"}; !slices.Equal(got, want) {
		t.Errorf("have %q, want %q", got, want)
	}
}

// TestBackAgainIsNoTombstone: a path that is gone by one hint and there by the
// listing of the same round is there.
func TestBackAgainIsNoTombstone(t *testing.T) {
	p, dir := newTestPublisher(t)
	build(t, dir, "a/f", "b/")
	x := settled(t, p)
	ex := &examiner{p: p, index: x, planned: map[events.Path]bool{}, walked: map[events.Path]bool{}, skipped: map[string]bool{}, gone: map[events.Path]bool{}}
	ex.bury(path(t, "a"), false)
	if err := ex.look(t.Context(), task{deep: true}); err != nil {
		t.Fatal(err)
	}
	ex.order()
	if got := ex.plan.names(); len(got) != 0 {
		t.Errorf("have %q, want nothing: all is as published", got)
	}
}

// TestListingsMayNotEmpty (P4): what a listing finds missing counts for the
// guard; what was hinted does not.
func TestListingsMayNotEmpty(t *testing.T) {
	p, dir := newTestPublisher(t)
	var names []string
	for i := range 250 {
		names = append(names, fmt.Sprint("d/f", i))
	}
	build(t, dir, names...)
	x := settled(t, p)
	remove := func(names ...string) {
		for _, name := range names {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(what string, want error, tasks ...task) {
		t.Helper()
		pl := plans(t, p, x, tasks...)
		if err := pl.check(x.Files(), massDeleteFloor); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	remove(names[:100]...)
	check("100 missing", nil, task{deep: true})
	remove(names[:150]...)
	check("150 missing", ErrMassDelete, task{deep: true})
	var hinted []task
	for _, name := range names[:150] {
		hinted = append(hinted, task{path: path(t, name)})
	}
	check("150 seen to go", nil, append(hinted, task{deep: true})...)
	if err := os.Rename(filepath.Join(dir, "d"), filepath.Join(dir, "e")); err != nil {
		t.Fatal(err)
	}
	build(t, dir, "d/")
	check("another name, and 150 missing", ErrMassDelete, task{deep: true})
	build(t, dir, names[:150]...)
	check("another name is not missing", nil, task{deep: true})
	if err := os.RemoveAll(filepath.Join(dir, "e")); err != nil {
		t.Fatal(err)
	}
	remove("d")
	check("emptied", ErrMassDelete, task{deep: true})
	check("removed under our eyes", nil, task{path: path(t, "d")}, task{deep: true})
}

// TestLostRootProvesNothing (P4).
func TestLostRootProvesNothing(t *testing.T) {
	p, dir := newTestPublisher(t)
	build(t, dir, "f")
	x := settled(t, p)
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	for _, tk := range []task{{deep: true}, {path: path(t, "f")}} {
		if _, err := p.examine(t.Context(), x, []task{tk}, nil); !errors.Is(err, source.ErrRootLost) {
			t.Errorf("%v: %v", tk, err)
		}
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
}

// TestSealWaitsForWhatIsUnpublished (P4): a stream is whole when all that is
// known to be at the source is in it, and what only arrives takes nothing back.
func TestSealWaitsForWhatIsUnpublished(t *testing.T) {
	p, dir := newTestPublisher(t)
	build(t, dir, "f", "d/g")
	x := settled(t, p)
	f, unsent := path(t, "f"), path(t, "unsent")
	check := func(what string, before, want bool) {
		t.Helper()
		if got := p.report.Whole(x, before); got != want {
			t.Errorf("%s: whole %v", what, got)
		}
	}
	check("all is published", false, true)
	p.report.Failed("read", f.String(), errUnknown, unpublished)
	check("an old version is published", false, true)
	p.report.Late(unsent.String(), source.ErrBusy)
	check("a new path is late, at first", false, false)
	check("a new path is late", true, true)
	e := events.Entry{Path: unsent, Kind: events.File}
	x.Doubt(&e)
	check("its publish had no answer", false, false)
	x.Put(&events.Entry{Path: unsent, Kind: events.Tombstone})
	p.report.Failed("settle", unsent.String(), errUnknown, unpublished)
	check("a new path cannot be read", true, false)
	p.report.Gone("unsent")
	check("it is gone", true, true)
	p.report.Failed("list", "d", errUnknown, below)
	check("what is in a directory is not known", true, false)
	p.report.Cleared(&events.Entry{Path: path(t, "d"), Kind: events.Dir})
	check("its own entry is sent", true, false)
	p.report.Listed("d")
	check("it is known", true, true)
	p.report.Skipped(&source.SkipError{Path: "mnt", Reason: source.OtherDevice}, unpublished)
	check("another disk is mounted inside", true, false)
	p.report.Gone("mnt")
	p.report.Skipped(&source.SkipError{Path: "fifo", Reason: source.Special}, unpublished)
	p.report.Skipped(&source.SkipError{Path: ".git", Reason: source.Excluded}, unpublished)
	check("specials and excluded paths", true, true)
}

// TestTombstoneWaitsForTheNewName: a renamed file that cannot be read yet keeps
// its old name on the nodes, and that its directories.
func TestTombstoneWaitsForTheNewName(t *testing.T) {
	p, dir := newTestPublisher(t)
	build(t, dir, "a/b/old", "a/b/other")
	s := &session{Publisher: p, index: settled(t, p), unsent: map[events.Path]shape{}}
	if err := os.Rename(filepath.Join(dir, "a/b/old"), filepath.Join(dir, "new")); err != nil {
		t.Fatal(err)
	}
	pl := plans(t, p, s.index, task{deep: true})
	for _, c := range pl.changes {
		if c.meta.Entry.Path == path(t, "new") {
			s.withhold(c)
		}
	}
	gone := []events.Path{path(t, "a/b/old"), path(t, "a/b/other"), path(t, "a/b"), path(t, "a"), path(t, "z")}
	waits := s.withheld(gone)
	for i, want := range []bool{true, false, true, true, false} {
		if waits[gone[i]] != want {
			t.Errorf("%v: waits %v", gone[i], waits[gone[i]])
		}
	}
	if err := os.Remove(filepath.Join(dir, "new")); err != nil {
		t.Fatal(err)
	}
	if waits := s.withheld(gone); len(waits) != 0 {
		t.Errorf("the new name is gone as well: %v", waits)
	}
}
