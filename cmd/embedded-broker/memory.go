package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"golang.org/x/sys/unix"
)

// leastMemory is what a server needs for its own sake.
const leastMemory = 512 << 20

// A memoryLimit makes the collector work harder from some bytes on: a server
// that large bodies go through leaves gigabytes of garbage otherwise.
//
// What is in use is no garbage: a server has a kilobyte of it for each path. A
// limit below that would have the collector run all the time. So the limit is
// twice of what is in use where that is more, which is what the collector would
// let the heap grow to without any.
type memoryLimit struct{ leastBytes int64 }

// machineLimit is a sixteenth of the machine's memory, or nil where GOMEMLIMIT
// sets another limit.
func machineLimit() (*memoryLimit, error) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return nil, nil
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil, err
	}
	total := int64(info.Totalram) * int64(info.Unit) //nolint:gosec // bytes of a real machine
	return &memoryLimit{max(leastMemory, total/16)}, nil
}

// hold keeps the limit until ctx ends. A nil one does nothing.
func (m *memoryLimit) hold(ctx context.Context) {
	if m == nil {
		return
	}
	const pause = time.Second
	tick := time.NewTicker(pause)
	defer tick.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for was := int64(0); ; {
		metrics.Read(live)
		now := max(m.leastBytes, 2*int64(live[0].Value.Uint64())) //nolint:gosec // bytes of a real machine
		if now > was+was/16 || now < was-was/16 {                 // to set it stops the world
			debug.SetMemoryLimit(now)
			was = now
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
