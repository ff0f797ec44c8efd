package treecast_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A load changes a tree without end. Each of its files says in its first line
// what follows, so that whoever reads one can tell whether it is whole.
type load struct {
	root string
	rand *rand.Rand

	mu   sync.Mutex // held by each operation: who has it has a quiet source
	next int
	ops  map[string]int
}

// Beyond so many files more are deleted than made; and of the large ones there
// are never more.
const (
	loadFiles = 300
	loadLarge = 5
)

// run works until stop is closed, in bursts and at a walk.
func (l *load) run(stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		n := 1
		if l.rand.IntN(20) == 0 {
			n = 40
		}
		l.mu.Lock()
		for range n {
			if err := l.step(); err != nil {
				l.mu.Unlock()
				return fmt.Errorf("the load: %w", err)
			}
		}
		l.mu.Unlock()
		time.Sleep(time.Duration(l.rand.IntN(20)) * time.Millisecond)
	}
}

// step does one operation.
func (l *load) step() error {
	ops := []struct {
		name   string
		weight int
		do     func() error
	}{
		{"create", 14, l.create}, {"rewrite", 12, l.rewrite}, {"replace", 16, l.replace}, {"rename", 12, l.rename},
		{"exchange", 4, l.exchange}, {"swap kind", 5, l.swapKind}, {"delete", 8, l.remove}, {"symlink", 3, l.symlink},
		{"fill dir", 1, l.fillDir}, {"move dir", 3, l.moveDir}, {"remove dir", 1, l.removeDir}, {"chmod dir", 2, l.chmodDir},
		{"large", 2, l.large},
	}
	total := 0
	for _, op := range ops {
		total += op.weight
	}
	pick := l.rand.IntN(total)
	for _, op := range ops {
		if pick -= op.weight; pick < 0 {
			l.ops[op.name]++
			return chance(op.do())
		}
	}
	return nil
}

// chance drops the errors that are a matter of the random choice.
func chance(err error) error {
	for _, ok := range []error{fs.ErrNotExist, fs.ErrExist, syscall.ENOTDIR, syscall.EISDIR, syscall.ENOTEMPTY, syscall.EINVAL, syscall.ENAMETOOLONG} {
		if errors.Is(err, ok) {
			return nil
		}
	}
	return err
}

// pick returns a random path that is wanted, "" if there is none.
func (l *load) pick(want func(fs.DirEntry) bool) string {
	found, n := "", 0
	_ = filepath.WalkDir(l.root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != l.root && want(d) {
			if n++; l.rand.IntN(n) == 0 {
				found = path
			}
		}
		return nil
	})
	return found
}

func aFile(d fs.DirEntry) bool { return d.Type().IsRegular() }
func aDir(d fs.DirEntry) bool  { return d.IsDir() }
func aLarge(d fs.DirEntry) bool {
	fi, err := d.Info()
	return err == nil && d.Type().IsRegular() && fi.Size() > 1<<20
}

func (l *load) count(want func(fs.DirEntry) bool) (n int) {
	l.pick(func(d fs.DirEntry) bool {
		if want(d) {
			n++
		}
		return false
	})
	return n
}

func (l *load) name() string {
	l.next++
	return filepath.Join(cmp.Or(l.pick(aDir), l.root), fmt.Sprintf("n%d%s", l.next, []string{"", ".html", ".css"}[l.rand.IntN(3)]))
}

// bytes are random, and of some length.
func (l *load) bytes(most int) []byte {
	b := make([]byte, l.rand.IntN(most))
	var key [32]byte
	for i := range key {
		key[i] = byte(l.rand.IntN(256))
	}
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}

func (l *load) small() []byte {
	if l.rand.IntN(20) == 0 {
		return l.bytes(400_000)
	}
	return l.bytes(4096)
}

// signed returns a file of these bytes; as is what its mode and mtime are, "-"
// if that is open.
func signed(rest []byte, as string) []byte {
	sum := sha256.Sum256(rest)
	return append(fmt.Appendf(nil, "%x %s\n", sum, as), rest...)
}

// whole returns an error if a file is not one that signed made.
func whole(file []byte, fi fs.FileInfo) error {
	head, _, _ := bytes.Cut(file[:min(len(file), 200)], []byte("\n"))
	digest, as, ok := bytes.Cut(head, []byte(" "))
	rest := file[min(len(file), len(head)+1):]
	sum := sha256.Sum256(rest)
	if !ok || string(digest) != hex.EncodeToString(sum[:]) {
		return fmt.Errorf("torn: %d bytes that hash to %x, the first line is %q", len(file), sum, head)
	}
	if got := attributes(fi.Mode(), fi.ModTime()); string(as) != "-" && string(as) != got {
		return fmt.Errorf("the bytes came without their attributes: %s, not %s", got, as)
	}
	return nil
}

