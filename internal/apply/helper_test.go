package apply

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"treecast/internal/events"
)

func TestMain(m *testing.M) {
	if os.Getenv(dropEnv) != "" {
		if err := dropRights(); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

// tb is what [testing.T] and [rapid.T] have both.
type tb interface {
	rapid.TB
	Cleanup(func())
	Context() context.Context
}

// bench is a tree with what is around it: <top>/html, and the staging beside.
type bench struct {
	testing.TB
	top, root string
	opts      Options
	tree      *Tree
	log       *strings.Builder
}

func newBench(t testing.TB, change ...func(*Options)) *bench {
	t.Helper()
	b := benchAt(t, t.TempDir(), change...)
	b.reopen()
	return b
}

func benchAt(t testing.TB, top string, change ...func(*Options)) *bench {
	t.Helper()
	codec, err := events.NewCodec(2)
	must(t, err)
	t.Cleanup(codec.Close)
	b := &bench{TB: t, top: top, root: filepath.Join(top, "html"), log: &strings.Builder{}}
	if err := os.Mkdir(b.root, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	b.opts = Options{Root: b.root, Site: "web", Node: "b", Codec: codec, Specials: true,
		Log: slog.New(slog.NewTextHandler(b.log, nil))}
	for _, c := range change {
		c(&b.opts)
	}
	t.Cleanup(func() {
		if b.tree != nil {
			must(t, b.tree.Close())
		}
	})
	return b
}

// reopen is a restart of the process.
func (b *bench) reopen() {
	b.Helper()
	b.close()
	tree, err := Open(b.opts)
	must(b, err)
	b.tree = tree
}

func (b *bench) close() {
	b.Helper()
	if b.tree != nil {
		must(b, b.tree.Close())
		b.tree = nil
	}
}

func (b *bench) path(name string) string { return filepath.Join(b.root, name) }

func (b *bench) stage(items ...item) []*Staged {
	b.Helper()
	staged := make([]*Staged, len(items))
	for i, it := range items {
		s, err := it.stage(b.Context(), b.tree)
		must(b, err)
		staged[i] = s
	}
	return staged
}

// apply stages and commits one group that must go well.
func (b *bench) apply(items ...item) []Outcome {
	b.Helper()
	results, err := b.tree.Commit(b.Context(), b.stage(items...))
	must(b, err)
	outcomes := make([]Outcome, len(results))
	for i, r := range results {
		if r.Err != nil {
			b.Fatalf("%s: %v", items[i].path, r.Err)
		}
		outcomes[i] = r.Outcome
	}
	return outcomes
}

func (b *bench) want(got []Outcome, want ...Outcome) {
	b.Helper()
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			b.Fatalf("outcomes %v, want %v", got, want)
		}
	}
}

// item is an entry in few words.
type item struct {
	path  string
	kind  events.Kind
	mode  uint16
	mtime events.Time
	body  string // or a symlink's target
	uid   uint32
	gid   uint32
	chunk int    // the body comes in chunks of so many bytes, zeros as holes
	from  string // the path that had the same bytes
	keep  bool   // what it replaces goes to the trash
	made  bool   // a directory that was made on the way to something else: it has any attributes
}

// The owner of what the tests make, unless they say otherwise: themselves.
func me() (uint32, uint32) { return uint32(os.Geteuid()), uint32(os.Getegid()) }

func newItem(kind events.Kind, path string, mode uint16, body string) item {
	uid, gid := me()
	return item{path: path, kind: kind, mode: mode, body: body, uid: uid, gid: gid,
		mtime: events.Time{Sec: 1_600_000_000 + int64(len(path)), Nsec: 123_456_789}}
}

func reg(path, body string) item     { return newItem(events.File, path, 0o644, body) }
func dir(path string) item           { return newItem(events.Dir, path, 0o755, "") }
func link(path, to string) item      { return newItem(events.Symlink, path, 0o777, to) }
func fifo(path string) item          { return newItem(events.FIFO, path, 0o640, "") }
func gone(path string) item          { return item{path: path, kind: events.Tombstone} }
func (it item) at(sec int64) item    { it.mtime = events.Time{Sec: sec, Nsec: 5}; return it }
func (it item) in(chunk int) item    { it.chunk = chunk; return it }
func (it item) kept() item           { it.keep = true; return it }
func (it item) was(from string) item { it.from = from; return it }
func (it item) with(mode uint16) item {
	it.mode = mode
	return it
}

func parse(path string) events.Path {
	p, err := events.ParsePath(path)
	if err != nil {
		panic(err)
	}
	return p
}

func (it item) entry() *events.Entry {
	e := &events.Entry{Path: parse(it.path), Kind: it.kind, Mode: it.mode, Mtime: it.mtime, UID: it.uid, GID: it.gid}
	switch it.kind {
	case events.File:
		e.Size, e.Digest = int64(len(it.body)), events.Sum([]byte(it.body))
		if it.body != "" {
			e.Body = events.InlineBody
		}
		if it.chunk > 0 {
			e.Body, e.Average = events.ChunksBody, 512<<10
		}
		if it.from != "" {
			from := parse(it.from)
			e.From = &from
		}
	case events.Symlink:
		e.Target = it.body
	case events.CharDevice, events.BlockDevice:
		e.Major, e.Minor = 1, 3
	}
	return e
}

func (it item) payload(c *events.Codec) []byte {
	if it.kind != events.File || it.body == "" {
		return nil
	}
	return c.Compress([]byte(it.body))
}

// chunks cuts the body.
func (it item) chunks() events.ChunkList {
	var list events.ChunkList
	for piece := range slices.Chunk([]byte(it.body), it.chunk) {
		c := events.Chunk{Size: int64(len(piece))}
		if strings.Trim(string(piece), "\x00") != "" {
			c.Digest = events.Sum(piece)
		} else if n := len(list); n > 0 && list[n-1].Hole() {
			list[n-1].Size += c.Size
			continue
		}
		list = append(list, c)
	}
	return list
}

func (it item) stage(ctx context.Context, t *Tree) (s *Staged, err error) {
	if it.chunk > 0 {
		s, err = t.StageChunks(ctx, it.entry(), it.chunks(), &shop{body: it.body, chunk: it.chunk})
	} else {
		s, err = t.Stage(ctx, it.entry(), it.payload(t.opts.Codec))
	}
	if err == nil && it.keep {
		s.Keep()
	}
	return s, err
}

// A shop has the chunks of one body, from the last to the first.
type shop struct {
	body  string
	chunk int
	sold  int   // chunks
	limit int   // after which it has an error; 0: none
	err   error // that
}

func (s *shop) Fetch(_ context.Context, chunks []events.Chunk, got func(events.Chunk, []byte) error) error {
	has := map[events.Digest][]byte{}
	for piece := range slices.Chunk([]byte(s.body), s.chunk) {
		has[events.Sum(piece)] = piece
	}
	for _, c := range slices.Backward(chunks) {
		if s.limit > 0 && s.sold >= s.limit {
			return s.err
		}
		piece, ok := has[c.Digest]
		if !ok {
			return errors.New("not in the shop")
		}
		if err := got(c, slices.Clone(piece)); err != nil {
			return err
		}
		s.sold++
	}
	return nil
}

// check fails unless the path is exactly what the item says.
func (b *bench) check(items ...item) {
	b.Helper()
	for _, it := range items {
		if diff := differs(b.root, it); diff != "" {
			b.Errorf("%q: %s", it.path, diff)
		}
	}
}

// differs looks with other means than the package's own.
func differs(root string, it item) string {
	path := filepath.Join(root, it.path)
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	if it.kind == events.Tombstone {
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
			return "is there"
		}
		return ""
	}
	if err != nil {
		return err.Error()
	}
	got := convert(&st)
	switch {
	case got.kind != it.kind:
		return "is a " + got.kind.String()
	case it.made:
		return ""
	case got.mode != it.mode:
		return "mode " + strconv8(got.mode) + ", want " + strconv8(it.mode)
	case got.mtime != it.mtime:
		return "mtime " + got.mtime.String() + ", want " + it.mtime.String()
	case got.uid != it.uid || got.gid != it.gid:
		return "owner differs"
	}
	switch it.kind {
	case events.File:
		raw, err := os.ReadFile(path)
		if err != nil {
			return err.Error()
		}
		if string(raw) != it.body {
			return "content differs"
		}
	case events.Symlink:
		if target, err := os.Readlink(path); err != nil || target != it.body {
			return "target differs"
		}
	}
	return ""
}

