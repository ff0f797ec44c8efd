package source

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

func TestLstatTellsWhatStandsThere(t *testing.T) {
	tree, root := open(t, Options{Specials: true})
	write(t, root+"/f", "12345")
	must(t, unix.Chmod(root+"/f", 0o4751))
	must(t, os.Chtimes(root+"/f", time.Unix(-5, 999999999), time.Unix(-5, 999999999)))
	must(t, os.Symlink("no/such", root+"/l"))
	mkdir(t, root+"/d")
	must(t, os.Chmod(root+"/d", 0o700|fs.ModeSticky))
	must(t, unix.Mkfifo(root+"/fifo", 0o600))
	me, err := user.Current()
	must(t, err)
	for _, c := range []struct {
		path   string
		kind   events.Kind
		mode   uint16
		size   int64
		target string
	}{
		{".", events.Dir, 0o755, 0, ""},
		{"f", events.File, 0o4751, 5, ""},
		{"l", events.Symlink, 0o777, 0, "no/such"},
		{"d", events.Dir, 0o1700, 0, ""},
		{"fifo", events.FIFO, 0o600, 0, ""},
	} {
		m, err := tree.Lstat(pathOf(t, c.path))
		must(t, err)
		e := m.Entry
		if e.Path != pathOf(t, c.path) || e.Kind != c.kind || e.Mode != c.mode || e.Size != c.size || e.Target != c.target {
			t.Errorf("%s: %+v", c.path, e)
		}
		if e.Owner != me.Username || int(e.UID) != os.Getuid() || int(e.GID) != os.Getgid() {
			t.Errorf("%s: owner %+v", c.path, e)
		}
		if e.Body != events.NoBody || e.Digest != (events.Digest{}) || m.Ino == 0 || e.Ctime.Sec == 0 {
			t.Errorf("%s: %+v", c.path, m)
		}
	}
	if m, err := tree.Lstat(pathOf(t, "f")); err != nil || m.Entry.Mtime != (events.Time{Sec: -5, Nsec: 999999999}) {
		t.Errorf("time before 1970: %v %v", m.Entry.Mtime, err)
	}
}

func TestAbsenceIsProven(t *testing.T) {
	tree, root := open(t, Options{})
	outside := t.TempDir()
	write(t, outside+"/f", "outside")
	write(t, root+"/f", "")
	must(t, os.Symlink(outside, root+"/link"))
	for _, s := range []string{"none", "none/x", "f/x", "link/f", "link/none"} {
		_, err := tree.Lstat(pathOf(t, s))
		_, lerr := tree.List(pathOf(t, s))
		_, _, rerr := tree.Read(pathOf(t, s), nil)
		_, _, serr := tree.Settled(pathOf(t, s))
		for _, err := range []error{err, lerr, rerr, serr} {
			if !errors.Is(err, ErrAbsent) {
				t.Errorf("%s: %v", s, err)
			}
		}
	}
	// These are there, as something else: no absence.
	for _, s := range []string{"f", "link"} {
		if _, err := tree.List(pathOf(t, s)); !errors.Is(err, ErrUnstable) {
			t.Errorf("list %s: %v", s, err)
		}
	}
	if _, _, err := tree.Read(pathOf(t, "link"), nil); !errors.Is(err, ErrUnstable) {
		t.Errorf("read of a symlink: %v", err)
	}
}