func attributes(mode fs.FileMode, mtime time.Time) string {
	return fmt.Sprintf("%o,%d", mode.Perm(), mtime.UnixNano())
}

// save puts a new file in a path's place, attributes and all, in one step.
func (l *load) save(path string, rest []byte) error {
	mode, mtime := fs.FileMode(0o600|l.rand.IntN(0o100)), time.Unix(1_600_000_000+l.rand.Int64N(1e8), l.rand.Int64N(1e9))
	tmp := filepath.Join(l.root, "..", "..", "new")
	err := os.WriteFile(tmp, signed(rest, attributes(mode, mtime)), mode)
	if err == nil {
		err = os.Chmod(tmp, mode)
	}
	if err == nil {
		err = os.Chtimes(tmp, mtime, mtime)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	return err
}

func (l *load) create() error {
	if l.count(aFile) > loadFiles {
		return l.removeDir()
	}
	return os.WriteFile(l.name(), signed(l.small(), "-"), 0o644)
}

func (l *load) rewrite() error { return os.WriteFile(l.pick(aFile), signed(l.small(), "-"), 0o644) }

func (l *load) replace() error { return l.save(l.pick(aFile), l.small()) }

func (l *load) rename() error {
	to := l.name()
	if l.rand.IntN(3) == 0 {
		to = l.pick(aFile)
	}
	return os.Rename(l.pick(aFile), to)
}

func (l *load) exchange() error {
	return unix.Renameat2(unix.AT_FDCWD, l.pick(aFile), unix.AT_FDCWD, l.pick(aFile), unix.RENAME_EXCHANGE)
}

// swapKind gives a path another kind.
func (l *load) swapKind() error {
	path := l.pick(func(d fs.DirEntry) bool { return !d.IsDir() || l.rand.IntN(3) == 0 })
	if entries, err := os.ReadDir(path); path == "" || err == nil && len(entries) > 20 {
		return nil
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	switch l.rand.IntN(3) {
	case 0:
		return os.WriteFile(path, signed(l.small(), "-"), 0o644)
	case 1:
		return os.Symlink("../elsewhere", path)
	}
	err := os.MkdirAll(filepath.Join(path, "in"), 0o750)
	if err == nil {
		err = os.WriteFile(filepath.Join(path, "in", "f"), signed(l.small(), "-"), 0o644)
	}
	return err
}

func (l *load) remove() error {
	return os.Remove(l.pick(func(d fs.DirEntry) bool { return !d.IsDir() }))
}

func (l *load) symlink() error { return os.Symlink("n1", l.name()) }

func (l *load) fillDir() error {
	dir := l.name()
	err := os.MkdirAll(filepath.Join(dir, "x", "y"), 0o755)
	for i := 0; err == nil && i < 12; i++ {
		err = os.WriteFile(filepath.Join(dir, []string{"", "x", "x/y"}[i%3], fmt.Sprint("f", i)), signed(l.small(), "-"), 0o644)
	}
	return err
}

func (l *load) moveDir() error { return os.Rename(l.pick(aDir), l.name()) }

func (l *load) removeDir() error {
	dir := l.pick(aDir)
	if entries, err := os.ReadDir(dir); dir == "" || err == nil && len(entries) > 20 {
		return l.remove()
	}
	return os.RemoveAll(dir)
}

func (l *load) chmodDir() error { return os.Chmod(l.pick(aDir), fs.FileMode(0o700|l.rand.IntN(0o100))) }

// large makes a large file, or changes one: something is put in, or put behind,
// or written over.
func (l *load) large() error {
	if l.count(aLarge) < loadLarge {
		return l.save(l.name(), append(make([]byte, 1<<20), l.bytes(4<<20)...))
	}
	path := l.pick(aLarge)
	file, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	_, rest, _ := bytes.Cut(file, []byte("\n"))
	at, more := l.rand.IntN(len(rest)), l.bytes(100_000)
	switch l.rand.IntN(4) {
	case 0: // deleted: the next one is new
		return os.Remove(path)
	case 1:
		rest = append(rest, more...)
	case 2:
		rest = append(append(bytes.Clone(rest[:at]), more...), rest[at:]...)
	case 3:
		copy(rest[at:], more)
	}
	if len(rest) > 8<<20 {
		rest = rest[:2<<20]
	}
	if l.rand.IntN(2) == 0 {
		return os.WriteFile(path, signed(rest, "-"), 0o644)
	}
	return l.save(path, rest)
}
