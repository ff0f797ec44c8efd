package treecast_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestRenamedDirectoryIsWatched: `mv a b`, then a write inside b/sub, 300
// times; inotify's own races lose about half of them.
func TestRenamedDirectoryIsWatched(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "b")
	c.write(t, "dir/sub/keep", []byte("k"))
	from := "dir"
	for i := range 300 {
		to := fmt.Sprint("dir", i)
		c.must(t, os.Rename(c.path("a", from), c.path("a", to)))
		c.write(t, filepath.Join(to, "sub", "f"), []byte(fmt.Sprint("body ", i)))
		from = to
		if i%30 == 29 { // the hint of this write alone brings it
			c.must(t, c.awaitFile("b", filepath.Join(to, "sub", "f"), []byte(fmt.Sprint("body ", i))))
		}
	}
	c.must(t, c.judge(nil))
}

// TestNewDirectoryIsScanned: `mkdir -p x/y` with a file in it at once, 300
// times.
func TestNewDirectoryIsScanned(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "b")
	for i := range 300 {
		c.write(t, fmt.Sprintf("x%d/y/f", i), []byte(fmt.Sprint(i)))
	}
	c.must(t, c.judge(nil))
}

// TestQueueOverflow: the publisher sleeps through 20,000 creates, more than
// the kernel's queue holds; nothing is lost.
func TestQueueOverflow(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "b")
	c.write(t, "first", []byte("1"))
	c.must(t, c.judge(nil))
	c.must(t, c.signal("publisher", syscall.SIGSTOP))
	for i := range 20_000 {
		c.write(t, fmt.Sprintf("d%d/f%d", i%10, i), nil)
	}
	c.must(t, os.Remove(c.path("a", "first")))
	c.must(t, c.signal("publisher", syscall.SIGCONT))
	c.must(t, c.judge(nil))
}
