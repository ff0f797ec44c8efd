package source

import (
	"errors"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

// openat2 opens p below the root, and never through a symlink or a mount.
func (t *Tree) openat2(p events.Path, flags uint64) (int, error) {
	return openBelow(t.fd, p.String(), flags)
}

func openBelow(dir int, name string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags: flags | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS |
			unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	// A lookup that races a rename or a mount may end in EAGAIN.
	const attempts = 4
	for attempt := 1; ; attempt++ {
		fd, err := retry(func() (int, error) { return unix.Openat2(dir, name, &how) })
		if err != unix.EAGAIN || attempt == attempts {
			return fd, err
		}
	}
}

// retry repeats a system call that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// classify turns the errno of looking p up into this package's terms, with the
// root checked.
func (t *Tree) classify(step string, p events.Path, err error) error {
	if lost := t.Check(); lost != nil {
		return lost
	}
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

// absent reports whether a lookup's errno proves absence: there is no such
// name, or a parent is no directory, which a symlink is not either.
func absent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}
