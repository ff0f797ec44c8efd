package treecast_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// TestRandomWork does thousands of random operations on the source of a live
// system, stops, kills and starts a node, the broker and the publisher
// meanwhile, and asks rsync at the end. TREECAST_SEED repeats a run,
// TREECAST_OPS sets its length.
func TestRandomWork(t *testing.T) {
	t.Parallel()
	seed := number(t, "TREECAST_SEED", uint64(time.Now().UnixNano()))
	ops := 1500
	if testing.Short() {
		ops = 600
	}
	ops = int(number(t, "TREECAST_OPS", uint64(ops)))
	t.Logf("TREECAST_SEED=%d TREECAST_OPS=%d", seed, ops)
	c := startCluster(t, "b", "c", "d")
	w := &worker{root: c.path("a"), rand: rand.New(rand.NewPCG(seed, 0)), t: t}
	for range 120 {
		w.create()
	}
	scrub := []string{"--scrub-interval", "100ms", "--scrub-rate", "1000000000"}
	at := func(done, part int) bool { return done == ops*part/10 }
	for i := range ops {
		w.step()
		switch {
		case at(i, 1):
			c.must(t, c.stop("c", syscall.SIGTERM))
		case at(i, 2):
			c.must(t, c.judge(nil, "b", "d"))
		case at(i, 3):
			c.must(t, c.node("c", scrub...))
		case at(i, 4):
			c.must(t, c.stop("c", syscall.SIGKILL))
			c.must(t, c.stop("publisher", syscall.SIGKILL))
		case at(i, 5):
			// Half of so small a tree may well be gone; and the bucket is cleaned at once.
			c.must(t, c.publisher("--confirm-delete", "--gc-grace", "1ms"))
			c.must(t, c.node("c", scrub...))
		case at(i, 6):
			c.must(t, c.judge(nil))
		case at(i, 7):
			c.must(t, c.stop("broker", syscall.SIGKILL))
		case at(i, 8):
			c.must(t, c.broker())
		}
	}
	c.must(t, c.judge(nil))
	// Nobody but the subscriber wrote on its node: the scrubs meanwhile found nothing.
	c.must(t, c.awaitLog("c", `"msg":"scrubbed"`))
	raw, err := os.ReadFile(c.path("c.log"))
	c.must(t, err)
	if n := bytes.Count(raw, []byte(`"drift: `)); n > 0 {
		t.Errorf("%d paths of c were taken for drifted", n)
	}
	clean := func() error {
		out, err := exec.Command("publisher", "gc", "--dry-run", "--nats", c.url).Output()
		// Beside the names of what was just deleted an orphan is overlooked, for an hour.
		left := bytes.Count(out, []byte(" bytes, stored ")) - bytes.Count(out, []byte("of an interrupted upload"))
		if err == nil && left > 0 {
			err = fmt.Errorf("%d objects are left", left)
		}
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	}
	for range 3 { // a few sweeps, which do not hurry
		if err = c.await("a clean bucket", clean); err == nil {
			break
		}
	}
	c.must(t, err)
	t.Log(w.counts)
}

