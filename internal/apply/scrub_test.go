package apply

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func (b *bench) doubt(it item) string {
	b.Helper()
	item, err := b.tree.Check(b.Context(), it.entry(), func(context.Context, int) error { return nil })
	must(b, err)
	return item
}

// rot changes a file's first byte, and nothing else that a user can tell.
func (b *bench) rot(it item) {
	b.Helper()
	raw := []byte("X" + it.body[1:])
	must(b, os.WriteFile(b.path(it.path), raw, 0))
	must(b, os.Chtimes(b.path(it.path), time.Time{}, mtimeOf(it)))
}

// TestCheck: what Compare says of a path, and what is decayed though the tree
// remembers it to be right.
func TestCheck(t *testing.T) {
	b := newBench(t)
	small, large := reg("d/small", "small"), reg("d/large", strings.Repeat("0123456789abcdef", checkBlock/8)).in(1<<16)
	items := []item{small, large, link("l", "to"), fifo("p"), reg("empty", ""), dir("d"), dir(".")}
	b.apply(items...)
	for _, it := range append(items, gone("d/gone")) {
		if item := b.doubt(it); item != "" {
			t.Error(it.path, item)
		}
	}
	for _, it := range []item{small, large} {
		b.rot(it)
		if item := b.doubt(it); item != Decayed {
			t.Errorf("%s: %q", it.path, item)
		}
		b.want(b.apply(it.kept()), Updated)
		if item := b.doubt(it); item != "" {
			t.Errorf("%s: %q after it was mended", it.path, item)
		}
		b.check(it)
	}
	kept, err := filepath.Glob(filepath.Join(b.staging(), trashName, "*/d/*"))
	must(t, err)
	if len(kept) != 2 {
		t.Errorf("in the trash: %q", kept)
	}
	for _, name := range kept {
		raw, err := os.ReadFile(name)
		must(t, err)
		if raw[0] != 'X' {
			t.Errorf("%s has %.10q", name, raw)
		}
	}

	must(t, os.Chmod(b.path("d/small"), 0o600))
	must(t, os.Remove(b.path("l")))
	for it, want := range map[item]string{small: ".f...p.....", link("l", "to"): "cL+++++++++", link("p", "to"): "cL+++++++++", small.at(1): ">f..tp....."} {
		if item := b.doubt(it); item != want {
			t.Errorf("%s: %q, want %q", it.path, item, want)
		}
	}
}

// TestCheckOfAChangeMeanwhile: what changes while it is read is not decayed.
func TestCheckOfAChangeMeanwhile(t *testing.T) {
	b := newBench(t)
	it := reg("f", strings.Repeat("x", 3*checkBlock))
	for name, change := range map[string]func(){
		"replaced": func() { b.apply(reg("f", "new")) },
		"written":  func() { b.rot(it) },
		"removed":  func() { b.apply(gone("f")) },
	} {
		b.apply(it)
		blocks := 0
		item, err := b.tree.Check(t.Context(), it.entry(), func(context.Context, int) error {
			if blocks++; blocks == 2 {
				change()
			}
			return nil
		})
		if item != "" || err != nil || blocks != 3 {
			t.Error(name, item, err, blocks)
		}
	}
	b.apply(it)
	enough := errors.New("enough")
	if _, err := b.tree.Check(t.Context(), it.entry(), func(context.Context, int) error { return enough }); !errors.Is(err, enough) {
		t.Error(err)
	}
}

// TestCheckLeavesThePageCache: what others have read stays there, what nobody
// did does not come.
func TestCheckLeavesThePageCache(t *testing.T) {
	b := newBench(t)
	warm, cold := reg("warm", strings.Repeat("w", 8*checkBlock)), reg("cold", strings.Repeat("c", 8*checkBlock))
	b.apply(warm, cold)
	b.evict(cold)
	b.evict(warm)
	if n := b.cached(cold); n > 0 {
		t.Skipf("%d pages of what is evicted are in memory: this file system has no other place", n)
	}
	_, err := os.ReadFile(b.path("warm"))
	must(t, err)
	want := b.cached(warm)
	for _, it := range []item{warm, cold} {
		if item := b.doubt(it); item != "" {
			t.Error(item)
		}
	}
	if n := b.cached(cold); n != 0 {
		t.Errorf("%d pages came", n)
	}
	if n := b.cached(warm); n != want || n == 0 {
		t.Errorf("%d pages of %d are left", n, want)
	}
}

