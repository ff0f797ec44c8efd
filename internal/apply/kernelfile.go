package apply

import (
	"errors"
	"io"
	"strconv"

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

// readCold asks for what is in the page cache first, so that it knows what is
// not, and was only brought there by itself: others, who serve from the cache,
// keep what they use. No reading ahead, which would be taken for others' use. Where the
// file system does not tell, nothing is put out.
func (f *kernelFile) readCold(p []byte, off int64) (int, error) {
	if off == 0 {
		_ = unix.Fadvise(f.fd, 0, 0, unix.FADV_RANDOM)
	}
	var warm int
	err := uninterrupted(func() (err error) {
		warm, err = unix.Preadv2(f.fd, [][]byte{p}, off, unix.RWF_NOWAIT)
		return err
	})
	tells := err == nil || errors.Is(err, unix.EAGAIN)
	if err != nil {
		warm = 0
	}
	cold, err := f.ReadAt(p[warm:], off+int64(warm))
	if cold > 0 && tells {
		_ = unix.Fadvise(f.fd, off+int64(warm), int64(cold), unix.FADV_DONTNEED)
	}
	return warm + cold, err
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

func (f *kernelFile) allocate(off, n int64) error {
	err := uninterrupted(func() error { return unix.Fallocate(f.fd, 0, off, n) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil // it is a precaution, not a promise
	}
	return err
}

func (f *kernelFile) truncate(size int64) error {
	return uninterrupted(func() error { return unix.Ftruncate(f.fd, size) })
}

func (f *kernelFile) free() (int64, error) {
	var fs unix.Statfs_t
	err := uninterrupted(func() error { return unix.Fstatfs(f.fd, &fs) })
	return int64(fs.Bfree) * fs.Bsize, err //nolint:gosec // no disk has that many bytes
}

// copyFrom lets the kernel copy, which shares the blocks where the file system
// can: copy_file_range(2).
func (f *kernelFile) copyFrom(src file, from, to, n int64) error {
	source, ok := src.(*kernelFile)
	for ok && n > 0 {
		done, err := again(func() (int, error) {
			off, at := from, to
			return unix.CopyFileRange(source.fd, &off, f.fd, &at, int(n), 0)
		})
		switch {
		case err == nil && done == 0:
			return unix.EIO
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
			ok, done = false, 0
		case err != nil:
			return err
		}
		from, to, n = from+int64(done), to+int64(done), n-int64(done)
	}
	return copyThrough(f, src, from, to, n)
}

// copyThrough copies by way of a buffer of ours.
func copyThrough(dst, src file, from, to, n int64) error {
	buf := make([]byte, min(n, 1<<20))
	for n > 0 {
		buf = buf[:min(n, int64(len(buf)))]
		if _, err := src.ReadAt(buf, from); err != nil {
			if errors.Is(err, io.EOF) {
				err = unix.EIO
			}
			return err
		}
		if _, err := dst.WriteAt(buf, to); err != nil {
			return err
		}
		from, to, n = from+int64(len(buf)), to+int64(len(buf)), n-int64(len(buf))
	}
	return nil
}

// link goes by way of /proc, as open(2) says: AT_EMPTY_PATH takes CAP_DAC_READ_SEARCH.
func (f *kernelFile) link(to directory, name string) error {
	target, ok := to.(*kernelDir)
	if !ok {
		return unix.EXDEV
	}
	return uninterrupted(func() error {
		return unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(f.fd), target.fd, name, unix.AT_SYMLINK_FOLLOW)
	})
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
