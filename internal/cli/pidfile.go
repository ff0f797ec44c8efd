package cli

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrRuns reports a pid file that another process has.
var ErrRuns = errors.New("another one runs")

// PIDFile has the flag of the pid file.
type PIDFile struct {
	PIDFile string `name:"pid-file" help:"Keep the process's id in this file, locked; a second process with it ends at once." type:"path" placeholder:"FILE"`
}

// Hold locks the pid file, if there is to be one, and writes our id into it,
// until release, which removes it, or the end of the process. A file that
// nobody has locked is left over, and taken. An error that another process has it
// names that.
func (p *PIDFile) Hold() (release func(), err error) {
	if p.PIDFile == "" {
		return func() {}, nil
	}
	for {
		f, err := os.OpenFile(p.PIDFile, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o644)
		if err != nil {
			return nil, fmt.Errorf("--pid-file: %w", err)
		}
		named, err := lockPID(f)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("--pid-file %s: %w", p.PIDFile, err)
		}
		if named {
			return func() {
				_ = os.Remove(p.PIDFile) // what stays is taken by the next
				f.Close()
			}, nil
		}
		f.Close()
	}
}

// lockPID locks f, and writes our id into it if it still has its name: the
// process that had it may have removed it meanwhile.
func lockPID(f *os.File) (named bool, err error) {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		var pid int
		_, _ = fmt.Fscan(f, &pid) // 0 if it was locked this moment
		return false, fmt.Errorf("%w, pid %d", ErrRuns, pid)
	} else if err != nil {
		return false, err
	}
	ours, err := f.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Stat(f.Name())
	if errors.Is(err, os.ErrNotExist) || err == nil && !os.SameFile(ours, now) {
		return false, nil
	}
	if err == nil { // at no instant it is without an id
		id := strconv.Itoa(os.Getpid()) + "\n"
		_, err = f.WriteString(id)
		err = errors.Join(err, f.Truncate(int64(len(id))))
	}
	return true, err
}
