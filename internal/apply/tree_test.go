package apply

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

func TestOpenNeedsARoot(t *testing.T) {
	b := benchAt(t, t.TempDir())
	for _, root := range []string{"", filepath.Join(b.top, "none"), filepath.Join(b.top, "file")} {
		must(t, os.WriteFile(filepath.Join(b.top, "file"), nil, 0o644))
		o := b.opts
		o.Root = root
		for _, open := range []func(Options) (*Tree, error){Open, OpenReadOnly} {
			if _, err := open(o); !errors.Is(err, ErrRoot) || Permanent(err) {
				t.Errorf("%q: %v", root, err)
			}
		}
	}
	if left, _ := os.ReadDir(b.top); len(left) != 2 {
		t.Errorf("made %v", left)
	}
}

func TestTreeIsHeldByOne(t *testing.T) {
	b := newBench(t)
	_, err := Open(b.opts)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d,", os.Getpid())) {
		t.Errorf("%v", err)
	}
	reader, err := OpenReadOnly(b.opts)
	must(t, err)
	defer reader.Close()
	if _, err := reader.Stage(t.Context(), reg("f", "x").entry(), nil); !errors.Is(err, ErrReadOnly) {
		t.Error(err)
	}
	if _, err := reader.Commit(t.Context(), nil); !errors.Is(err, ErrReadOnly) {
		t.Error(err)
	}
	if _, err := reader.RemoveForeign(t.Context(), nil); !errors.Is(err, ErrReadOnly) {
		t.Error(err)
	}
	if err := reader.Mark(Watermark{}); !errors.Is(err, ErrReadOnly) {
		t.Error(err)
	}
	if _, ok := reader.Watermark(); ok {
		t.Error("a watermark")
	}
	b.reopen()
}

func TestStagingIsBesideTheRoot(t *testing.T) {
	b := newBench(t)
	st, err := os.Stat(b.staging())
	must(t, err)
	if st.Mode().Perm() != 0o700 {
		t.Error(st.Mode())
	}
	if names, _ := os.ReadDir(b.root); len(names) > 0 {
		t.Errorf("in the root: %v", names)
	}
}

func TestRootBehindASymlink(t *testing.T) {
	b := benchAt(t, t.TempDir())
	must(t, os.Symlink(b.root, filepath.Join(b.top, "www")))
	b.opts.Root = filepath.Join(b.top, "www")
	b.reopen()
	b.apply(reg("f", "x"))
	b.check(reg("f", "x"))
	if _, err := os.Stat(b.staging()); err != nil {
		t.Error(err)
	}
}

func TestStagingInARootThatIsAMountPoint(t *testing.T) {
	b := benchAt(t, t.TempDir())
	mount(t, "tmpfs", b.root, "tmpfs", 0, "mode=755")
	b.reopen()
	if st, err := os.Stat(b.staging()); err == nil && st.IsDir() {
		t.Error("staging is beside the root")
	}
	inside := filepath.Join(b.root, events.ReservedName)
	if st, err := os.Stat(inside); err != nil || st.Mode().Perm() != 0o700 {
		t.Error(st, err)
	}
	b.apply(dir("d"), reg("d/f", "x"), dir(".").at(9))
	must(t, b.tree.Mark(Watermark{Site: "web", Seq: 7}))
	b.reopen()
	b.check(dir(".").at(9), reg("d/f", "x"))
	if w, ok := b.tree.Watermark(); !ok || w.Seq != 7 {
		t.Error(w, ok)
	}
	want := entries(dir("d"), reg("d/f", "x"), dir(".").at(9))
	if diff := b.compare(want, true); len(diff) > 0 {
		t.Error(diff)
	}
	b.close()
}

func TestStagingInARootThatIsABindMount(t *testing.T) {
	b := benchAt(t, t.TempDir())
	mount(t, b.root, b.root, "", unix.MS_BIND, "") // of the same device
	b.reopen()
	if _, err := os.Stat(filepath.Join(b.root, events.ReservedName)); err != nil {
		t.Error(err)
	}
	b.close()
}

func TestNestedMountIsLeftAlone(t *testing.T) {
	b := newBench(t)
	b.apply(dir("d/m"), dir("d"))
	mount(t, "tmpfs", b.path("d/m"), "tmpfs", 0, "")
	must(t, os.WriteFile(b.path("d/m/theirs"), nil, 0o644))
	for _, it := range []item{reg("d/m/f", "x"), gone("d/m/theirs"), gone("d/m"), gone("d"), reg("d/m", "x"), reg("d", "x"), dir("d/m").with(0o700)} {
		s, err := b.tree.Stage(t.Context(), it.entry(), it.payload(b.opts.Codec))
		if err == nil {
			var results []Result
			results, err = b.tree.Commit(t.Context(), []*Staged{s})
			if err == nil {
				err = results[0].Err
			}
			s.Discard()
		}
		if !errors.Is(err, ErrMount) && !errors.Is(err, syscall.EBUSY) || Permanent(err) {
			t.Errorf("%s: %v", it.path, err)
		}
	}
	if _, err := os.Stat(b.path("d/m/theirs")); err != nil {
		t.Error(err)
	}
	err := b.tree.Compare(t.Context(), byPath(entries(dir("d"), dir("d/m"), dir("."))), false, func(Difference) error { return nil })
	if !errors.Is(err, ErrMount) {
		t.Errorf("compare: %v", err)
	}
}

