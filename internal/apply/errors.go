package apply

import (
	"errors"
	"fmt"
	"strconv"
	"syscall"

	"treecast/internal/events"
)

// What can go wrong besides the errors of package events and plain errnos.
// [Permanent] tells which of them another try can help.
var (
	// ErrLocked reports a tree that another process holds. Passing: it ends
	// with that process, whose pid is in the message.
	ErrLocked = errors.New("tree is in use")
	// ErrRoot reports a root that is not there or is not a directory: a file
	// system that is not mounted, or a mistyped option. Passing.
	ErrRoot = errors.New("no usable root directory")
	// ErrUnmounted reports a root that was a mount point and is none now, with
	// nothing of what was there: to fill it would fill the disk below. Passing:
	// it ends when the disk is mounted, or the operator removes the mark that the
	// message names.
	ErrUnmounted = errors.New("the root's file system is not mounted")
	// ErrFolds reports a file system that takes different names for one, "A"
	// and "a" say: two entries would replace each other again and again.
	// A fault of the configuration; passing.
	ErrFolds = errors.New("the root's file system does not tell names apart")
	// ErrStaging reports that no place for staging can be had from which a
	// rename into the root works. A fault of the configuration; passing.
	ErrStaging = errors.New("no usable staging directory")
	// ErrMount reports a path behind or at another file system that is
	// mounted inside the root. Passing: it ends when that is unmounted.
	ErrMount = errors.New("another file system is mounted inside the root")
	// ErrBehind reports an entry that was not tried because one of its kin,
	// earlier in the same group, went wrong. Passing.
	ErrBehind = errors.New("held behind a related path")
	// ErrSpecial is the reason for which a FIFO, socket or device is skipped:
	// specials are not enabled, or the process may not make devices. It is
	// logged; the result is [Skipped] without an error, since it is done.
	ErrSpecial = errors.New("special file is not wanted here")
	// ErrReadOnly reports a change asked of a tree from [OpenReadOnly], or of
	// a closed one. A mistake of the caller; passing.
	ErrReadOnly = errors.New("tree is not open for changes")
)

// A StepError says which step of an apply went wrong, and on which path.
//
// Steps are the crash points of the package's comment: open, stage, journal,
// sync, commit, settle, syncdir, trash, mark, compare.
type StepError struct {
	Step string
	Path events.Path
	Err  error
}

// Error names the step first, then the path, quoted.
func (e *StepError) Error() string {
	return fmt.Sprintf("%s %s: %v", e.Step, strconv.Quote(e.Path.String()), e.Err)
}

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

// step wraps err, which is returned as it is if it is nil or already knows
// its step.
func step(name string, p events.Path, err error) error {
	var known *StepError
	if err == nil || errors.As(err, &known) {
		return err
	}
	return &StepError{Step: name, Path: p, Err: err}
}

// Permanent reports whether err stays however often the same entry is tried:
// a bad path, digest, frame or version, or a name that this file system can
// not hold. Such an entry is to be parked. Anything else (ENOSPC, EACCES,
// EROFS, EBUSY, EIO, ...) holds the path and is to be tried again.
func Permanent(err error) bool {
	for _, bad := range [...]error{
		events.ErrPath, events.ErrEntry, events.ErrVersion, events.ErrFrame, events.ErrDigest, events.ErrChunks,
		syscall.ENAMETOOLONG, syscall.EILSEQ, syscall.ELOOP,
	} {
		if errors.Is(err, bad) {
			return true
		}
	}
	return false
}
