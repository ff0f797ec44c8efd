package apply

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

func TestAnInterruptedFetchGoesOn(t *testing.T) {
	it := large("f", noise(16<<20, 1))
	for name, again := range map[string]func(*bench){
		"tried again": func(*bench) {},
		"restarted":   func(b *bench) { b.reopen() },
	} {
		b, m := newBench(t), newMarket()
		list := m.bring(it)
		m.broken = func(events.Chunk) error {
			if m.sold > 10<<20 {
				return errors.New("the broker went away")
			}
			return nil
		}
		if _, err := b.tree.StageChunks(t.Context(), it.entry(), list, m); err == nil || Permanent(err) {
			t.Fatal(err)
		}
		m.broken = nil
		again(b)
		if n := b.place(m, it); n > 7<<20 {
			t.Errorf("%s: %d bytes fetched", name, n)
		}
	}
}

func TestAnEndedContextKeepsThePart(t *testing.T) {
	it := large("f", noise(8<<20, 1))
	b, m := newBench(t), newMarket()
	list := m.bring(it)
	ctx, cancel := context.WithCancel(t.Context())
	m.broken = func(events.Chunk) error {
		if m.sold > 4<<20 {
			cancel()
		}
		return nil
	}
	if _, err := b.tree.StageChunks(ctx, it.entry(), list, m); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	m.broken = nil
	if n := b.place(m, it); n > 4<<20 {
		t.Errorf("%d bytes fetched", n)
	}
}

func TestAFullDiskIsGivenBack(t *testing.T) {
	it := large("f", noise(4<<20, 1))
	b, m := newBench(t), newMarket()
	list := m.bring(it)
	m.broken = func(events.Chunk) error {
		if m.sold > 2<<20 {
			return syscall.ENOSPC
		}
		return nil
	}
	if _, err := b.tree.StageChunks(t.Context(), it.entry(), list, m); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if names, err := b.tree.parts.dir.names(); err != nil || len(names) > 0 {
		t.Error(names, err)
	}
}

// TestRoomIsTakenFirst: what does not fit is not fetched, holes or not.
func TestRoomIsTakenFirst(t *testing.T) {
	b := benchAt(t, t.TempDir())
	mount(t, "tmpfs", b.root, "tmpfs", 0, "size=4m,mode=755")
	b.reopen()
	hole := strings.Repeat("\x00", 2<<20)
	for name, body := range map[string]string{"dense": noise(8<<20, 1), "holes": hole + noise(2<<20, 2) + hole + noise(3<<20, 3)} {
		it := reg(name, body).in(128 << 10)
		s := &shop{body: body, chunk: it.chunk}
		if _, err := b.tree.StageChunks(t.Context(), it.entry(), it.chunks(), s); !errors.Is(err, syscall.ENOSPC) || s.sold > 0 {
			t.Errorf("%s: %d chunks fetched, %v", name, s.sold, err)
		}
		var fs unix.Statfs_t
		must(t, unix.Statfs(b.root, &fs))
		if free := int64(fs.Bavail) * fs.Bsize; free < 3<<20 {
			t.Errorf("%s: %d bytes are free", name, free)
		}
	}
	it := reg("f", hole+noise(2<<20, 2)+hole).in(128 << 10)
	b.apply(it)
	b.check(it)
	b.close()
}

