package apply

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

type kernelFile struct{ fd int }

func (f *kernelFile) Read(p []byte) (int, error) {
	n, err := again(func() (int, error) { return unix.Read(f.fd, p) })
	return ended(n, len(p), err)
}

func (f *kernelFile) ReadAt(p []byte, off int64) (int, error) {
	total := 0
	for total < len(p) {
		n, err := again(func() (int, error) { return unix.Pread(f.fd, p[total:], off+int64(total)) })
		if n, err = ended(n, len(p), err); err != nil {
			return total, err
		}
		total += n
	}
	return total, nil
}

// ended is read(2)'s result as io.Reader wants it.
func ended(n, wanted int, err error) (int, error) {
	switch {
	case err != nil:
		return 0, err
	case n == 0 && wanted > 0:
		return 0, io.EOF
	}
	return n, nil
}

func (f *kernelFile) Write(p []byte) (int, error) {
	return written(p, func(p []byte, _ int64) (int, error) { return unix.Write(f.fd, p) })
}

func (f *kernelFile) WriteAt(p []byte, off int64) (int, error) {
	return written(p, func(p []byte, done int64) (int, error) { return unix.Pwrite(f.fd, p, off+done) })
}

func written(p []byte, write func(p []byte, done int64) (int, error)) (int, error) {
	total := 0
	for total < len(p) {
		n, err := again(func() (int, error) { return write(p[total:], int64(total)) })
		if err != nil {
			return total, err
		}
		if n == 0 {
			return total, io.ErrShortWrite
		}
		total += n
	}
	return total, nil
}

func (f *kernelFile) stat() (stat, error) { return fstat(f.fd) }

func (f *kernelFile) chown(uid, gid uint32) error {
	return uninterrupted(func() error { return unix.Fchown(f.fd, int(uid), int(gid)) })
}

func (f *kernelFile) chmod(mode uint16) error {
	return uninterrupted(func() error { return unix.Fchmod(f.fd, uint32(mode)) })
}

func (f *kernelFile) chtimes(mtime events.Time) error {
	return utimes(f.fd, "", mtime, unix.AT_EMPTY_PATH)
}

func (f *kernelFile) allocate(size int64) error {
	err := uninterrupted(func() error { return unix.Fallocate(f.fd, 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil // it is a precaution, not a promise
	}
	return err
}

func (f *kernelFile) sync() error {
	return uninterrupted(func() error { return unix.Fsync(f.fd) })
}

func (f *kernelFile) datasync() error {
	return uninterrupted(func() error { return unix.Fdatasync(f.fd) })
}

func (f *kernelFile) lock() error {
	return uninterrupted(func() error { return unix.Flock(f.fd, unix.LOCK_EX|unix.LOCK_NB) })
}

func (f *kernelFile) close() {
	_ = unix.Close(f.fd) // what must be durable was synced before
	f.fd = -1
}
