package apply

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

// noise returns n random bytes, the same for the same seed.
func noise(n int, seed byte) string {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return string(b)
}

// content cuts a large body as a publisher does.
func content(it item) events.ChunkList {
	c, err := events.NewChunker(strings.NewReader(it.body), 512<<10)
	if err != nil {
		panic(err)
	}
	var list events.ChunkList
	for {
		b, err := c.Next()
		if err != nil {
			return list
		}
		list = append(list, events.Chunk{Digest: events.Sum(b), Size: int64(len(b))})
	}
}

// A market has every chunk of the bodies that were brought to it.
type market struct {
	chunks map[events.Digest]string
	sold   int64 // bytes
	broken func(events.Chunk) error
}

func (m *market) bring(it item) events.ChunkList {
	list := content(it)
	off := int64(0)
	for _, c := range list {
		m.chunks[c.Digest] = it.body[off : off+c.Size]
		off += c.Size
	}
	return list
}

func (m *market) Fetch(ctx context.Context, chunks []events.Chunk, got func(events.Chunk, []byte) error) error {
	for _, c := range chunks {
		if err := ctx.Err(); err != nil {
			return err
		}
		if m.broken != nil {
			if err := m.broken(c); err != nil {
				return err
			}
		}
		if err := got(c, []byte(m.chunks[c.Digest])); err != nil {
			return err
		}
		m.sold += c.Size
	}
	return nil
}

// place stages and commits one large file that must go well, and returns how
// many bytes were fetched for it.
func (b *bench) place(m *market, it item) int64 {
	b.Helper()
	before := m.sold
	s, err := b.tree.StageChunks(b.Context(), it.entry(), m.bring(it), m)
	must(b, err)
	results, err := b.tree.Commit(b.Context(), []*Staged{s})
	must(b, err)
	must(b, results[0].Err)
	b.check(it)
	if l := b.litter(); len(l) > 0 {
		b.Errorf("litter %q", l)
	}
	return m.sold - before
}

func large(path, body string) item { return reg(path, body).in(1) }

func newMarket() *market { return &market{chunks: map[events.Digest]string{}} }

func TestOnlyWhatIsLackingIsFetched(t *testing.T) {
	body := noise(8<<20, 1)
	for name, change := range map[string]func() string{
		"front":  func() string { return "x" + body },
		"middle": func() string { return body[:4<<20] + "x" + body[4<<20+1:] },
		"append": func() string { return body + noise(4096, 2) },
		"cut":    func() string { return body[:5<<20] },
	} {
		for _, restarted := range []bool{false, true} { // what is known is not there after a restart
			b, m := newBench(t), newMarket()
			if n := b.place(m, large("d/f", body)); n != int64(len(body)) {
				t.Errorf("%s: new: %d bytes fetched", name, n)
			}
			if restarted {
				b.reopen()
			}
			if n := b.place(m, large("d/f", change()).at(7)); n > 3<<20 {
				t.Errorf("%s, restarted %v: %d bytes fetched", name, restarted, n)
			}
			if n := b.place(m, large("e/copy", body).was("d/f")); n > 4<<20 {
				t.Errorf("%s, restarted %v: %d bytes fetched for a copy", name, restarted, n)
			}
		}
	}
}

func TestRenameIsALink(t *testing.T) {
	body := noise(2<<20, 1)
	b, m := newBench(t), newMarket()
	b.place(m, large("d/f", body).at(5))
	inode := func(p string) uint64 {
		st, err := b.tree.root.lstat(p)
		must(t, err)
		return st.ino
	}
	first := inode("d/f")
	for i, names := range [][2]string{{"d/f", "d/g"}, {"d/g", "h"}, {"h", "e/e/i"}} {
		if i == 2 {
			b.reopen()
		}
		moved := large(names[1], body).at(5).was(names[0])
		if n := b.place(m, moved); n != 0 {
			t.Errorf("%s: %d bytes fetched", names[1], n)
		}
		b.check(large(names[0], body).at(5), moved)
		b.want(b.apply(gone(names[0])), Deleted)
		if inode(names[1]) != first {
			t.Errorf("%s was copied", names[1])
		}
		st, err := b.tree.root.lstat(names[1])
		must(t, err)
		if _, ok := b.tree.known.get(st); !ok {
			t.Errorf("%s is not known after it lost its other name", names[1])
		}
	}
	// with other attributes it must not be: they are the inode's
	b.place(m, large("j", body).at(6).was("e/e/i"))
	b.check(large("e/e/i", body).at(5))
	// nor what is not what it was
	must(t, os.WriteFile(b.path("j"), []byte(strings.Repeat("y", len(body))), 0o644))
	mtime := events.Time{Sec: 6, Nsec: 5}
	must(t, utimes(unix.AT_FDCWD, b.path("j"), mtime, 0))
	if n := b.place(m, large("k", body).at(6).was("j")); n != int64(len(body)) {
		t.Errorf("%d bytes fetched", n)
	}
}