func TestListIsWholeAndSorted(t *testing.T) {
	f, err := NewFilter("*.tmp", "logs/", "!keep.tmp")
	must(t, err)
	tree, root := open(t, Options{Filter: f})
	var want []string
	for i := range 3000 { // many getdents
		name := fmt.Sprintf("%s%d", strings.Repeat("n", i%200), i)
		write(t, root+"/"+name, "")
		want = append(want, name)
	}
	mkdir(t, root+"/dir/in")
	mkdir(t, root+"/logs")
	mkdir(t, root+"/"+events.ReservedName)
	must(t, os.Symlink("dir", root+"/link"))
	must(t, unix.Mkfifo(root+"/pipe", 0o600))
	write(t, root+"/x.tmp", "")
	write(t, root+"/keep.tmp", "")
	want = append(want, "dir", "link", "keep.tmp")
	slices.Sort(want)
	l, err := tree.List(pathOf(t, "."))
	must(t, err)
	var got []string
	for _, m := range l.Children {
		got = append(got, m.Entry.Path.String())
		if single, err := tree.Lstat(m.Entry.Path); err != nil || single != m {
			t.Errorf("%v: List says %+v, Lstat %+v", err, m, single)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d children, want %d", len(got), len(want))
	}
	var skips []string
	for _, s := range l.Skipped {
		skips = append(skips, s.Error())
	}
	if wantSkips := []string{
		`".treecast" is skipped: reserved name`, `"logs" is skipped: excluded`,
		`"pipe" is skipped: special file`, `"x.tmp" is skipped: excluded`,
	}; !slices.Equal(skips, wantSkips) {
		t.Errorf("skipped %q", skips)
	}
	if len(l.Unknown) != 0 || !l.Dir.Entry.Path.IsRoot() || l.Dir.Entry.Kind != events.Dir {
		t.Errorf("unknown %q, dir %+v", l.Unknown, l.Dir)
	}
	_, err = tree.List(pathOf(t, "logs"))
	skipped(t, err, Excluded)
	_, err = tree.Lstat(pathOf(t, "x.tmp"))
	skipped(t, err, Excluded)
	if _, err = tree.Lstat(pathOf(t, "y.tmp")); !errors.Is(err, ErrAbsent) {
		t.Errorf("excluded and absent: %v", err)
	}
}

func TestNamesOfAnyBytes(t *testing.T) {
	tree, root := open(t, Options{})
	v := watch(t, tree)
	names := []string{
		"...", "..a", " ", "new\nline", "\r\t", `quote"back\slash`, "*", ">", "a.b.c", "$JS", "é", "e\u0301", "\xff\xfe",
		"-rf", "%s%n", strings.Repeat("x", 255),
	}
	for b := 1; b < 256; b++ {
		if b != '/' && b != '.' {
			names = append(names, string([]byte{byte(b)}))
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	for i, name := range names {
		if i%2 == 0 {
			mkdir(t, root+"/"+name)
			write(t, root+"/"+name+"/f", name)
		} else {
			write(t, root+"/"+name, name)
		}
	}
	v.settle()
	v.equal()
	for i, name := range names {
		p, want := pathOf(t, name), name
		if i%2 == 0 {
			p = pathOf(t, name+"/f")
		}
		if got := v.model[p]; got != "file"+want {
			t.Errorf("%q: %q", p, got)
		}
	}
}

func TestSpecials(t *testing.T) {
	plain, root := open(t, Options{})
	special, _ := open(t, Options{Root: root, Specials: true})
	must(t, unix.Mkfifo(root+"/fifo", 0o644))
	l, err := net.Listen("unix", root+"/socket")
	must(t, err)
	defer l.Close()
	want := map[string]events.Kind{"fifo": events.FIFO, "socket": events.Socket}
	if err := unix.Mknod(root+"/char", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err == nil {
		want["char"] = events.CharDevice
	}
	for name, kind := range want {
		p := pathOf(t, name)
		_, err := plain.Lstat(p)
		skipped(t, err, Special)
		_, _, err = plain.Read(p, nil)
		skipped(t, err, Special)
		m, err := special.Lstat(p)
		must(t, err)
		if m.Entry.Kind != kind || kind == events.CharDevice && (m.Entry.Major != 1 || m.Entry.Minor != 3) {
			t.Errorf("%s: %+v", name, m.Entry)
		}
		// Neither of these may wait for a writer of the FIFO.
		if _, _, err := special.Read(p, nil); !errors.Is(err, ErrUnstable) {
			t.Errorf("read %s: %v", name, err)
		}
		if settled, known, err := special.Settled(p); !settled || !known || err != nil {
			t.Errorf("settled %s: %v %v %v", name, settled, known, err)
		}
	}
}

// A parent that is swapped for a symlink at the worst moments must never let
// bytes from outside through.
func TestSymlinkSwappedInAsParent(t *testing.T) {
	tree, root := open(t, Options{})
	outside := t.TempDir()
	write(t, outside+"/f", "outside")
	mkdir(t, root+"/d")
	write(t, root+"/d/f", "inside!")
	must(t, os.Symlink(outside, root+"/s"))
	stop := make(chan struct{})
	var swapper sync.WaitGroup
	swapper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, root+"/d", unix.AT_FDCWD, root+"/s", unix.RENAME_EXCHANGE)
			}
		}
	})
	v := watch(t, tree)
	p, reads := pathOf(t, "d/f"), 0
	for i := 0; i < 20000 || reads == 0; i++ {
		_, body, err := tree.Read(p, nil)
		if err == nil && string(body) != "inside!" {
			t.Fatalf("read %q", body)
		}
		if err == nil {
			reads++
		}
		if l, err := tree.List(pathOf(t, "d")); err == nil && l.Children[0].Entry.Size != 7 {
			t.Fatal("listed outside")
		}
	}
	close(stop)
	swapper.Wait()
	v.settle()
	v.look(Hint{Deep: true})
	for q, state := range v.model {
		if strings.Contains(state, "fileoutside") {
			t.Errorf("%q: %s", q, state)
		}
	}
	v.settle()
	write(t, outside+"/g", "")
	if hints := v.settle(); len(hints) > 0 {
		t.Errorf("watching outside: %v", hints)
	}
}

