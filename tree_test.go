package treecast_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestTenThousandFiles syncs a tree of real files, the Go distribution's own
// src (of it cmd, with the race detector), to three nodes, and prints how long it took and the processes' peak
// memory.
func TestTenThousandFiles(t *testing.T) {
	c := startCluster(t)
	c.must(t, c.judge(nil))
	out, err := exec.Command("go", "env", "GOROOT").Output()
	c.must(t, err)
	src := filepath.Join(strings.TrimSpace(string(out)), "src")
	if slices.Contains(buildFlags, "-race") { // all of it would take minutes
		src = filepath.Join(src, "cmd")
	}
	if out, err := exec.Command("cp", "-a", src, c.path("a", "src")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	n := 0
	c.must(t, filepath.WalkDir(c.path("a"), func(string, os.DirEntry, error) error { n++; return nil }))
	start := time.Now()
	for _, name := range []string{"b", "c", "d"} {
		c.must(t, c.node(name))
	}
	c.must(t, c.judge(nil))
	t.Logf("%d paths on 3 nodes after %v, the judge included (%d cores)", n, time.Since(start).Round(time.Millisecond), runtime.NumCPU())
	c.logPeaks(t)
}

// logPeaks prints the peak memory of what runs.
func (c *cluster) logPeaks(t *testing.T) {
	t.Helper()
	for _, name := range append([]string{"broker", "publisher"}, c.nodes...) {
		t.Logf("%s: peak memory %d MiB", name, c.peak(t, name)>>20)
	}
}

// peak is the most memory, in bytes, that a running process had: VmHWM, see
// proc_pid_status(5).
func (c *cluster) peak(t *testing.T, name string) int64 {
	t.Helper()
	p, err := c.proc(name)
	c.must(t, err)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	c.must(t, err)
	for line := range strings.Lines(string(b)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	t.Fatalf("no VmHWM of %s", name)
	return 0
}