func TestHolesStayHoles(t *testing.T) {
	body := strings.Repeat("\x00", 1<<20) + noise(300<<10, 1) + strings.Repeat("\x00", 3<<20) + "end" + strings.Repeat("\x00", 1<<20)
	b := newBench(t)
	for _, it := range []item{reg("f", body).in(100 << 10), reg("f", "\x01"+body[1:]).in(100 << 10), reg("f", body+"x").in(100 << 10)} {
		b.apply(it)
		b.check(it)
		var st unix.Stat_t
		must(t, unix.Lstat(b.path("f"), &st))
		if st.Blocks*512 > 1<<20 {
			t.Errorf("%d bytes on disk", st.Blocks*512)
		}
	}
}

// abroad says of each error that it comes from elsewhere.
type abroad struct{ Fetcher }

var errAbroad = errors.New("abroad")

func (a abroad) Fetch(ctx context.Context, chunks []events.Chunk, got func(events.Chunk, []byte) error) error {
	if err := a.Fetcher.Fetch(ctx, chunks, got); err != nil {
		return fmt.Errorf("%w: %w", errAbroad, err)
	}
	return nil
}

// TestADiscardedBodyIsKept: a group that fails, or an entry that is held behind
// another one, must not cost a fetch.
func TestADiscardedBodyIsKept(t *testing.T) {
	it := large("f", noise(4<<20, 1))
	b, m := newBench(t), newMarket()
	s, err := b.tree.StageChunks(t.Context(), it.entry(), m.bring(it), m)
	must(t, err)
	s.Discard()
	s.Discard()
	if n := b.place(m, it); n != 0 {
		t.Errorf("%d bytes fetched", n)
	}
	// something small comes in its place: nobody asks for the part any more
	s, err = b.tree.StageChunks(t.Context(), large("f", noise(4<<20, 2)).entry(), m.bring(large("f", noise(4<<20, 2))), m)
	must(t, err)
	s.Discard()
	b.apply(reg("f", "small"))
	if names, err := b.tree.parts.dir.names(); err != nil || len(names) > 0 {
		t.Error(names, err)
	}
}

