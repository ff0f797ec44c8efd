package source

import (
	"errors"
	"fmt"
	"strconv"

	"treecast/internal/events"
)

var (
	// ErrAbsent is the proof that nothing stands at a path: the kernel said
	// so, and the root was checked after it did.
	ErrAbsent = errors.New("nothing is at this path")

	// ErrBusy reports that a writer has the file open, or mapped for writing.
	// Worth another try: no hint tells when a mapping ends.
	ErrBusy = errors.New("a writer has the file open")

	// ErrUnstable reports that what stands at the path changed while it was
	// looked at. Worth another try at once.
	ErrUnstable = errors.New("changed while it was read")

	// ErrRootLost reports that the configured root no longer names the
	// directory that [Open] found there: removed, replaced, renamed away, on
	// another device, mounted over. It stays until that directory is back.
	ErrRootLost = errors.New("the root is lost")

	// ErrWatchLimit reports that this user may not watch more directories.
	// What is not watched is polled.
	ErrWatchLimit = errors.New("out of inotify watches: raise the sysctl fs.inotify.max_user_watches")

	// ErrInstanceLimit reports that this user or this process may not have
	// another inotify descriptor.
	ErrInstanceLimit = errors.New("out of inotify instances: raise the sysctl fs.inotify.max_user_instances, or the limit of open files")

	// ErrRule reports a filter rule that cannot be meant. Permanent.
	ErrRule = errors.New("unacceptable filter rule")

	// ErrStopped reports a call on a watcher that no longer runs.
	ErrStopped = errors.New("the watcher has stopped")
)

// A Reason says why something that is there is not published.
type Reason uint8

// The reasons.
const (
	Excluded    Reason = iota + 1 // by the filter
	Special                       // a FIFO, socket or device, and those are not enabled
	OtherDevice                   // on another file system than the root, or under another mount
	BadName                       // no entry can carry the path
	Unreadable                    // permission denied
	TooLarge                      // larger than a body may be
	Reserved                      // the name belongs to treecast
)

var reasonNames = [...]string{Excluded: "excluded", Special: "special file", OtherDevice: "other device",
	BadName: "path too long", Unreadable: "unreadable", TooLarge: "too large", Reserved: "reserved name"}

// String returns the reason in a few lower-case words.
func (r Reason) String() string {
	if int(r) < len(reasonNames) && r != 0 {
		return reasonNames[r]
	}
	return "unknown"
}

// A SkipError says that something stands at Path, relative to the root, which
// is not for publishing. It proves nothing about what a node should have: what
// was published before must not be deleted because of it.
//
// Path is a string since what is skipped may have a name that no
// [events.Path] can have.
type SkipError struct {
	Path   string
	Reason Reason
}

func (e *SkipError) Error() string {
	return fmt.Sprintf("%s is skipped: %s", strconv.Quote(e.Path), e.Reason)
}

// A PathError says which step failed at which path, for a reason that is none
// of this package's own errors. It proves nothing about the path.
type PathError struct {
	Step string // open, stat, readlink, list, read
	Path events.Path
	Err  error
}

func (e *PathError) Error() string {
	return fmt.Sprintf("%s %s: %v", e.Step, strconv.Quote(e.Path.String()), e.Err)
}

// Unwrap returns the error of the system call.
func (e *PathError) Unwrap() error { return e.Err }
