package source

import (
	"errors"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

// Settled reports whether no process has the file at p open for writing, or
// mapped so, if that can be known: it takes a file system with leases, and
// ownership of the file or CAP_LEASE. What is not a regular file is settled.
//
// The errors are those of [Tree.Read] for looking the path up and opening it.
func (t *Tree) Settled(p events.Path) (settled, known bool, err error) {
	m, err := t.Lstat(p)
	if err != nil {
		return false, false, err
	}
	if m.Entry.Kind != events.File {
		return true, true, nil
	}
	fd, err := t.openFile(p, m)
	if errors.Is(err, ErrBusy) {
		return false, true, nil
	}
	if err != nil {
		return false, false, err
	}
	defer unix.Close(fd)
	settled, known = t.probe(fd)
	return settled, known, nil
}

// Leases reports whether asking for writers works on this file system and for
// this process: it has worked for some file, or has not been refused yet. A
// single file of another owner may still be refused.
func (t *Tree) Leases() bool { return t.leaseWorked.Load() || !t.leaseRefused.Load() }

// probe asks the kernel for a read lease on fd's file, which it grants only if
// nobody has the file open for writing, and gives it back at once.
//
// A writer that opens the file in between waits for that (an O_NONBLOCK one
// gets EWOULDBLOCK), hence the raw system calls: with them the scheduler of
// goroutines cannot put anything between the two. The kernel then also sends
// this process a SIGIO. The Go runtime installs a handler for it, which drops
// a signal that no os/signal.Notify asked for; one that did sees a signal
// without meaning.
func (t *Tree) probe(fd int) (settled, known bool) {
	_, _, errno := unix.RawSyscall(unix.SYS_FCNTL, uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
	if errno == 0 {
		_, _, _ = unix.RawSyscall(unix.SYS_FCNTL, uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK) // closing fd does it too
	}
	switch errno {
	case 0, unix.EAGAIN:
		t.leaseWorked.Store(true)
		return errno == 0, true
	}
	t.leaseRefused.Store(true)
	return false, false
}
