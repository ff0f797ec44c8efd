package apply

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

// kernel is the real file system: openat2(2) and the *at calls, Linux 5.8 or
// later (openat2 is of 5.6; AT_EMPTY_PATH in utimensat and syncfs that reports
// write errors are of 5.8).
type kernel struct{}

func (kernel) open(path string) (directory, error) {
	fd, err := again(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	pathOnly := false
	if err == unix.EACCES {
		pathOnly = true
		fd, err = again(func() (int, error) {
			return unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		})
	}
	if err != nil {
		return nil, err
	}
	return &kernelDir{fd, pathOnly}, nil
}

// again calls fn until it is neither interrupted nor, as openat2(2) may be by
// an unrelated rename or mount, asked to try again.
func again(fn func() (int, error)) (int, error) {
	for {
		n, err := fn()
		if err != unix.EINTR && err != unix.EAGAIN {
			return n, err
		}
	}
}

// uninterrupted is again for what returns no number and means EAGAIN.
func uninterrupted(fn func() error) error {
	for {
		if err := fn(); err != unix.EINTR {
			return err
		}
	}
}

type kernelDir struct {
	fd       int
	pathOnly bool // O_PATH, for want of the right to read it
}

// confined opens rel below d, and nothing that is elsewhere.
func (d *kernelDir) confined(rel string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags: flags | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS |
			unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	if rel == "" {
		rel = "."
	}
	fd, err := again(func() (int, error) { return unix.Openat2(d.fd, rel, &how) })
	if err == unix.EXDEV { // a Path has no ".." with which to leave
		return fd, ErrMount
	}
	return fd, err
}

func (d *kernelDir) openDir(rel string) (directory, error) {
	fd, err := d.confined(rel, unix.O_RDONLY|unix.O_DIRECTORY)
	pathOnly := false
	if err == unix.EACCES {
		pathOnly = true
		fd, err = d.confined(rel, unix.O_PATH|unix.O_DIRECTORY)
	}
	if err != nil {
		return nil, err
	}
	return &kernelDir{fd, pathOnly}, nil
}

func (d *kernelDir) openFile(rel string) (file, error) {
	fd, err := d.confined(rel, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	f := &kernelFile{fd: fd}
	st, err := f.stat()
	if err == nil && st.kind != events.File {
		err = unix.EINVAL
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (d *kernelDir) create(name string) (file, error) {
	fd, err := again(func() (int, error) {
		return unix.Openat(d.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return nil, err
	}
	return &kernelFile{fd: fd}, nil
}

func (d *kernelDir) openRecord(name string) (file, error) {
	fd, err := again(func() (int, error) {
		return unix.Openat(d.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return nil, err
	}
	return &kernelFile{fd: fd}, nil
}

func (d *kernelDir) stat() (stat, error) { return fstat(d.fd) }

func (d *kernelDir) lstat(rel string) (stat, error) {
	if !strings.Contains(rel, "/") {
		var st unix.Stat_t
		err := uninterrupted(func() error {
			return unix.Fstatat(d.fd, rel, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT)
		})
		return convert(&st), err
	}
	fd, err := d.confined(rel, unix.O_PATH)
	if err != nil {
		return stat{}, err
	}
	defer unix.Close(fd)
	return fstat(fd)
}

func (d *kernelDir) readlink(rel string) (string, error) {
	fd, err := d.confined(rel, unix.O_PATH)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	buf := make([]byte, events.MaxTargetBytes+1)
	n, err := again(func() (int, error) { return unix.Readlinkat(fd, "", buf) })
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

func (d *kernelDir) names() ([]string, error) {
	if d.pathOnly {
		return nil, unix.EACCES
	}
	// An fd of its own has an offset of its own.
	fd, err := d.confined("", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var names []string
	buf := make([]byte, 32<<10)
	for {
		n, err := again(func() (int, error) { return unix.ReadDirent(fd, buf) })
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

func (d *kernelDir) mkdir(name string) error {
	return uninterrupted(func() error { return unix.Mkdirat(d.fd, name, 0o700) })
}

func (d *kernelDir) symlink(target, name string) error {
	return uninterrupted(func() error { return unix.Symlinkat(target, d.fd, name) })
}

func (d *kernelDir) mknod(name string, e *events.Entry) error {
	mode := uint32(0o600)
	switch e.Kind {
	case events.FIFO:
		mode |= unix.S_IFIFO
	case events.Socket:
		mode |= unix.S_IFSOCK
	case events.CharDevice:
		mode |= unix.S_IFCHR
	case events.BlockDevice:
		mode |= unix.S_IFBLK
	default:
		return unix.EINVAL
	}
	dev := 0
	if e.Kind == events.CharDevice || e.Kind == events.BlockDevice {
		dev = int(unix.Mkdev(e.Major, e.Minor))
	}
	return uninterrupted(func() error { return unix.Mknodat(d.fd, name, mode, dev) })
}

func (d *kernelDir) remove(name string, dir bool) error {
	flags := 0
	if dir {
		flags = unix.AT_REMOVEDIR
	}
	return uninterrupted(func() error { return unix.Unlinkat(d.fd, name, flags) })
}

func (d *kernelDir) rename(name string, to directory, toName string, how renaming) error {
	flags := uint(0)
	if how == exchanging {
		flags = unix.RENAME_EXCHANGE
	}
	target, ok := to.(*kernelDir)
	if !ok {
		return unix.EXDEV
	}
	return uninterrupted(func() error { return unix.Renameat2(d.fd, name, target.fd, toName, flags) })
}

func (d *kernelDir) link(name string, to directory, toName string) error {
	target, ok := to.(*kernelDir)
	if !ok {
		return unix.EXDEV
	}
	return uninterrupted(func() error { return unix.Linkat(d.fd, name, target.fd, toName, 0) })
}

func (d *kernelDir) chown(name string, uid, gid uint32) error {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return uninterrupted(func() error { return unix.Fchownat(d.fd, name, int(uid), int(gid), flags) })
}

func (d *kernelDir) chmod(name string, mode uint16) error {
	return uninterrupted(func() error {
		switch {
		case name != "": // only of what stands in our own staging
			return unix.Fchmodat(d.fd, name, uint32(mode), 0)
		case d.pathOnly: // fchmod(2) refuses O_PATH; this is its documented detour, open(2)
			return unix.Chmod("/proc/self/fd/"+strconv.Itoa(d.fd), uint32(mode))
		}
		return unix.Fchmod(d.fd, uint32(mode))
	})
}

func (d *kernelDir) chtimes(name string, mtime events.Time) error {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return utimes(d.fd, name, mtime, flags)
}

func (d *kernelDir) sync() error {
	if d.pathOnly {
		return unix.EBADF
	}
	return uninterrupted(func() error { return unix.Fsync(d.fd) })
}

func (d *kernelDir) syncFS() error {
	return uninterrupted(func() error { return unix.Syncfs(d.fd) })
}

func (d *kernelDir) close() {
	_ = unix.Close(d.fd) // nothing of ours is written by it
	d.fd = -1
}

func utimes(fd int, name string, mtime events.Time, flags int) error {
	ts := []unix.Timespec{
		{Nsec: unix.UTIME_OMIT},
		{Sec: mtime.Sec, Nsec: int64(mtime.Nsec)},
	}
	return uninterrupted(func() error { return unix.UtimesNanoAt(fd, name, ts, flags) })
}

func fstat(fd int) (stat, error) {
	var st unix.Stat_t
	err := uninterrupted(func() error { return unix.Fstat(fd, &st) })
	return convert(&st), err
}

func convert(st *unix.Stat_t) stat {
	s := stat{
		mode: uint16(st.Mode & 0o7777),
		uid:  st.Uid, gid: st.Gid,
		size:  st.Size,
		mtime: events.Time{Sec: st.Mtim.Sec, Nsec: int32(st.Mtim.Nsec)},
		ctime: events.Time{Sec: st.Ctim.Sec, Nsec: int32(st.Ctim.Nsec)},
		dev:   st.Dev, ino: st.Ino,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		s.kind = events.File
	case unix.S_IFDIR:
		s.kind = events.Dir
	case unix.S_IFLNK:
		s.kind = events.Symlink
	case unix.S_IFIFO:
		s.kind = events.FIFO
	case unix.S_IFSOCK:
		s.kind = events.Socket
	case unix.S_IFCHR:
		s.kind = events.CharDevice
	case unix.S_IFBLK:
		s.kind = events.BlockDevice
	}
	if s.kind == events.CharDevice || s.kind == events.BlockDevice {
		s.major, s.minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	}
	return s
}
