package apply

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"treecast/internal/events"
)

// fault is what happens to the call that breaks.
type fault int

const (
	failBefore fault = iota // not done, and reported failed
	failAfter               // done, but reported failed
	crash                   // power cut: what was not synced is lost
	crashNames              // power cut: names outlived the bytes that were not synced
)

var faultNames = [...]string{"failBefore", "failAfter", "crash", "crashNames"}

// power is a fileSystem around the real one that knows what a power cut would
// leave. A directory that is synced keeps its names and attributes, a file its
// bytes and attributes, each for itself: nothing is durable by luck, as much
// of it is on a journaling file system. Real syncs are left out.
//
// Inode numbers are reused, so that durable things have ids of their own.
type power struct {
	top  string       // what survives is a copy of this
	disk func() error // not nil: a real one is cut by this, and syncs are real

	mu      sync.Mutex
	kind    fault
	at      int // the call that breaks, from 1; 0: none
	calls   int
	fired   bool
	dead    bool
	ids     map[uint64]int
	durable map[int]*node
	rootID  int
	trace   []string
}

// node is a thing on disk.
type node struct {
	stat
	data  []byte
	to    string
	names map[string]int
}

func newPower(t rapid.TB, top string, kind fault, at int) *power {
	t.Helper()
	p := &power{top: top, kind: kind, at: at, ids: map[uint64]int{}, durable: map[int]*node{}}
	p.rootID = p.syncTree(top)
	return p
}

// do is one call.
func (p *power) do(name string, fn func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return syscall.EIO
	}
	// What only looks is the same before and after, for a power cut too.
	look := reads[strings.Fields(name)[0]]
	if look && p.kind != failBefore {
		return fn()
	}
	p.calls++
	p.trace = append(p.trace, name)
	if p.calls != p.at {
		return fn()
	}
	p.fired = true
	switch p.kind {
	case failBefore:
	case failAfter:
		_ = fn()
	default:
		p.dead = true
		if p.disk != nil {
			return errors.Join(p.disk(), syscall.EIO)
		}
	}
	return syscall.EIO
}

// sync makes something durable.
func (p *power) sync(name string, onDisk, model func() error) error {
	if p.disk != nil {
		model = onDisk
	}
	return p.do(name, model)
}

// arm makes the at-th call from now on break.
func (p *power) arm(kind fault, at int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kind, p.at, p.calls, p.fired, p.trace = kind, at, 0, false, nil
}

var reads = map[string]bool{"open": true, "openDir": true, "openFile": true, "stat": true, "lstat": true, "fstat": true,
	"readlink": true, "names": true, "mounts": true, "read": true, "pread": true, "fstatfs": true}

// born gives something new an id; its inode number may have been another's.
func (p *power) born(st stat) {
	id := len(p.durable) + 1
	p.ids[st.ino] = id
	n := &node{stat: st}
	if st.kind == events.Dir {
		n.names = map[string]int{}
	}
	p.durable[id] = n
}

// syncTree makes all at and under path durable.
func (p *power) syncTree(path string) int {
	n, names := look1(path)
	id, ok := p.ids[n.ino]
	if !ok {
		p.born(n.stat)
		id = p.ids[n.ino]
	}
	for _, name := range names {
		n.names[name] = p.syncTree(filepath.Join(path, name))
	}
	p.durable[id] = n
	return id
}

// look1 reads one thing, with the names in it if it is a directory.
func look1(path string) (*node, []string) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		panic(err)
	}
	n := &node{stat: convert(&st)}
	var names []string
	var err error
	switch n.kind {
	case events.File:
		n.data, err = os.ReadFile(path)
	case events.Symlink:
		n.to, err = os.Readlink(path)
	case events.Dir:
		n.names = map[string]int{}
		var list []os.DirEntry
		list, err = os.ReadDir(path)
		for _, e := range list {
			names = append(names, e.Name())
		}
	}
	if err != nil {
		panic(err)
	}
	return n, names
}

// survive builds at dst what is left after a power cut now.
func (p *power) survive(t rapid.TB, dst string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kind == crashNames {
		p.surviveNames(t, p.top, dst)
		return
	}
	p.build(t, p.rootID, dst)
}

func (p *power) build(t rapid.TB, id int, dst string) {
	n := p.durable[id]
	create(t, dst, n, n.data)
	for _, name := range slices.Sorted(maps.Keys(n.names)) {
		p.build(t, n.names[name], filepath.Join(dst, name))
	}
	dress(t, dst, n)
}

// surviveNames copies what is there, less the bytes that were not synced: of
// a file that was overwritten in place half got through.
func (p *power) surviveNames(t rapid.TB, src, dst string) {
	n, names := look1(src)
	data := n.data
	if n.kind == events.File {
		if synced := p.durable[p.ids[n.ino]].data; string(synced) != string(data) {
			torn := slices.Clone(synced)
			if len(torn) > 0 {
				half := len(data) / 2
				torn = append(slices.Clone(data[:half]), torn[min(half, len(torn)):]...)
			}
			data = torn
		}
	}
	create(t, dst, n, data)
	for _, name := range names {
		p.surviveNames(t, filepath.Join(src, name), filepath.Join(dst, name))
	}
	dress(t, dst, n)
}

func create(t rapid.TB, dst string, n *node, data []byte) {
	t.Helper()
	switch n.kind {
	case events.File:
		must(t, os.WriteFile(dst, data, 0o600))
	case events.Dir:
		must(t, os.Mkdir(dst, 0o700))
	case events.Symlink:
		must(t, os.Symlink(n.to, dst))
	case events.FIFO:
		must(t, unix.Mkfifo(dst, 0o600))
	default:
		t.Fatalf("%s: kind %s", dst, n.kind)
	}
}