func TestMountPointsAreFound(t *testing.T) {
	const info = "36 35 98:0 /mnt1 /srv/a\\040b/c rw,noatime master:1 - ext3 /dev/root rw\n" +
		"37 35 0:5 / /srv/back\\134slash rw - tmpfs tmpfs rw\n"
	for path, want := range map[string]bool{
		"/srv/a b/c": true, "/srv/a b": true, "/srv": true, "/srv/a": false, "/srv/a b/c/d": false,
		"/srv/back\\slash": true, "/sr": false,
	} {
		if got := mountUnder(info, path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

func mount(t *testing.T, source, target, kind string, flags uintptr, data string) {
	t.Helper()
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		unable(t, "no mounts here:", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(target, unix.MNT_DETACH)) })
}

func TestNoStagingOnAReadOnlyFileSystem(t *testing.T) {
	b := benchAt(t, t.TempDir())
	mount(t, "tmpfs", b.root, "tmpfs", unix.MS_RDONLY, "")
	_, err := Open(b.opts)
	if !errors.Is(err, ErrStaging) || !errors.Is(err, syscall.EROFS) {
		t.Error(err)
	}
}

func TestFullDisk(t *testing.T) {
	b := benchAt(t, t.TempDir())
	mount(t, "tmpfs", b.root, "tmpfs", 0, "size=1m,mode=755")
	b.reopen()
	noise := make([]byte, 300<<10)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	big := string(noise)
	b.apply(reg("old", "old"), reg("a", big), reg("b", big), dir(".").at(9))
	it := reg("old", big)
	_, err := b.tree.Stage(t.Context(), it.entry(), it.payload(b.opts.Codec))
	if !errors.Is(err, syscall.ENOSPC) || Permanent(err) {
		t.Error(err)
	}
	b.check(reg("old", "old"))
	if l := b.litter(); len(l) > 0 {
		t.Errorf("litter %q", l)
	}
	// Nothing is left, not even for the journal; deletes work nevertheless.
	fill(t, b.path("fill"))
	b.want(b.apply(gone("a"), gone("b")), Deleted, Deleted)
	must(t, b.tree.Mark(Watermark{Site: "web", Seq: 3}))
	b.want(b.apply(it), Updated)
	b.check(it)
	b.close()
}

func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

func TestWatermark(t *testing.T) {
	b := newBench(t)
	if _, ok := b.tree.Watermark(); ok {
		t.Error("a watermark from nowhere")
	}
	w := Watermark{Site: "web", Stream: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Epoch: 7, Time: time.Unix(1, 2).UTC()}
	for w.Seq = 1; w.Seq < 5; w.Seq++ {
		must(t, b.tree.Mark(w))
		if got, ok := b.tree.Watermark(); !ok || got != w {
			t.Errorf("%v, want %v", got, w)
		}
		b.reopen()
		if got, ok := b.tree.Watermark(); !ok || got != w {
			t.Errorf("reopened: %v, want %v", got, w)
		}
	}
	// Of another directory it says nothing.
	b.close()
	must(t, os.Rename(b.root, b.root+".old"))
	must(t, os.Mkdir(b.root, 0o755))
	b.reopen()
	if got, ok := b.tree.Watermark(); ok {
		t.Errorf("%v of another root", got)
	}
}

func TestTornRecord(t *testing.T) {
	b := newBench(t)
	must(t, b.tree.Mark(Watermark{Site: "web", Seq: 100}))
	must(t, b.tree.Mark(Watermark{Site: "web", Seq: 101}))
	b.close()
	file := filepath.Join(b.staging(), markFile)
	whole, err := os.ReadFile(file)
	must(t, err)
	for slot, left := range map[int]uint64{0: 100, 1: 101} { // 101 is in slot 0, counter 2
		off := slot * markSlotSize
		for _, broken := range [][]byte{make([]byte, markSlotSize), []byte("\xff"), whole[off+1 : off+60], []byte(slotMagic + " 99")} {
			torn := []byte(string(whole))
			copy(torn[off:], broken)
			must(t, os.WriteFile(file, torn, 0o600))
			b.reopen()
			if w, ok := b.tree.Watermark(); !ok || w.Seq != left {
				t.Errorf("slot %d torn: %v %v, want %d", slot, w, ok, left)
			}
			b.close()
		}
	}
	for _, content := range []string{"", "x", string(whole[:100]), strings.Repeat("\n", 9000)} {
		must(t, os.WriteFile(file, []byte(content), 0o600))
		b.reopen()
		if w, ok := b.tree.Watermark(); ok && w.Seq != 101 {
			t.Errorf("%q gives %v", content, w)
		}
		must(t, b.tree.Mark(Watermark{Site: "web", Seq: 200}))
		b.reopen()
		if w, ok := b.tree.Watermark(); !ok || w.Seq != 200 {
			t.Errorf("%q: %v %v", content, w, ok)
		}
		b.close()
	}
}

func FuzzRecords(f *testing.F) {
	f.Add(sealSlot(3, []byte("0755 1 \"d\"\n")))
	f.Add([]byte(slotMagic + " 1 0 \n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if counter, record, ok := openSlot(raw); ok {
			if again := sealSlot(counter, record); string(again[:len(again)-1]) != string(raw[:len(again)-1]) && len(strings.Fields(string(raw))) < 4 {
				t.Errorf("%q opens as %q", raw, record)
			}
		}
		dirs, err := parseDirs(raw)
		if err != nil {
			return
		}
		again, err := parseDirs(marshalDirs(dirs))
		if err != nil || len(again) != len(dirs) {
			t.Errorf("%v: %v", dirs, err)
		}
	})
}

