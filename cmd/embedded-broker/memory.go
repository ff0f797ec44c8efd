package main

import (
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// leastMemory is what a server needs for its own sake.
const leastMemory = 512 << 20

// limitMemory makes the collector work harder from a sixteenth of the machine's
// memory on: a server that large bodies go through leaves gigabytes of garbage
// otherwise. GOMEMLIMIT sets another limit.
func limitMemory() error {
	if os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return err
	}
	total := int64(info.Totalram) * int64(info.Unit) //nolint:gosec // bytes of a real machine
	debug.SetMemoryLimit(max(leastMemory, total/16))
	return nil
}