func TestAListThatLies(t *testing.T) {
	it := large("f", noise(3<<20, 1))
	b, m := newBench(t), newMarket()
	b.apply(reg("f", "old"))
	list := m.bring(it)
	for name, c := range map[string]struct {
		e    func(*events.Entry)
		l    events.ChunkList
		want error
	}{
		"other digest": {func(e *events.Entry) { e.Digest = events.Sum(nil) }, list, events.ErrDigest},
		"too short":    {func(*events.Entry) {}, list[1:], events.ErrChunks},
		"too long":     {func(*events.Entry) {}, append(list, list[0]), events.ErrChunks},
		"no file":      {func(e *events.Entry) { e.Kind = events.Dir }, list, events.ErrChunks},
	} {
		e := it.entry()
		c.e(e)
		if _, err := b.tree.StageChunks(t.Context(), e, c.l, m); !errors.Is(err, c.want) || !Permanent(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.check(reg("f", "old"))
	if names, err := b.tree.parts.dir.names(); err != nil || len(names) > 0 {
		t.Error(names, err)
	}
}

// TestOldBytesThatAreNotWhatTheyWere: what is known of a file is believed only
// until the whole does not hash to what is wanted.
func TestOldBytesThatAreNotWhatTheyWere(t *testing.T) {
	body := noise(4<<20, 1)
	b, m := newBench(t), newMarket()
	b.place(m, large("f", body))
	must(t, os.WriteFile(b.path("f"), []byte(noise(4<<20, 9)), 0o644))
	st, err := b.tree.root.lstat("f")
	must(t, err)
	b.tree.known.put(knownFile{st: st, path: parse("f"), digest: events.Sum([]byte(body)), list: content(large("f", body))})
	if n := b.place(m, large("f", body+"more").at(9)); n < 4<<20 {
		t.Errorf("%d bytes fetched", n)
	}
	if !strings.Contains(b.log.String(), "not what its digest says") {
		t.Error("nothing is said of it")
	}
}

// TestAnAppendIsHashedOn: the digest of what begins as an old version is made
// from there on, and the same whether what is known of that is right or not.
func TestAnAppendIsHashedOn(t *testing.T) {
	body := noise(8<<20, 1)
	fill := func(t *testing.T, meanwhile func(*bench, *build)) (right bool, begun int) {
		b, m := newBench(t), newMarket()
		b.place(m, large("f", body))
		b.place(m, large("g", body))
		body += noise(4096, 2)
		it := large("f", body).at(7).was("g")
		part, err := b.tree.parts.open(parse("f"))
		must(t, err)
		defer part.close()
		bd := &build{t: b.tree, e: it.entry(), list: m.bring(it), part: part}
		bd.spent, bd.start = make([]bool, len(bd.list)), make([]int64, len(bd.list)+1)
		for i, c := range bd.list {
			bd.start[i+1] = bd.start[i] + c.Size
		}
		origins := bd.origins()
		for _, o := range origins {
			defer o.file.close()
		}
		meanwhile(b, bd)
		right, err = bd.fill(t.Context(), origins, m)
		must(t, err)
		b.place(m, it)
		return right, bd.begun
	}
	t.Run("nothing happens", func(t *testing.T) {
		if right, begun := fill(t, func(*bench, *build) {}); !right || begun < 7 {
			t.Errorf("right %v, begun with %d chunks", right, begun)
		}
	})
	alter := func(b *bench, path string) {
		f, err := os.OpenFile(b.path(path), os.O_WRONLY, 0)
		must(b, err)
		_, err = f.WriteAt([]byte("x"), 5)
		must(b, errors.Join(err, f.Close()))
	}
	t.Run("it is altered before it is copied", func(t *testing.T) {
		if right, _ := fill(t, func(b *bench, _ *build) { alter(b, "f") }); right {
			t.Error("what was altered is right")
		}
	})
	t.Run("it cannot be copied, and another that can is altered", func(t *testing.T) {
		if right, _ := fill(t, func(b *bench, bd *build) {
			bd.part = &failingCopy{file: bd.part}
			alter(b, "g")
		}); right {
			t.Error("what was altered is right")
		}
	})
	t.Run("it cannot be copied, and what is fetched is altered", func(t *testing.T) {
		b, m := newBench(t), newMarket()
		b.place(m, large("f", body))
		it := large("f", body+"more").at(7)
		list := m.bring(it)
		bd := &build{t: b.tree, e: it.entry(), list: list, begun: len(list) - 1, spent: make([]bool, len(list))}
		m.chunks[list[0].Digest] = noise(int(list[0].Size), 8)
		if err := bd.fetch(t.Context(), m); !errors.Is(err, events.ErrDigest) {
			t.Error(err)
		}
	})
}

// failingCopy is a file whose first copy fails.
type failingCopy struct {
	file
	failed bool
}

func (c *failingCopy) copyFrom(src file, from, to, n int64) error {
	if !c.failed {
		c.failed = true
		return syscall.EIO
	}
	return c.file.copyFrom(src, from, to, n)
}

// TestAnAlteredChunkIsFound: the whole tells that something is wrong, then each
// chunk what; the rest is not fetched again.
func TestAnAlteredChunkIsFound(t *testing.T) {
	b, m := newBench(t), newMarket()
	it := large("f", noise(6<<20, 1))
	list := m.bring(it)
	bad := list[1]
	right := m.chunks[bad.Digest]
	m.chunks[bad.Digest] = right[1:] + "x"
	if _, err := b.tree.StageChunks(t.Context(), it.entry(), list, m); !errors.Is(err, events.ErrDigest) {
		t.Fatal(err)
	}
	if m.sold != int64(len(it.body)) {
		t.Errorf("%d bytes fetched, once is %d", m.sold, len(it.body))
	}
	m.sold, m.chunks[bad.Digest] = 0, right
	if n := b.place(m, it); n != int64(len(it.body)) && n != bad.Size {
		t.Errorf("%d bytes fetched for one chunk of %d", n, bad.Size)
	}
}
