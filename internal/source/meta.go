package source

import (
	"strconv"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

// A Meta is what lstat says of a path, in the wire's terms. The entry has no
// digest and no body unless [Tree.Read] or [Tree.Chunk] made it; Size is a
// file's only.
type Meta struct {
	Entry    events.Entry
	Dev, Ino uint64
}

// Same reports whether two looks saw one file in one state.
func (m Meta) Same(other Meta) bool {
	return m.Entry.Kind == other.Entry.Kind && m.Dev == other.Dev && m.Ino == other.Ino && m.Entry.Size == other.Entry.Size &&
		m.Entry.Mtime == other.Entry.Mtime && m.Entry.Ctime == other.Entry.Ctime
}

// Lstat says what stands at p now.
//
// Errors: [ErrAbsent], the proof that nothing does; a *[SkipError] for what is
// there but not for publishing; [ErrRootLost]; anything else is unknown and
// proves nothing.
func (t *Tree) Lstat(p events.Path) (Meta, error) {
	m, err := t.look(p)
	if err != nil {
		return Meta{}, err
	}
	// A tree that was moved away still answers below the held root, but it is
	// no longer what the operator asked to publish.
	if err := t.Check(); err != nil {
		return Meta{}, err
	}
	return m, nil
}

// look is Lstat with the root checked after an error only.
func (t *Tree) look(p events.Path) (Meta, error) {
	m, err := t.lstat(p)
	if err == nil && t.opts.Filter.Excluded(p, m.Entry.Kind == events.Dir) {
		return Meta{}, &SkipError{p.String(), Excluded}
	}
	return m, err
}

// lstat is look without the filter.
func (t *Tree) lstat(p events.Path) (Meta, error) {
	fd, err := t.openat2(p, unix.O_PATH)
	if err != nil {
		return Meta{}, t.classify("open", p, err)
	}
	defer unix.Close(fd)
	return t.fstat(p, fd)
}

// fstat is what stands at p, which fd is open on, with O_PATH if it may be a
// symlink. All of the answer is of one inode.
func (t *Tree) fstat(p events.Path, fd int) (Meta, error) {
	var stx unix.Statx_t
	if err := statx(fd, "", unix.AT_EMPTY_PATH, &stx); err != nil {
		return Meta{}, t.classify("stat", p, err)
	}
	m, err := t.meta(p, &stx)
	if err != nil || m.Entry.Kind != events.Symlink {
		return m, err
	}
	if m.Entry.Target, err = readlink(fd); err != nil {
		return Meta{}, t.classify("readlink", p, err)
	}
	return m, nil
}

// readlink is apart from fstat for its buffer not to be on the stack of each: a
// goroutine's would have to grow for it.
//
//go:noinline
func readlink(fd int) (string, error) {
	var buf [events.MaxTargetBytes + 1]byte
	n, err := retry(func() (int, error) { return unix.Readlinkat(fd, "", buf[:]) })
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// meta puts a statx of p in the wire's terms. The only errors are *SkipError.
func (t *Tree) meta(p events.Path, stx *unix.Statx_t) (Meta, error) {
	kind := kindOf(stx.Mode)
	if !p.IsRoot() && t.foreign(stx) {
		return Meta{}, &SkipError{p.String(), OtherDevice}
	}
	if kind == 0 || kind.Special() && !t.opts.Specials {
		return Meta{}, &SkipError{p.String(), Special}
	}
	m := Meta{
		Entry: events.Entry{
			Path:  p,
			Kind:  kind,
			Mode:  stx.Mode & 0o7777,
			UID:   stx.Uid,
			GID:   stx.Gid,
			Mtime: t.time(p, stx.Mtime),
			Ctime: t.time(p, stx.Ctime),
		},
		Dev: unix.Mkdev(stx.Dev_major, stx.Dev_minor),
		Ino: stx.Ino,
	}
	m.Entry.Owner, m.Entry.Group = t.names.owner(stx.Uid), t.names.group(stx.Gid)
	switch kind {
	case events.File:
		m.Entry.Size = int64(stx.Size)
	case events.CharDevice, events.BlockDevice:
		m.Entry.Major, m.Entry.Minor = stx.Rdev_major, stx.Rdev_minor
	}
	return m, nil
}

// foreign reports whether a statx is of something under another mount or on
// another device. On overlayfs a file's device may differ from its
// directory's, so that of a file counts only where the kernel (before 5.8)
// does not say what is the root of a mount.
func (t *Tree) foreign(stx *unix.Statx_t) bool {
	const mountRoot = unix.STATX_ATTR_MOUNT_ROOT
	if stx.Attributes&mountRoot != 0 {
		return true
	}
	other := unix.Mkdev(stx.Dev_major, stx.Dev_minor) != t.dev
	return other && (stx.Mode&unix.S_IFMT == unix.S_IFDIR || stx.Attributes_mask&mountRoot == 0)
}

func kindOf(mode uint16) events.Kind {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return events.File
	case unix.S_IFDIR:
		return events.Dir
	case unix.S_IFLNK:
		return events.Symlink
	case unix.S_IFIFO:
		return events.FIFO
	case unix.S_IFSOCK:
		return events.Socket
	case unix.S_IFCHR:
		return events.CharDevice
	case unix.S_IFBLK:
		return events.BlockDevice
	}
	return 0
}

// maxTimeSec is how far from 1970 the wire's times reach, in seconds either
// way; tmpfs takes any.
const maxTimeSec = 1 << 40

// time is a statx's time, moved into the wire's range.
func (t *Tree) time(p events.Path, at unix.StatxTimestamp) events.Time {
	if sec := min(max(at.Sec, -maxTimeSec), maxTimeSec); sec != at.Sec {
		t.clamped.Do(func() {
			t.log.Warn("time out of range, moved into it", "path", strconv.Quote(p.String()))
		})
		return events.Time{Sec: sec}
	}
	return events.Time{Sec: at.Sec, Nsec: int32(at.Nsec)}
}

func statx(fd int, name string, flags int, stx *unix.Statx_t) error {
	_, err := retry(func() (int, error) {
		return 0, unix.Statx(fd, name, flags|unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT,
			unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, stx)
	})
	return err
}
