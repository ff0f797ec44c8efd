package apply

import (
	"fmt"
	"os"

	"treecast/internal/events"
)

type powerFile struct {
	p *power
	f *kernelFile
}

func (f *powerFile) Read(b []byte) (n int, err error) {
	err = f.p.do("read", func() (err error) { n, err = f.f.Read(b); return err })
	return n, err
}

func (f *powerFile) ReadAt(b []byte, off int64) (n int, err error) {
	err = f.p.do("pread", func() (err error) { n, err = f.f.ReadAt(b, off); return err })
	return n, err
}

func (f *powerFile) readCold(b []byte, off int64) (n int, err error) {
	err = f.p.do("pread", func() (err error) { n, err = f.f.readCold(b, off); return err })
	return n, err
}

func (f *powerFile) Write(b []byte) (n int, err error) {
	err = f.p.do("write", func() (err error) { n, err = f.f.Write(b); return err })
	return n, err
}

func (f *powerFile) WriteAt(b []byte, off int64) (n int, err error) {
	err = f.p.do("pwrite", func() (err error) { n, err = f.f.WriteAt(b, off); return err })
	return n, err
}

func (f *powerFile) stat() (st stat, err error) {
	err = f.p.do("fstat", func() (err error) { st, err = f.f.stat(); return err })
	return st, err
}

func (f *powerFile) chown(uid, gid uint32) error {
	return f.p.do("fchown", func() error { return f.f.chown(uid, gid) })
}

func (f *powerFile) chmod(mode uint16) error {
	return f.p.do("fchmod", func() error { return f.f.chmod(mode) })
}

func (f *powerFile) chtimes(mtime events.Time) error {
	return f.p.do("futimens", func() error { return f.f.chtimes(mtime) })
}

func (f *powerFile) allocate(off, n int64) error {
	return f.p.do("fallocate", func() error { return f.f.allocate(off, n) })
}

func (f *powerFile) truncate(size int64) error {
	return f.p.do("ftruncate", func() error { return f.f.truncate(size) })
}

func (f *powerFile) free() (n int64, err error) {
	err = f.p.do("fstatfs", func() (err error) { n, err = f.f.free(); return err })
	return n, err
}

func (f *powerFile) copyFrom(src file, from, to, n int64) error {
	return f.p.do("copy_file_range", func() error { return f.f.copyFrom(src.(*powerFile).f, from, to, n) })
}

func (f *powerFile) link(to directory, name string) error {
	return f.p.do("link file", func() error { return f.f.link(to.(*powerDir).d, name) })
}

func (f *powerFile) sync() error { return f.p.sync("fsync", f.f.sync, f.keep) }

func (f *powerFile) datasync() error { return f.p.sync("fdatasync", f.f.datasync, f.keep) }

func (f *powerFile) keep() error {
	st, err := f.f.stat()
	if err != nil {
		return err
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", f.f.fd))
	if err != nil {
		return err
	}
	f.p.durable[f.p.ids[st.ino]] = &node{stat: st, data: data}
	return nil
}

func (f *powerFile) lock() error { return f.p.do("flock", f.f.lock) }

func (f *powerFile) close() { f.f.close() }
