package apply

import (
	"fmt"
	"sync/atomic"

	"treecast/internal/events"
)

// Denied counts what this process, for want of a right, could not make as the
// source has it. The rest of each such entry is right.
type Denied struct {
	Owners  uint64 // owner or group: needs CAP_CHOWN
	Modes   uint64 // setgid for a group that we are not in, or a directory that is not ours
	Times   uint64 // of a directory that is not ours, or out of the file system's range
	Devices uint64 // skipped: needs CAP_MKNOD
}

// denied counts, and lets each cause be logged once.
type denied struct{ owners, modes, times, devices, skipped atomic.Uint64 }

// Denied returns the counts since Open.
func (t *Tree) Denied() Denied {
	return Denied{t.denied.owners.Load(), t.denied.modes.Load(), t.denied.times.Load(), t.denied.devices.Load()}
}

// deny counts one more of a cause, and logs the first.
func (t *Tree) deny(count *atomic.Uint64, what string, p events.Path, err error) {
	if count.Add(1) == 1 {
		t.log.Warn("not all can be made as the source has it; more of this kind are not logged",
			"path", quote(p), "err", fmt.Errorf("%s: %w", what, err))
	}
}