func TestOpenRefusesWhatIsNoDirectory(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/f", "")
	for _, name := range []string{dir + "/f", dir + "/none"} {
		if _, err := Open(Options{Root: name}); err == nil {
			t.Errorf("%s was opened", name)
		}
	}
	must(t, os.Symlink(dir, dir+"/link")) // the operator's own is followed
	tree, err := Open(Options{Root: dir + "/link"})
	must(t, err)
	must(t, tree.Check())
	must(t, tree.Close())
}

func TestTimesBeyondTheWireAreMovedIntoIt(t *testing.T) {
	tree, _ := open(t, Options{})
	for sec, want := range map[int64]int64{1 << 62: maxTimeSec, -1 << 62: -maxTimeSec, 5: 5} {
		at := tree.time(events.Path{}, unix.StatxTimestamp{Sec: sec, Nsec: 7})
		if at.Sec != want {
			t.Errorf("%d: %v", sec, at)
		}
		if _, err := events.ParseTime(at.String()); err != nil {
			t.Error(err)
		}
	}
}

func TestRacy(t *testing.T) {
	tree, root := open(t, Options{})
	write(t, root+"/f", "")
	fresh, err := tree.Lstat(pathOf(t, "f"))
	must(t, err)
	old := fresh
	old.Entry.Ctime.Sec -= 10
	whole := fresh
	whole.Entry.Ctime.Nsec, whole.Entry.Ctime.Sec = 0, whole.Entry.Ctime.Sec+1
	tree.clock = clock{slop: localSlop}
	if !tree.Racy(fresh) || tree.Racy(old) {
		t.Error("coarse: a fresh file must be racy, an old one not")
	}
	tree.clock = clock{fine: true, slop: localSlop}
	if tree.Racy(fresh) || !tree.Racy(whole) {
		t.Error("fine: a fresh file is not racy, unless its stamp is of whole seconds")
	}
	for release, want := range map[string]bool{
		"6.18.44-fc-v595": true, "6.13.0": true, "6.13-rc1": true, "6.12.99": false, "7.0": true, "5.15.0-91": false, "?": false, "": false,
	} {
		if kernelAtLeast(release, 6, 13) != want {
			t.Errorf("kernel %q", release)
		}
	}
	if got := clockOf(1 << 60); got.fine || got.slop != remoteSlop {
		t.Errorf("unknown mount: %+v", got)
	}
}

// Where no stamp is racy, a change after a look shows in the next, always.
func TestChangeAfterALookShows(t *testing.T) {
	tree, root := open(t, Options{})
	name, p := root+"/f", pathOf(t, "f")
	write(t, name, "0")
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	for i := range 2000 {
		before, err := tree.Lstat(p)
		must(t, err)
		if tree.Racy(before) {
			t.Skip("stamps are coarse here")
		}
		_, err = f.WriteAt([]byte{byte(i)}, 0)
		must(t, err)
		if after, err := tree.Lstat(p); err != nil || before.Same(after) {
			t.Fatalf("round %d: the change does not show (%v)", i, err)
		}
	}
}

func FuzzDirents(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 8, 'a', 0, 0, 0, 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = eachDirent(b, func(name []byte, _ uint8) {
			if slices.Contains(name, 0) {
				t.Errorf("NUL in %q", name)
			}
		})
	})
}

func BenchmarkList(b *testing.B) {
	f, err := NewFilter(DefaultRules()...)
	must(b, err)
	tree, root := open(b, Options{Filter: f})
	for i := range 10_000 {
		write(b, filepath.Join(root, fmt.Sprintf("file%d.html", i)), "")
	}
	for b.Loop() {
		if l, err := tree.List(pathOf(b, ".")); err != nil || len(l.Children) != 10_000 {
			b.Fatal(err)
		}
	}
}