// number is what an environment variable says, n if it is not set.
func number(t *testing.T, variable string, n uint64) uint64 {
	t.Helper()
	if s := os.Getenv(variable); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// A worker changes a tree at random. It keeps no model: rsync is the judge.
type worker struct {
	root   string
	rand   *rand.Rand
	t      *testing.T
	next   int
	counts map[string]int
}

// step does one operation. The tree stays around a few hundred paths, and no
// operation removes many, so that the guards have no cause.
func (w *worker) step() {
	ops := []struct {
		name   string
		weight int
		do     func()
	}{
		{"create", 12, w.create}, {"write", 14, w.write}, {"append", 12, w.appendTo}, {"truncate", 6, w.truncate},
		{"rename", 12, w.rename}, {"rename dir", 3, w.renameDir}, {"swap", 5, w.swap}, {"chmod", 8, w.chmod},
		{"touch", 5, w.touch}, {"delete", 11, w.remove}, {"symlink", 5, w.symlink}, {"mkdir", 3, w.mkdir},
		{"remove dir", 1, w.removeDir}, {"burst", 1, w.burst}, {"replace", 5, w.replace}, {"edit", 2, w.edit},
	}
	total := 0
	for _, op := range ops {
		total += op.weight
	}
	pick := w.rand.IntN(total)
	for _, op := range ops {
		if pick -= op.weight; pick < 0 {
			if w.counts == nil {
				w.counts = make(map[string]int)
			}
			w.counts[op.name]++
			op.do()
			return
		}
	}
}

// check fails the test on what is not a matter of the random choice, such as
// a rename of a directory into itself or over one with files in it.
func (w *worker) check(err error) {
	if err == nil {
		return
	}
	for _, ok := range []error{fs.ErrNotExist, fs.ErrExist, syscall.ENOTDIR, syscall.EISDIR, syscall.ENOTEMPTY, syscall.EINVAL, syscall.ENAMETOOLONG, syscall.ELOOP} {
		if errors.Is(err, ok) {
			return
		}
	}
	w.t.Fatal(err)
}

// pick returns a random path of the wanted type, "" if there is none.
func (w *worker) pick(want func(fs.FileMode) bool) string {
	var all []string
	w.check(filepath.WalkDir(w.root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != w.root && want(d.Type()) {
			all = append(all, path)
		}
		return nil
	}))
	if len(all) == 0 {
		return ""
	}
	return all[w.rand.IntN(len(all))]
}

func isDir(m fs.FileMode) bool  { return m.IsDir() }
func isFile(m fs.FileMode) bool { return m.IsRegular() }
func isAny(fs.FileMode) bool    { return true }

// name returns a path that is not used yet, in a random directory.
func (w *worker) name() string {
	dir := w.root
	if w.rand.IntN(4) > 0 {
		if d := w.pick(isDir); d != "" {
			dir = d
		}
	}
	w.next++
	return filepath.Join(dir, fmt.Sprintf("%s%d%s", []string{"f", "a b ", "ü", "x."}[w.rand.IntN(4)], w.next, []string{"", ".html", ".css", ".js"}[w.rand.IntN(4)]))
}

func (w *worker) body() []byte {
	size := w.rand.IntN(4096)
	switch n := w.rand.IntN(1000); {
	case n < 2:
		size = w.rand.IntN(64 << 20)
	case n < 10: // in chunks
		size = w.rand.IntN(6 << 20)
	case n < 50:
		size = w.rand.IntN(400_000)
	}
	b := make([]byte, size)
	if size > 400_000 {
		_, _ = rand.NewChaCha8([32]byte{byte(w.rand.IntN(256))}).Read(b) // never fails
		return b
	}
	for i := range b {
		b[i] = byte('a' + w.rand.IntN(16))
	}
	return b
}

func (w *worker) create() { w.check(os.WriteFile(w.name(), w.body(), 0o644)) }
func (w *worker) mkdir()  { w.check(os.MkdirAll(filepath.Join(w.name(), "sub"), 0o755)) }

func (w *worker) write() {
	if f := w.pick(isFile); f != "" {
		w.check(os.WriteFile(f, w.body(), 0o644))
	}
}

func (w *worker) appendTo() {
	if name := w.pick(isFile); name != "" {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
		w.check(err)
		if fi, err := f.Stat(); err == nil && fi.Size() < 64<<20 {
			for range 1 + w.rand.IntN(3) {
				body := w.body()
				_, err = f.Write(body[:min(100, len(body))])
				w.check(err)
			}
		}
		w.check(f.Close())
	}
}

func (w *worker) truncate() {
	if f := w.pick(isFile); f != "" {
		size := int64(w.rand.IntN(20000))
		if fi, err := os.Lstat(f); err == nil && fi.Size() > 1<<20 {
			size = w.rand.Int64N(fi.Size()) // of a large one something stays
		}
		w.check(os.Truncate(f, size))
	}
}

