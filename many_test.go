package treecast_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestTortureManyPaths is a whole run with a million files, or TREECAST_OPS of
// them: the first sync, one change, and each process started anew with nothing to
// do. It prints how long each step takes, and each process's peak memory: that of
// the first sync, and that of a publisher which finds everything published, and
// may have 300 bytes more for each path than with a small tree. For this one the
// collector keeps the heap at what is in use.
func TestTortureManyPaths(t *testing.T) {
	const most, besides = 300, 16 << 20 // bytes: for each path, and on their way
	torture(t, 12<<30)
	c := startCluster(t, "b")
	c.write(t, "small", []byte("small\n"))
	c.must(t, c.judge(nil))
	base := c.peaks(t)
	idle := c.idlePublisher(t)
	c.must(t, c.stop("publisher", syscall.SIGTERM))
	c.must(t, c.publisher())
	paths := c.manyPaths(t, int(number(t, "TREECAST_OPS", 1_000_000)))

	c.step(t, "first sync", func() {
		c.must(t, os.Rename(c.path("many"), c.path("a", "many")))
		c.settle(t)
	})
	for name, peak := range c.peaks(t) {
		t.Logf("%s: peak memory %d MiB, %d bytes more for each of %d paths", name, peak>>20, (peak-base[name])/paths, paths)
	}
	c.step(t, "one change", func() {
		c.write(t, "many/0/0", []byte("changed\n"))
		c.must(t, c.awaitFile("b", "many/0/0", []byte("changed\n")))
	})

	before := c.lastSeq(t)
	c.step(t, "restart of the broker", func() {
		c.must(t, c.stop("broker", syscall.SIGTERM))
		c.must(t, c.broker())
		c.settle(t)
	})
	c.step(t, "restart of the publisher", func() {
		more := c.idlePublisher(t) - idle
		t.Logf("publisher at rest: %d bytes more for each path", more/paths)
		if more > most*paths+besides {
			t.Errorf("publisher: %d bytes more for %d paths, %d a path are allowed", more, paths, most)
		}
	})
	c.step(t, "restart of the node", func() {
		c.must(t, c.stop("b", syscall.SIGTERM))
		c.must(t, c.node("b"))
		c.settle(t)
	})
	if n := c.lastSeq(t) - before; n > 10 { // leases
		t.Errorf("%d messages though nothing changed", n)
	}
	c.must(t, c.judge(nil))
	c.logPeaks(t)
}

// manyPaths makes files in <dir>/many, a thousand in each directory, and returns
// how many paths that is.
func (c *cluster) manyPaths(t *testing.T, files int) int64 {
	t.Helper()
	paths := 1
	for i := range files {
		dir := c.path("many", fmt.Sprint(i/1000))
		if i%1000 == 0 {
			c.must(t, os.MkdirAll(dir, 0o755))
			paths++
		}
		c.must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i%1000)), fmt.Appendf(nil, "file %d\n", i), 0o644))
		paths++
	}
	return int64(paths)
}

func (c *cluster) step(t *testing.T, what string, do func()) {
	t.Helper()
	start := time.Now()
	do()
	t.Logf("%s: %v", what, time.Since(start).Round(time.Millisecond))
}

// idlePublisher starts the publisher anew, and returns its peak memory when it
// has found that nothing is to be done.
func (c *cluster) idlePublisher(t *testing.T) int64 {
	t.Helper()
	c.must(t, c.stop("publisher", syscall.SIGTERM))
	c.must(t, c.start("publisher", "env", "GOGC=10", "publisher", "--nats", c.url, "--root", c.path("a")))
	c.settle(t)
	return c.peak(t, "publisher")
}

// settle returns when the whole source was looked at, and all of it is on every
// node; a publisher that has just been started does not answer yet.
func (c *cluster) settle(t *testing.T) {
	t.Helper()
	c.must(t, c.await("publisher wait", func() error { return c.wait("--scan") }))
}

func (c *cluster) peaks(t *testing.T) map[string]int64 {
	t.Helper()
	peaks := make(map[string]int64)
	for _, name := range append([]string{"broker", "publisher"}, c.nodes...) {
		peaks[name] = c.peak(t, name)
	}
	return peaks
}

func (c *cluster) lastSeq(t *testing.T) uint64 {
	t.Helper()
	out, err := exec.Command("publisher", "status", "--nats", c.url, "--json").Output()
	c.must(t, err)
	var status struct {
		Stream struct {
			LastSeq uint64 `json:"last_seq"`
		} `json:"stream"`
	}
	c.must(t, json.Unmarshal(out, &status))
	return status.Stream.LastSeq
}
