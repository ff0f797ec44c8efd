package main

import (
	"context"
	"math"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"
)

// TestMemoryLimitFollowsWhatIsInUse shows that the limit is never below twice of
// what is in use, and comes back when that is little.
func TestMemoryLimitFollowsWhatIsInUse(t *testing.T) {
	was := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(was)
	const least, used = 64 << 20, 128 << 20
	ctx, cancel := context.WithCancel(t.Context())
	var g sync.WaitGroup
	g.Go(func() { (&memoryLimit{least}).hold(ctx) })
	defer g.Wait()
	defer cancel()
	until := func(ok func(limit int64) bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !ok(debug.SetMemoryLimit(-1)); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the limit is %d", debug.SetMemoryLimit(-1))
			}
			runtime.GC()
		}
	}
	until(func(limit int64) bool { return limit == least })
	func() {
		body := make([]byte, used)
		until(func(limit int64) bool { return limit >= 2*used && limit < math.MaxInt64 })
		runtime.KeepAlive(body)
	}()
	until(func(limit int64) bool { return limit == least })
}

func TestMemoryLimitIsGiven(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "1GiB")
	m, err := machineLimit()
	if m != nil || err != nil {
		t.Errorf("got %v, %v", m, err)
	}
	m.hold(t.Context()) // returns
}
