package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Measured with a plain fsnotify loop: after `mv a b` 128 of 300 lost all
// events in b, and all 300 reported b/sub under the old name.
func TestRenamedDirectoryIsWatchedAtItsNewName(t *testing.T) {
	tree, root := open(t, Options{})
	mkdir(t, root+"/d0/sub")
	v := watch(t, tree)
	for i := range 300 {
		old, now := fmt.Sprintf("d%d", i), fmt.Sprintf("d%d", i+1)
		must(t, os.Rename(filepath.Join(root, old), filepath.Join(root, now)))
		if i%2 == 0 {
			v.settle()
		}
		write(t, filepath.Join(root, now, "sub", "y"), fmt.Sprint(i))
		if hints := v.settle(); !covered(hints, pathOf(t, now+"/sub/y")) {
			t.Fatalf("round %d: write after rename not hinted: %v", i, hints)
		}
		// Now that all is quiet, events themselves must have the right name.
		quiet := fmt.Sprintf("sub/z%d", i)
		write(t, filepath.Join(root, now, quiet), "")
		hints := v.settle()
		if !hinted(hints, pathOf(t, now+"/"+quiet)) || !hinted(hints, pathOf(t, now+"/sub")) {
			t.Fatalf("round %d: quiet write not hinted at its name: %v", i, hints)
		}
		for _, h := range hints {
			if h.Path.Within(pathOf(t, old)) || h.Path.IsRoot() {
				t.Fatalf("round %d: hint %v for what was %s", i, h, old)
			}
		}
	}
	v.equal()
	if s := v.w.State(); s.Watches != 3 || s.Rescans != 0 || s.Degraded {
		t.Fatalf("state %+v, want 3 watches and no rescan", s)
	}
}

// Who is told of the old name first removes what was there before it is under
// the new one.
func TestWhatIsRenamedComesBeforeItGoes(t *testing.T) {
	for what, rounds := range map[string]int{"directory": 20, "file": 500} {
		t.Run(what, func(t *testing.T) {
			tree, root := open(t, Options{})
			if what == "file" {
				write(t, root+"/d0", "x")
			} else {
				for i := range 300 {
					mkdir(t, fmt.Sprintf("%s/d0/s%d", root, i))
				}
			}
			v := watch(t, tree)
			early := 0
			for i := range rounds {
				old, now := fmt.Sprintf("d%d", i), fmt.Sprintf("d%d", i+1)
				must(t, os.Rename(filepath.Join(root, old), filepath.Join(root, now)))
				hints := v.settle()
				at := func(name string) int {
					return slices.IndexFunc(hints, func(h Hint) bool { return h.Path == pathOf(t, name) })
				}
				switch {
				case at(old) < 0 || at(now) < 0:
					t.Fatalf("round %d: not hinted: %v", i, hints)
				case at(old) < at(now):
					early++
				}
			}
			if early > rounds/20 { // a kernel may be interrupted between the two halves
				t.Errorf("%d of %d went before they came", early, rounds)
			}
		})
	}
}

func TestNewDirectoriesWithFilesAtOnce(t *testing.T) {
	tree, root := open(t, Options{})
	v := watch(t, tree)
	for i := range 300 {
		dir := fmt.Sprintf("%s/x%d/y", root, i)
		mkdir(t, dir)
		write(t, dir+"/f", "content")
		if i%3 == 0 {
			v.settle()
			if got := v.model[pathOf(t, fmt.Sprintf("x%d/y/f", i))]; got != "filecontent" {
				t.Fatalf("round %d: the new directory's file is %q", i, got)
			}
		}
	}
	v.settle()
	v.equal()
}

func TestDirectoryMovedOutIsNotFollowed(t *testing.T) {
	tree, root := open(t, Options{})
	mkdir(t, root+"/d/s")
	write(t, root+"/d/s/f", "inside")
	v := watch(t, tree)
	out := filepath.Join(filepath.Dir(root), "out")
	must(t, os.Rename(root+"/d", out))
	write(t, out+"/s/secret", "secret")
	v.settle()
	v.equal()
	write(t, out+"/s/secret2", "secret")
	if hints := v.settle(); len(hints) > 0 {
		t.Fatalf("hints from outside: %v", hints)
	}
	if s := v.w.State(); s.Watches != 1 {
		t.Fatalf("%d watches left, want the root's", s.Watches)
	}
	must(t, os.Rename(out, root+"/d")) // with what was made outside
	v.settle()
	v.equal()
	if _, ok := v.model[pathOf(t, "d/s/secret")]; !ok {
		t.Fatal("moved in, and not seen")
	}
}

