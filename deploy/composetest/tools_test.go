package composetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// command is one run of a tool.
type command struct {
	dir   string
	env   []string // in addition to the test's own
	stdin io.Reader
}

// run returns what the tool wrote to stdout. An error has the end of all it wrote.
// When ctx ends the tool gets SIGTERM, and 10 s later SIGKILL.
func (c command) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stdin = c.stdin
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w\n%s\n%s",
			name, strings.Join(args, " "), err, tail(stdout.String(), 2000), tail(stderr.String(), 4000))
	}
	return stdout.String(), nil
}

func run(ctx context.Context, name string, args ...string) (string, error) {
	return command{}.run(ctx, name, args...)
}

func tail(s string, n int) string {
	if len(s) > n {
		s = "…" + s[len(s)-n:]
	}
	return s
}

// onCI reports whether a missing tool is an error.
func onCI() bool { return os.Getenv("CI") == "true" }

// need returns the path of a tool. Without the tool the test ends.
func need(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, "%s is not installed", name)
	}
	return path
}

// missing ends the test, as failed on CI and as skipped elsewhere.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if onCI() {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// repository is the absolute path of the directory that holds go.mod.
func repository(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// buildCommands returns a directory with the commands. Everyone may run them.
func buildCommands(ctx context.Context, t *testing.T) string {
	t.Helper()
	bin := openTempDir(t)
	if _, err := (command{dir: repository(t)}).run(ctx, "go", "build", "-o", bin, "./cmd/..."); err != nil {
		t.Fatal(err)
	}
	return bin
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// eventually calls check until it returns nil, for at most the given time.
func eventually(t *testing.T, atMost time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(atMost)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still not so after %v: %v", atMost, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// testContext ends early enough before the test's own deadline to clean up.
func testContext(t *testing.T) context.Context {
	t.Helper()
	deadline, ok := t.Deadline()
	if !ok {
		deadline = time.Now().Add(time.Hour)
	}
	ctx, cancel := context.WithDeadlineCause(t.Context(), deadline.Add(-time.Minute),
		errors.New("the test's time is nearly up"))
	t.Cleanup(cancel)
	return ctx
}
