package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"

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
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for was := int64(0); ; {
		collected := nextCollection()
		metrics.Read(live)
		now := max(m.leastBytes, 2*int64(live[0].Value.Uint64())) //nolint:gosec // bytes of a real machine
		if now > was+was/16 || now < was-was/16 {                 // to set it stops the world
			debug.SetMemoryLimit(now)
			was = now
		}
		select {
		case <-ctx.Done():
			return
		case <-collected:
		}
	}
}

// nextCollection returns a channel that is closed when the collector has run.
func nextCollection() <-chan struct{} {
	collected := make(chan struct{})
	garbage := &struct{ *int }{} // with a pointer: it shares its place with nothing that lives on
	runtime.AddCleanup(garbage, func(c chan struct{}) { close(c) }, collected)
	return collected
}