func TestJournalKeepsWeirdPaths(t *testing.T) {
	dirs := map[events.Path]dirState{}
	for _, name := range []string{".", "a b", "new\nline", "\xff\xfe", "q\"\\", "\ufffd", "日本"} {
		dirs[parse(name)] = dirState{0o1755, events.Time{Sec: -5, Nsec: 7}}
	}
	got, err := parseDirs(marshalDirs(dirs))
	must(t, err)
	for p, want := range dirs {
		if got[p] != want {
			t.Errorf("%q: %v", p, got[p])
		}
	}
}

func TestOpenMendsAndCleans(t *testing.T) {
	b := newBench(t)
	b.apply(dir("d").at(5), reg("d/f", "x"), dir(".").at(6))
	b.close()
	tmp := filepath.Join(b.staging(), tmpName)
	must(t, os.WriteFile(filepath.Join(tmp, "a"), nil, 0o600))
	must(t, os.Mkdir(filepath.Join(tmp, "empty"), 0))
	must(t, os.MkdirAll(filepath.Join(tmp, "full/of"), 0o755))
	must(t, os.Symlink(b.root, filepath.Join(tmp, "link")))
	for name, age := range map[string]time.Duration{"new": 6 * 24 * time.Hour, "old": 8 * 24 * time.Hour} {
		batch := filepath.Join(b.staging(), trashName, time.Now().Add(-age).UTC().Format(trashStamp)+"-"+name)
		deep := filepath.Join(batch, strings.Repeat("deep/", 300))
		must(t, os.MkdirAll(deep, 0o755))
		must(t, os.Symlink(b.root, filepath.Join(deep, "link")))
		must(t, os.WriteFile(filepath.Join(deep, "file"), nil, 0))
	}
	b.reopen()
	if l := b.litter(); len(l) > 0 {
		t.Errorf("litter %q", l)
	}
	got := trashed(t, b.staging())
	if !contains(got, "recovered/of") {
		t.Errorf("trash %q", got)
	}
	batches, err := os.ReadDir(filepath.Join(b.staging(), trashName))
	must(t, err)
	if len(batches) != 2 {
		t.Errorf("batches %v", batches)
	}
	b.check(dir("d").at(5), reg("d/f", "x"), dir(".").at(6))
}

func TestCloseEndsTheJournal(t *testing.T) {
	b := newBench(t)
	b.apply(dir("d").at(5), reg("d/f", "x"))
	b.apply(reg("d/f", "y"))
	if len(b.tree.journal.listed) == 0 {
		t.Fatal("nothing is listed")
	}
	b.close()
	must(t, os.Chtimes(b.path("d"), time.Time{}, time.Unix(9, 0)))
	b.reopen()
	if st, _ := os.Stat(b.path("d")); st.ModTime().Unix() != 9 {
		t.Error("an operator's change to a stopped node was undone")
	}
}

func TestOverwritingInOneDirectoryWritesOneJournal(t *testing.T) {
	b := newBench(t)
	b.apply(dir("d").at(5), reg("d/f", "x"))
	first := b.tree.journal.slots.counter
	for i := range 5 {
		b.apply(reg("d/f", fmt.Sprint(i)))
	}
	if n := b.tree.journal.slots.counter - first; n != 1 {
		t.Errorf("%d journals", n)
	}
	b.check(dir("d").at(5))
}

func TestTimeOutOfRange(t *testing.T) {
	r := timeRange{events.Time{Sec: -100}, events.Time{Sec: 100}, 1000}
	for in, want := range map[events.Time]events.Time{
		{Sec: -101}:          {Sec: -100},
		{Sec: 101, Nsec: 5}:  {Sec: 100},
		{Sec: 5, Nsec: 1999}: {Sec: 5, Nsec: 1000},
	} {
		if got := r.hold(in); got != want {
			t.Errorf("%v: %v, want %v", in, got, want)
		}
	}
	b := newBench(t)
	f := reg("f", "x").at(1 << 39) // beyond ext4's
	b.want(b.apply(f), Created)
	b.want(b.apply(f), Unchanged)
	if diff := b.compare(entries(f), false); len(diff) > 0 {
		t.Error(diff)
	}
}
