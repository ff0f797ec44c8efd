package source

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

// A clock is what the times of a file system are worth.
type clock struct {
	fine bool          // every change after a stat moves ctime
	slop time.Duration // how far its present time may be from ours, with its granularity
}

// Racy reports whether another change, in the same tick of the file system's
// clock as m.Ctime, could leave everything in m as it is. A file that is racy
// is worth another read later, at [Tree.RacyFor] after the first.
//
// Never on ext4, xfs, btrfs and tmpfs from Linux 6.13 on: their stamps are
// multigrain, a change after a stat always shows. Elsewhere, if ctime is not
// older than the file system's present time by 2 s, the coarsest granularity
// known; that time is this host's, and where the file system may have another
// (network, FUSE) a minute is allowed for the difference.
func (t *Tree) Racy(m Meta) bool {
	if t.clock.fine && m.Entry.Ctime.Nsec != 0 { // an ext4 of 128-byte inodes has whole seconds
		return false
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
		return true
	}
	limit := time.Unix(now.Unix()).Add(-t.clock.slop)
	return m.Entry.Ctime.Compare(events.Time{Sec: limit.Unix(), Nsec: int32(limit.Nanosecond())}) >= 0
}

// RacyFor is how long a path that was just changed stays racy.
func (t *Tree) RacyFor() time.Duration { return t.clock.slop }

const (
	localSlop  = 2 * time.Second
	remoteSlop = time.Minute
)

// clockOf is the clock of the file system mounted with this id.
func clockOf(mount uint64) clock {
	switch fs := mountedAs(mount); fs {
	case "ext4", "xfs", "btrfs", "tmpfs":
		return clock{fine: multigrain(), slop: localSlop}
	case "ext2", "ext3", "f2fs", "overlay", "zfs", "bcachefs", "jfs", "reiserfs":
		return clock{slop: localSlop}
	}
	return clock{slop: remoteSlop}
}

// multigrain reports whether the kernel has multigrain timestamps.
func multigrain() bool {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return false
	}
	return kernelAtLeast(unix.ByteSliceToString(u.Release[:]), 6, 13)
}

func kernelAtLeast(release string, major, minor int) bool {
	a, rest, _ := strings.Cut(release, ".")
	b := rest
	if end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		b = rest[:end]
	}
	have, err := strconv.Atoi(a)
	if err != nil {
		return false
	}
	part, err := strconv.Atoi(b)
	return have > major || err == nil && have == major && part >= minor
}

// mountedAs is the type of the file system of a mount, "" if it is not known.
func mountedAs(mount uint64) string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	id := strconv.FormatUint(mount, 10)
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20) // an overlay's options can be long
	for lines.Scan() {
		// id parent major:minor root point options [optional...] - type source options
		head, tail, ok := strings.Cut(lines.Text(), " - ")
		if first, _, _ := strings.Cut(head, " "); ok && first == id {
			fs, _, _ := strings.Cut(tail, " ")
			return fs
		}
	}
	return ""
}