func (b *bench) evict(it item) {
	b.Helper()
	f, err := os.Open(b.path(it.path))
	must(b, err)
	defer func() { must(b, f.Close()) }()
	must(b, f.Sync())
	must(b, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}

// cached counts the file's pages that are in memory.
func (b *bench) cached(it item) (n int) {
	b.Helper()
	f, err := os.Open(b.path(it.path))
	must(b, err)
	defer func() { must(b, f.Close()) }()
	m, err := unix.Mmap(int(f.Fd()), 0, len(it.body), unix.PROT_READ, unix.MAP_SHARED)
	must(b, err)
	defer func() { must(b, unix.Munmap(m)) }()
	pages := make([]byte, (len(m)+os.Getpagesize()-1)/os.Getpagesize())
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(unsafe.Pointer(&pages[0]))); errno != 0 {
		b.Fatal(errno)
	}
	for _, p := range pages {
		n += int(p & 1)
	}
	return n
}

// TestScrubIsKept over a restart, with any path in it; a torn record is none.
func TestScrubIsKept(t *testing.T) {
	b := newBench(t)
	if s := b.tree.Scrub(); s != (Scrub{}) {
		t.Error(s)
	}
	s := Scrub{Due: time.Unix(7, 0).UTC(), At: parse("d/\xff\n\"e"), Done: time.Unix(5, 5).UTC()}
	must(t, b.tree.MarkScrub(s))
	b.reopen()
	if got := b.tree.Scrub(); got != s {
		t.Error(got)
	}
	for _, name := range []string{"scrub.0", "scrub.1"} {
		must(t, os.WriteFile(filepath.Join(b.staging(), name), []byte("torn"), 0o600))
	}
	b.reopen()
	if got := b.tree.Scrub(); got != (Scrub{}) {
		t.Error(got)
	}
	reader, err := OpenReadOnly(b.opts)
	must(t, err)
	if err := reader.MarkScrub(s); !errors.Is(err, ErrReadOnly) {
		t.Error(err)
	}
	must(t, reader.Close())
}

// TestScrubFaults: whatever call breaks, the record is the old or the new one,
// and the new one when MarkScrub said so.
func TestScrubFaults(t *testing.T) {
	s := story{before: []item{dir(".")}}
	opts := s.options(t, "")
	before, after := Scrub{At: parse("before"), Due: time.Unix(1, 0).UTC()}, Scrub{At: parse("after"), Due: time.Unix(2, 0).UTC()}
	for kind := range fault(len(faultNames)) {
		for at, fired := 1, true; fired; at++ {
			st := s.set(t, &opts)
			st.hold()
			must(t, st.tree.MarkScrub(before))
			st.power.arm(kind, at)
			err := st.tree.MarkScrub(after)
			fired = st.power.fired
			next := st.reboot()
			next.hold()
			if got := next.tree.Scrub(); got != after && (err == nil || got != before) {
				t.Errorf("%s at %d: %v, %v", faultNames[kind], at, got, err)
			}
			next.close()
			st.close()
		}
	}
}

// TestCheckOfWhatCannotBeRead: whichever call the disk fails, it is said; a file
// whose bytes it has lost is decayed.
func TestCheckOfWhatCannotBeRead(t *testing.T) {
	f := reg("d/f", "body")
	s := story{before: []item{f, dir("d"), dir(".")}}
	opts := s.options(t, "")
	decayed := 0
	for at, fired := 1, true; fired; at++ {
		st := s.set(t, &opts)
		st.hold()
		st.power.arm(failBefore, at)
		got, err := st.tree.Check(t.Context(), f.entry(), func(context.Context, int) error { return nil })
		fired = st.power.fired
		if got == Decayed {
			decayed++
		} else if fired == (err == nil) || got != "" {
			t.Errorf("call %d: %q, %v", at, got, err)
		}
		st.close()
	}
	if decayed != 1 {
		t.Errorf("decayed %d times, one call reads", decayed)
	}
}