// edit changes a file where it is, or saves it anew with something inserted.
func (w *worker) edit() {
	name := w.pickLarge()
	if name == "" {
		return
	}
	body, err := os.ReadFile(name)
	w.check(err)
	if len(body) == 0 {
		return
	}
	at := w.rand.IntN(len(body))
	switch w.rand.IntN(3) {
	case 0:
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		w.check(err)
		_, err = f.WriteAt([]byte("edit"), int64(at))
		w.check(errors.Join(err, f.Close()))
		return
	case 1:
		at = 0
	}
	tmp := name + ".new"
	w.check(os.WriteFile(tmp, slices.Insert(body, at, []byte("insert")...), 0o640))
	w.check(os.Rename(tmp, name))
}

// pickLarge returns a large file, or any if none is met soon.
func (w *worker) pickLarge() (name string) {
	for range 8 {
		name = w.pick(isFile)
		if fi, err := os.Lstat(name); err == nil && fi.Size() > 512<<10 {
			break
		}
	}
	return name
}

func (w *worker) rename() {
	from := w.pick(func(m fs.FileMode) bool { return !m.IsDir() })
	to := w.name()
	if w.rand.IntN(4) == 0 {
		to = w.pick(func(m fs.FileMode) bool { return !m.IsDir() })
	}
	if from != "" {
		w.check(os.Rename(from, to))
	}
}

func (w *worker) renameDir() {
	if from := w.pick(isDir); from != "" {
		w.check(os.Rename(from, w.name()))
	}
}

// swap gives a path another kind.
func (w *worker) swap() {
	path := w.pick(isAny)
	if path == "" {
		return
	}
	if entries, err := os.ReadDir(path); err == nil && len(entries) > 5 {
		return
	}
	w.check(os.RemoveAll(path))
	switch w.rand.IntN(3) {
	case 0:
		w.check(os.WriteFile(path, w.body(), 0o600))
	case 1:
		w.check(os.MkdirAll(filepath.Join(path, "in"), 0o750))
	case 2:
		w.check(os.Symlink("../target", path))
	}
}

func (w *worker) chmod() {
	if path := w.pick(func(m fs.FileMode) bool { return m&fs.ModeSymlink == 0 }); path != "" {
		w.check(os.Chmod(path, fs.FileMode(0o600|w.rand.IntN(0o200))))
		uid, gid := w.rand.IntN(3), w.rand.IntN(3)
		if os.Geteuid() == 0 {
			w.check(os.Lchown(path, uid, gid))
		}
	}
}

func (w *worker) touch() {
	if path := w.pick(isAny); path != "" {
		at := time.Unix(w.rand.Int64N(4_000_000_000), w.rand.Int64N(1e9))
		w.check(os.Chtimes(path, at, at))
	}
}

func (w *worker) remove() {
	if path := w.pick(func(m fs.FileMode) bool { return !m.IsDir() }); path != "" {
		w.check(os.Remove(path))
	}
}

func (w *worker) removeDir() {
	path := w.pick(isDir)
	if entries, err := os.ReadDir(path); path != "" && err == nil && len(entries) <= 8 {
		w.check(os.RemoveAll(path))
	}
}

func (w *worker) symlink() {
	w.check(os.Symlink([]string{"..", "nowhere", "/etc/passwd", "f1"}[w.rand.IntN(4)], w.name()))
}

// burst makes a directory with files in one go, as unpacking does.
func (w *worker) burst() {
	dir := w.name()
	w.check(os.MkdirAll(filepath.Join(dir, "x", "y"), 0o755))
	for i := range 20 {
		w.check(os.WriteFile(filepath.Join(dir, []string{"", "x", "x/y"}[i%3], fmt.Sprint("b", i)), w.body(), 0o644))
	}
}

// replace saves a file as editors do: a new one, renamed over it.
func (w *worker) replace() {
	if path := w.pick(isFile); path != "" {
		tmp := path + ".new"
		w.check(os.WriteFile(tmp, w.body(), 0o640))
		w.check(os.Rename(tmp, path))
	}
}