func dress(t rapid.TB, dst string, n *node) {
	t.Helper()
	must(t, os.Lchown(dst, int(n.uid), int(n.gid)))
	if n.kind != events.Symlink {
		must(t, unix.Chmod(dst, uint32(n.mode)))
	}
	must(t, utimes(unix.AT_FDCWD, dst, n.mtime, unix.AT_SYMLINK_NOFOLLOW))
}

func (p *power) open(path string) (directory, error) {
	var d directory
	err := p.do("open", func() (err error) { d, err = kernel{}.open(path); return err })
	return p.dir(d, err)
}

func (p *power) dir(d directory, err error) (directory, error) {
	if err != nil {
		if d != nil {
			d.close()
		}
		return nil, err
	}
	return &powerDir{p, d.(*kernelDir)}, nil
}

func (p *power) file(f file, err error) (file, error) {
	if err != nil {
		if f != nil {
			f.close()
		}
		return nil, err
	}
	return &powerFile{p, f.(*kernelFile)}, nil
}

type powerDir struct {
	p *power
	d *kernelDir
}

func (d *powerDir) openDir(rel string) (directory, error) {
	var in directory
	err := d.p.do("openDir "+rel, func() (err error) { in, err = d.d.openDir(rel); return err })
	return d.p.dir(in, err)
}

func (d *powerDir) openFile(rel string) (file, error) {
	var in file
	err := d.p.do("openFile "+rel, func() (err error) { in, err = d.d.openFile(rel); return err })
	return d.p.file(in, err)
}

func (d *powerDir) create(name string) (file, error) {
	var in file
	err := d.p.do("create", func() (err error) {
		in, err = d.d.create(name)
		d.born(name, err)
		return err
	})
	return d.p.file(in, err)
}

func (d *powerDir) openRecord(name string) (file, error) {
	var in file
	err := d.p.do("openRecord "+name, func() (err error) {
		_, missing := d.d.lstat(name)
		in, err = d.d.openRecord(name)
		if missing != nil {
			d.born(name, err)
		}
		return err
	})
	return d.p.file(in, err)
}

func (d *powerDir) born(name string, err error) {
	if err != nil {
		return
	}
	st, err := d.d.lstat(name)
	if err != nil {
		panic(err)
	}
	d.p.born(st)
}

func (d *powerDir) stat() (st stat, err error) {
	err = d.p.do("stat", func() (err error) { st, err = d.d.stat(); return err })
	return st, err
}

func (d *powerDir) lstat(rel string) (st stat, err error) {
	err = d.p.do("lstat "+rel, func() (err error) { st, err = d.d.lstat(rel); return err })
	return st, err
}

func (d *powerDir) readlink(rel string) (to string, err error) {
	err = d.p.do("readlink "+rel, func() (err error) { to, err = d.d.readlink(rel); return err })
	return to, err
}

func (d *powerDir) names() (names []string, err error) {
	err = d.p.do("names", func() (err error) { names, err = d.d.names(); return err })
	return names, err
}

func (d *powerDir) mounts(name string) (yes bool, err error) {
	err = d.p.do("mounts", func() (err error) { yes, err = d.d.mounts(name); return err })
	return yes, err
}

func (d *powerDir) mkdir(name string) error {
	return d.p.do("mkdir", func() error {
		err := d.d.mkdir(name)
		d.born(name, err)
		return err
	})
}

func (d *powerDir) symlink(target, name string) error {
	return d.p.do("symlink", func() error {
		err := d.d.symlink(target, name)
		d.born(name, err)
		if err == nil {
			st, _ := d.d.lstat(name)
			d.p.durable[d.p.ids[st.ino]].to = target
		}
		return err
	})
}

func (d *powerDir) mknod(name string, e *events.Entry) error {
	return d.p.do("mknod", func() error {
		err := d.d.mknod(name, e)
		d.born(name, err)
		return err
	})
}

func (d *powerDir) remove(name string, dir bool) error {
	return d.p.do("remove "+name, func() error { return d.d.remove(name, dir) })
}

func (d *powerDir) rename(name string, to directory, toName string, how renaming) error {
	return d.p.do(fmt.Sprintf("rename %s -> %s (%d)", name, toName, how), func() error {
		return d.d.rename(name, to.(*powerDir).d, toName, how)
	})
}

func (d *powerDir) link(name string, to directory, toName string) error {
	return d.p.do("link", func() error { return d.d.link(name, to.(*powerDir).d, toName) })
}

func (d *powerDir) chown(name string, uid, gid uint32) error {
	return d.p.do("chown", func() error { return d.d.chown(name, uid, gid) })
}

func (d *powerDir) chmod(name string, mode uint16) error {
	return d.p.do("chmod", func() error { return d.d.chmod(name, mode) })
}

func (d *powerDir) chtimes(name string, mtime events.Time) error {
	return d.p.do("chtimes", func() error { return d.d.chtimes(name, mtime) })
}

// sync keeps the directory's own attributes and names, not what the names
// stand for.
func (d *powerDir) sync() error {
	return d.p.sync("sync dir", d.d.sync, func() error {
		st, err := d.d.stat()
		if err != nil {
			return err
		}
		n := &node{stat: st, names: map[string]int{}}
		names, err := d.d.names()
		if err != nil {
			return err
		}
		for _, name := range names {
			in, err := d.d.lstat(name)
			if err != nil {
				return err
			}
			n.names[name] = d.p.ids[in.ino]
		}
		d.p.durable[d.p.ids[st.ino]] = n
		return nil
	})
}

func (d *powerDir) syncFS() error {
	return d.p.sync("syncfs", d.d.syncFS, func() error { d.p.syncTree(d.p.top); return nil })
}

func (d *powerDir) close() { d.d.close() }