func strconv8(mode uint16) string {
	return "0" + string([]byte{
		'0' + byte(mode>>9&7), '0' + byte(mode>>6&7), '0' + byte(mode>>3&7), '0' + byte(mode&7)})
}

// unable skips a test that this machine cannot run; not where CI is set, or
// where it was asked for.
func unable(t *testing.T, why ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" || os.Getenv("TREECAST_TORTURE") != "" {
		t.Fatal(why...)
	}
	t.Skip(why...)
}

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// litter returns what is in staging's tmp.
func (b *bench) litter() []string {
	b.Helper()
	names, err := b.tree.tmp.names()
	must(b, err)
	return names
}

// trashed returns the paths of what is in the trash, each below its batch.
func trashed(t testing.TB, staging string) []string {
	t.Helper()
	var paths []string
	batches, err := os.ReadDir(filepath.Join(staging, trashName))
	must(t, err)
	for _, batch := range batches {
		base := filepath.Join(staging, trashName, batch.Name())
		must(t, filepath.WalkDir(base, func(path string, d os.DirEntry, err error) error {
			if err == nil && path != base {
				rel, _ := filepath.Rel(base, path)
				paths = append(paths, rel)
			}
			return err
		}))
	}
	return paths
}

func (b *bench) staging() string { return filepath.Join(b.top, ".html.treecast") }

// dropEnv, in a child's environment, makes it give up root before the tests.
const dropEnv = "TREECAST_TEST_AS_NOBODY"

const nobody = 65534

func dropRights() error {
	if err := syscall.Setgroups([]int{nobody}); err != nil {
		return err
	}
	if err := syscall.Setgid(nobody); err != nil {
		return err
	}
	return syscall.Setuid(nobody)
}
