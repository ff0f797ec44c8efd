package treecast_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestTenThousandFiles syncs a tree of real files, the Go distribution's own
// src, to three nodes, and prints how long it took and the processes' peak
// memory.
func TestTenThousandFiles(t *testing.T) {
	c := startCluster(t)
	c.must(t, c.judge(nil))
	out, err := exec.Command("go", "env", "GOROOT").Output()
	c.must(t, err)
	src := filepath.Join(strings.TrimSpace(string(out)), "src")
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
	for _, name := range []string{"broker", "publisher", "b"} {
		p, err := c.proc(name)
		c.must(t, err)
		peak, err := peakMemory(p.cmd.Process.Pid)
		c.must(t, err)
		t.Logf("%s: peak memory %s", name, peak)
	}
}

// peakMemory is the VmHWM of a process.
func peakMemory(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return strings.TrimSpace(rest), nil
		}
	}
	return "", fmt.Errorf("no VmHWM of %d", pid)
}