// TestADiskThatGetsFull: where room cannot be taken first, and others take what
// there was, it ends in the midst of the body, and what that took is given back.
func TestADiskThatGetsFull(t *testing.T) {
	b := benchAt(t, newDisk(t, "-O", "^extent,^64bit").Dir) // has no fallocate(2)
	b.reopen()
	free := func() int64 {
		var fs unix.Statfs_t
		must(t, unix.Statfs(b.root, &fs))
		return int64(fs.Bavail) * fs.Bsize
	}
	old, m := reg("f", "old"), newMarket()
	b.apply(old)
	before := free()
	it := large("f", noise(24<<20, 1))
	other := filepath.Join(b.top, "other")
	m.broken = func(events.Chunk) error {
		if m.sold < 16<<20 {
			return nil
		}
		m.broken = nil
		if err := os.WriteFile(other, make([]byte, 64<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("no other file fills the disk: %v", err)
		}
		return nil
	}
	_, err := b.tree.StageChunks(t.Context(), it.entry(), m.bring(it), abroad{m})
	if !errors.Is(err, syscall.ENOSPC) || m.sold < 16<<20 {
		t.Errorf("%d bytes fetched, %v", m.sold, err)
	}
	must(t, os.Remove(other))
	if errors.Is(err, errAbroad) {
		t.Errorf("it reads as if another disk were full: %v", err)
	}
	b.check(old)
	if now := free(); now < before {
		t.Errorf("%d bytes are free, %d were", now, before)
	}
	b.place(m, large("f", noise(24<<20, 2)))
	b.close()
}

// watchedParts is the directory of parts; how much of them is not durable is
// counted, and one sync may fail.
type watchedParts struct {
	directory
	loose, most int64
	breakAt     int // the sync that fails, 1 the first
	syncs       int
}

func (w *watchedParts) openRecord(name string) (file, error) {
	f, err := w.directory.openRecord(name)
	return &watchedPart{f, w}, err
}

type watchedPart struct {
	file
	w *watchedParts
}

func (p *watchedPart) wrote(n int64) {
	p.w.loose += n
	p.w.most = max(p.w.most, p.w.loose)
}

func (p *watchedPart) WriteAt(b []byte, off int64) (int, error) {
	p.wrote(int64(len(b)))
	return p.file.WriteAt(b, off)
}

func (p *watchedPart) copyFrom(src file, from, to, n int64) error {
	p.wrote(n)
	return p.file.copyFrom(src, from, to, n)
}

func (p *watchedPart) datasync() error {
	p.w.loose = 0
	if p.w.syncs++; p.w.syncs == p.w.breakAt {
		return syscall.EIO
	}
	return p.file.datasync()
}

// TestAPartIsDurableAsItGrows: never much of it waits for the disk, whether it is
// fetched or copied, and where that does not take it nothing of the part is
// believed any more.
func TestAPartIsDurableAsItGrows(t *testing.T) {
	b, m := newBench(t), newMarket()
	parts := b.tree.parts.dir
	it := large("f", noise(3*syncStep+syncStep/2, 1))
	w := &watchedParts{directory: parts, breakAt: 2}
	b.tree.parts.dir = w
	if _, err := b.tree.StageChunks(t.Context(), it.entry(), m.bring(it), m); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if names, err := parts.names(); err != nil || len(names) > 0 {
		t.Errorf("after a failed sync there are %q, %v", names, err)
	}
	for _, it := range []item{it, large("f", "x"+it.body).at(7)} {
		*w = watchedParts{directory: parts}
		b.place(m, it)
		if w.syncs < 3 || w.most > 2*syncStep {
			t.Errorf("%d syncs, up to %d bytes waited for one", w.syncs, w.most)
		}
	}
}

func TestPartsExpire(t *testing.T) {
	b := newBench(t)
	f, err := b.tree.parts.open(parse("f"))
	must(t, err)
	f.close()
	st, err := b.tree.parts.dir.lstat(partName(parse("f")))
	must(t, err)
	now := st.ctime
	for hours, want := range map[int64]int{23: 1, 25: 0} {
		f, err := b.tree.parts.open(parse("f"))
		must(t, err)
		f.close()
		must(t, b.tree.parts.expire(time.Unix(now.Sec+hours*3600, 0)))
		if names, err := b.tree.parts.dir.names(); err != nil || len(names) != want || len(b.tree.parts.names) != want {
			t.Errorf("after %d hours: %q, %v, %v", hours, names, b.tree.parts.names, err)
		}
	}
}
