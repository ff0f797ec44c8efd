package treecast_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// wait runs `publisher wait`.
func (c *cluster) wait(args ...string) error {
	args = append([]string{"wait", "--nats", c.url, "--timeout", patience.String(), "--log-level", "error"}, args...)
	if out, err := exec.Command("publisher", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("publisher wait: %w\n%s", err, out)
	}
	return nil
}

// TestWaitIsExact: what was done before `publisher wait` is on every node when
// it returns, read once and not again; while another file never rests.
func TestWaitIsExact(t *testing.T) {
	t.Parallel()
	rounds := 1000
	if (testing.Short() || slices.Contains(buildFlags, "-race")) && os.Getenv("TREECAST_TORTURE") == "" {
		rounds = 40
	}
	c := startCluster(t, "b", "c", "d")
	c.must(t, c.wait("--node", "b,c,d"))
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				stopped <- nil
				return
			case <-time.After(20 * time.Millisecond):
			}
			if err := os.WriteFile(c.path("a", "hot"), fmt.Append(nil, i), 0o644); err != nil {
				stopped <- err
				return
			}
		}
	}()
	was := "" // the file of the round before
	for i := range rounds {
		now, gone := was, ""
		switch i % 5 {
		case 0: // a file in directories that nobody watches yet
			now, gone = fmt.Sprintf("n%d/x/y/f", i), was
		case 1: // renamed
			now, gone = fmt.Sprintf("r%d", i), was
			c.must(t, os.Rename(c.path("a", was), c.path("a", now)))
		case 2: // its directory renamed
			c.must(t, os.MkdirAll(c.path("a", fmt.Sprintf("d%d", i)), 0o755))
			c.must(t, os.Rename(c.path("a", was), c.path("a", fmt.Sprintf("d%d", i), "f")))
			c.must(t, os.Rename(c.path("a", fmt.Sprintf("d%d", i)), c.path("a", fmt.Sprintf("e%d", i))))
			now, gone = fmt.Sprintf("e%d/f", i), was
		case 3: // in chunks
			c.write(t, now, slices.Repeat(fmt.Appendf(nil, "%08d", i), 100_000))
		case 4: // behind many
			for j := range 100 {
				c.write(t, fmt.Sprintf("many/%d", j), fmt.Append(nil, i, j))
			}
		}
		if gone != "" {
			c.must(t, os.RemoveAll(c.path("a", gone)))
		}
		if i%5 != 3 {
			c.write(t, now, fmt.Append(nil, i))
		}
		want, err := os.ReadFile(c.path("a", now))
		c.must(t, err)
		c.must(t, c.wait())
		for _, node := range c.nodes {
			got, err := os.ReadFile(c.path(node, now))
			if err != nil || !slices.Equal(got, want) {
				t.Fatalf("round %d: %s/%s has %d bytes, %d wanted, %v", i, node, now, len(got), len(want), err)
			}
			if _, err := os.Lstat(c.path(node, gone)); gone != "" && !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("round %d: %s/%s is still there", i, node, gone)
			}
		}
		if dir := filepath.Dir(was); dir != "." && filepath.Dir(now) != dir {
			c.must(t, os.RemoveAll(c.path("a", dir)))
		}
		was = now
	}
	close(stop)
	c.must(t, <-stopped)
	c.must(t, c.wait())
	for _, node := range c.nodes {
		c.must(t, c.compare(node)) // once
	}
}
