package source

import (
	"encoding/binary"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

// A Listing is one directory's content.
type Listing struct {
	Dir      Meta         // stat'ed before the names were read
	Children []Meta       // sorted by name
	Skipped  []*SkipError // there, but not for publishing; sorted by name
	Unknown  []string     // names that are there but could not be stat'ed; sorted
}

// List says what stands in dir. It is complete or an error: a failure to read
// the names voids the listing, so that a name that is not in it was not in the
// directory at some time during the call.
//
// That is less than a proof that a name is absent now. A name that was renamed
// away and back, or (on btrfs) replaced by a rename, can be missed; ask
// [Tree.Lstat] before you delete anything. Children that vanished between the
// reading of the names and their lstat are left out.
//
// Errors: those of [Tree.Lstat], a *[SkipError] with Unreadable for a
// directory that may not be listed, and [ErrUnstable] if dir is no directory
// (any more).
func (t *Tree) List(dir events.Path) (Listing, error) {
	if t.opts.Filter.Excluded(dir, true) {
		if _, err := t.Lstat(dir); err != nil {
			return Listing{}, err
		}
		return Listing{}, ErrUnstable // no directory, for that is excluded
	}
	fd, err := t.openDir(dir)
	if err != nil {
		return Listing{}, err
	}
	defer unix.Close(fd)
	var l Listing
	if l.Dir, err = t.fstat(dir, fd); err != nil {
		return Listing{}, err
	}
	var names []string
	err = t.readNames(fd, func(name []byte, _ uint8) { names = append(names, string(name)) })
	if err != nil {
		return Listing{}, t.classify("list", dir, err)
	}
	slices.Sort(names)
	l.Children = make([]Meta, 0, len(names))
	for _, name := range names {
		m, err := t.child(dir, fd, name)
		var skip *SkipError
		switch {
		case err == nil:
			l.Children = append(l.Children, m)
		case errors.As(err, &skip):
			l.Skipped = append(l.Skipped, skip)
		case errors.Is(err, ErrAbsent):
		default:
			l.Unknown = append(l.Unknown, name)
		}
	}
	if err := t.Check(); err != nil {
		return Listing{}, err
	}
	return l, nil
}

// openDir opens a directory for reading its names.
func (t *Tree) openDir(dir events.Path) (int, error) {
	fd, err := t.openat2(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err == nil {
		return fd, nil
	}
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		// Its parent is none, or it is none itself: only the first is absence.
		if _, err := t.Lstat(dir); err != nil {
			return -1, err
		}
		return -1, ErrUnstable
	}
	return -1, t.classify("open", dir, err)
}

// child is the lstat of one name in dir, which fd is open on. The root is not
// checked: an ErrAbsent of it is no proof.
func (t *Tree) child(dir events.Path, fd int, name string) (Meta, error) {
	p, err := dir.Join(name)
	if err != nil {
		reason := BadName
		if dir.IsRoot() && name == events.ReservedName {
			reason = Reserved
		}
		return Meta{}, &SkipError{join(dir, name), reason}
	}
	var stx unix.Statx_t
	if err := statx(fd, name, 0, &stx); err != nil {
		return Meta{}, childError("stat", p, err)
	}
	if t.opts.Filter.excludes(p, stx.Mode&unix.S_IFMT == unix.S_IFDIR) {
		return Meta{}, &SkipError{p.String(), Excluded}
	}
	if stx.Mode&unix.S_IFMT != unix.S_IFLNK {
		return t.meta(p, &stx)
	}
	// The link may be replaced at any time: its target must be of the same
	// inode as the rest.
	link, err := openBelow(fd, name, unix.O_PATH)
	if err != nil {
		return Meta{}, childError("open", p, err)
	}
	defer unix.Close(link)
	return t.fstat(p, link)
}

func childError(step string, p events.Path, err error) error {
	switch {
	case absent(err):
		return ErrAbsent
	case errors.Is(err, unix.EXDEV):
		return &SkipError{p.String(), OtherDevice}
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return &SkipError{p.String(), Unreadable}
	}
	return &PathError{step, p, err}
}

// join is dir and name as text, where they need not be a path.
func join(dir events.Path, name string) string {
	if dir.IsRoot() {
		return name
	}
	return dir.String() + "/" + name
}

// readNames calls f with the name and d_type of everything in the directory
// that fd is open on, from where its offset stands; name is f's only during
// the call.
func (t *Tree) readNames(fd int, f func(name []byte, kind uint8)) error {
	buf := t.dirbuf.Get().(*[]byte) //nolint:errcheck // New makes nothing else
	defer t.dirbuf.Put(buf)
	for {
		n, err := retry(func() (int, error) { return unix.Getdents(fd, *buf) })
		if err != nil || n == 0 {
			return err
		}
		if err := eachDirent((*buf)[:n], f); err != nil {
			return err
		}
	}
}

// eachDirent takes a buffer of struct linux_dirent64 apart: d_ino 8 bytes,
// d_off 8, d_reclen 2, d_type 1, then d_name up to a NUL.
func eachDirent(b []byte, f func(name []byte, kind uint8)) error {
	const head = 19
	for len(b) > 0 {
		if len(b) < head {
			return unix.EIO
		}
		size := int(binary.NativeEndian.Uint16(b[16:]))
		if size < head || size > len(b) {
			return unix.EIO
		}
		name := b[head:size]
		end := slices.Index(name, 0)
		if end < 0 {
			return unix.EIO
		}
		if name = name[:end]; string(name) != "." && string(name) != ".." {
			f(name, b[18])
		}
		b = b[size:]
	}
	return nil
}