// inotify tells an exchange as two renames, the going of a name after its
// coming.
func TestExchangedDirectoriesAreBothWatched(t *testing.T) {
	tree, root := open(t, Options{})
	mkdir(t, root+"/a/inner")
	mkdir(t, root+"/b/other")
	write(t, root+"/f", "file")
	v := watch(t, tree)
	for i, pair := range [][2]string{{"a", "b"}, {"a", "f"}, {"f", "b"}, {"a/inner", "b"}} {
		for range 20 {
			err := unix.Renameat2(unix.AT_FDCWD, root+"/"+pair[0], unix.AT_FDCWD, root+"/"+pair[1], unix.RENAME_EXCHANGE)
			if err != nil {
				break // the pairs before may have made a file of a directory
			}
			v.settle()
			v.equal()
		}
		must(t, filepath.WalkDir(root, func(name string, e os.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				write(t, fmt.Sprintf("%s/new%d", name, i), "x")
			}
			return err
		}))
		for _, h := range v.settle() {
			if h.Deep {
				t.Errorf("deep hint %v for a quiet write", h)
			}
		}
		v.equal()
	}
}

func TestOverflowWatchesAnewAndHintsTheRoot(t *testing.T) {
	tree, root := open(t, Options{})
	mkdir(t, root+"/d")
	block := make(chan struct{})
	var deep, blocked atomic.Bool
	w := NewWatcher(tree, func(hints []Hint) {
		blocked.Store(true)
		<-block
		for _, h := range hints {
			if h.Deep && h.Path.IsRoot() {
				deep.Store(true)
			}
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended, ready := make(chan error, 1), make(chan struct{})
	go func() { ended <- w.Run(ctx, ready) }()
	<-ready
	write(t, root+"/first", "")
	wait(t, "the callback", blocked.Load)
	// More than the kernel's queue and the buffer hold, whatever its limit is.
	limit := 16384
	if text, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events"); err == nil {
		_, _ = fmt.Sscan(string(text), &limit)
	}
	name := [2]string{root + "/d/1", root + "/d/2"}
	write(t, name[0], "")
	for i := range limit/2 + 5000 { // each is two events and more
		must(t, os.Rename(name[i%2], name[1-i%2]))
	}
	mkdir(t, root+"/late")
	if deep.Load() {
		t.Fatal("the root was hinted before")
	}
	close(block)
	wait(t, "the deep hint of the root", deep.Load)
	wait(t, "the state", func() bool { return w.State().Rescans >= 1 && w.State().Watches == 3 })
	cancel()
	must(t, <-ended)
}

func wait(t testing.TB, what string, met func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !met(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestEverydayReplacements(t *testing.T) {
	tree, root := open(t, Options{})
	write(t, root+"/f", "old old\n")
	mkdir(t, root+"/v1")
	mkdir(t, root+"/v2")
	must(t, os.Symlink("v1", root+"/current"))
	v := watch(t, tree)
	must(t, exec.Command("sed", "-i", "s/old/new/g", root+"/f").Run())
	v.settle()
	if got := v.model[pathOf(t, "f")]; got != "filenew new\n" {
		t.Errorf("after sed -i: %q", got)
	}
	must(t, exec.Command("ln", "-sfn", "v2", root+"/current").Run())
	v.settle()
	if got := v.model[pathOf(t, "current")]; got != "symlinkv2" {
		t.Errorf("after ln -sfn: %q", got)
	}
	must(t, os.Link(root+"/f", root+"/hard"))
	must(t, os.Chmod(root+"/v1", 0o700))
	must(t, os.Chtimes(root+"/f", time.Unix(1, 0), time.Unix(1, 0)))
	v.settle()
	v.equal()
	// A symlink to a directory is watched as the link that it is.
	outside := t.TempDir()
	must(t, os.Symlink(outside, root+"/link"))
	v.settle()
	write(t, outside+"/x", "")
	if hints := v.settle(); len(hints) > 0 {
		t.Errorf("hints through a symlink: %v", hints)
	}
}

// Random renames, swaps, removals and writes against the model, with the
// watcher lagging behind by random amounts.
func TestRandomChangesConverge(t *testing.T) {
	tree, root := open(t, Options{})
	v := watch(t, tree)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	names := []string{"a", "b", "c", "d", "..."}
	pick := func() string {
		name := root
		for range 1 + r.IntN(4) {
			name += "/" + names[r.IntN(len(names))]
		}
		return name
	}
	for round := range 60 {
		for range r.IntN(80) {
			a, b := pick(), pick()
			switch r.IntN(9) {
			case 0, 1, 2:
				_ = os.MkdirAll(a, 0o755)
			case 3, 4:
				_ = os.WriteFile(a, []byte(fmt.Sprint(r.Uint64())), 0o644)
			case 5, 6:
				_ = os.Rename(a, b)
			case 7:
				_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
			case 8:
				if r.IntN(3) == 0 {
					_ = os.RemoveAll(a)
				} else {
					_ = os.Symlink(root, a)
				}
			}
		}
		v.settle()
		v.equal()
		dirs := 0
		must(t, filepath.WalkDir(root, func(_ string, e os.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				dirs++
			}
			return err
		}))
		if s := v.w.State(); s.Watches != dirs || s.Rescans != 0 {
			t.Fatalf("round %d: %+v for %d directories", round, s, dirs)
		}
	}
}

func TestExcludedDirectoriesAreNotWatched(t *testing.T) {
	f, err := NewFilter("secret", "logs/")
	must(t, err)
	tree, root := open(t, Options{Filter: f})
	for _, d := range []string{"secret", "logs/x", "a/secret/b"} {
		mkdir(t, root+"/"+d)
	}
	v := watch(t, tree)
	mkdir(t, root+"/a/logs")
	write(t, root+"/logs/x/f", "")
	write(t, root+"/secret/f", "")
	write(t, root+"/a/secret/b/f", "")
	hints := v.settle()
	if len(hints) != 1 || hints[0] != (Hint{Path: pathOf(t, "a")}) {
		t.Errorf("hints %v, want the parent of the new excluded directory alone", hints)
	}
	if s := v.w.State(); s.Watches != 2 {
		t.Errorf("%d watches, want those of the root and a", s.Watches)
	}
	v.equal()
}

func TestRewatchFindsWhatWasMissed(t *testing.T) {
	tree, root := open(t, Options{})
	mkdir(t, root+"/a/b")
	mkdir(t, root+"/c")
	tree.log = slog.New(slog.NewTextHandler(io.Discard, nil))
	v := watch(t, tree)
	// Lose a watch as a lost event would; the watcher is idle, the check that
	// follows is ordered after this by its channel.
	must(t, v.w.fsn.Remove(v.w.base+"/a/b"))
	v.w.Rewatch()
	v.until("deep hint of a/b", func(h []Hint) bool { return covered(h, pathOf(t, "a/b/x")) })
	write(t, root+"/a/b/f", "")
	if hints := v.settle(); !hinted(hints, pathOf(t, "a/b/f")) {
		t.Errorf("hints %v", hints)
	}
	v.w.Rewatch() // nothing is wrong: nothing is hinted
	wait(t, "the check", func() bool { return len(v.w.rewatch) == 0 })
	if hints := v.settle(); len(hints) > 0 {
		t.Errorf("hints of a check that finds nothing: %v", hints)
	}
	if s := v.w.State(); s.Watches != 4 || s.Rescans != 0 {
		t.Errorf("state %+v", s)
	}
}

func TestSyncEndsWithTheWatcher(t *testing.T) {
	tree, _ := open(t, Options{})
	w := NewWatcher(tree, func([]Hint) {})
	ctx, cancel := context.WithCancel(context.Background())
	ended, ready := make(chan error, 1), make(chan struct{})
	go func() { ended <- w.Run(ctx, ready) }()
	<-ready
	must(t, w.Sync(ctx))
	cancel()
	must(t, <-ended)
	if err := w.Sync(context.Background()); !errors.Is(err, ErrStopped) {
		t.Errorf("Sync after the end: %v", err)
	}
	w.Rewatch() // harmless
	w.Rewatch()
}

func TestDeepTree(t *testing.T) {
	tree, root := open(t, Options{})
	v := watch(t, tree)
	// 60 levels of 100 bytes pass what a path may have.
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	name := fmt.Sprintf("%0100d", 7)
	for range 60 {
		must(t, unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd = next
	}
	must(t, unix.Close(fd))
	v.settle()
	deepest := pathOf(t, ".")
	for p := range v.model {
		if p.Depth() > deepest.Depth() {
			deepest = p
		}
	}
	if deepest.Depth() != 40 {
		t.Errorf("%d levels seen, want the 40 that fit in a path", deepest.Depth())
	}
	l, err := tree.List(deepest)
	must(t, err)
	if len(l.Skipped) != 1 || l.Skipped[0].Reason != BadName {
		t.Errorf("skipped %v, want the name that does not fit", l.Skipped)
	}
	must(t, os.RemoveAll(root+"/"+name))
	v.settle()
	v.equal()
}

// fsnotify 1.10.1 reports an error, under its lock, for a directory that is
// renamed and removed before it comes to the first: an owner that reads its own
// errors ends in a deadlock, and the error is none.
func TestDirectoryRenamedThenRemoved(t *testing.T) {
	tree, root := open(t, Options{})
	v := watch(t, tree)
	for i := range 300 {
		mkdir(t, root+"/a/sub")
		if i%2 == 0 {
			v.settle() // with watches on both
		}
		must(t, os.Rename(root+"/a", root+"/b"))
		must(t, os.RemoveAll(root+"/b"))
		mkdir(t, root+"/b")
		must(t, os.Remove(root+"/b"))
	}
	v.settle()
	v.equal()
	if s := v.w.State(); s.Watches != 1 || s.Rescans != 0 {
		t.Errorf("state %+v, want one watch and no rescan", s)
	}
}

func TestQueueLimitIsOnlyRaised(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	file := filepath.Join(t.TempDir(), "max_queued_events")
	for before, after := range map[string]string{"16384\n": "262144", "500000\n": "500000\n", "?": "?"} {
		write(t, file, before)
		raiseQueueLimit(file, log)
		if got, err := os.ReadFile(file); err != nil || string(got) != after {
			t.Errorf("%q became %q (%v)", before, got, err)
		}
	}
	raiseQueueLimit(file+"/none", log) // harmless
}
