// Package treecast_test has the stories: the three commands as they are built,
// a real broker, real disks, and rsync as the judge.
package treecast_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// buildFlags are of the commands under test; with the race detector they have
// it too.
var buildFlags = []string{"build"}

// binDir has the commands that are under test.
var binDir string

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "treecast-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binDir = dir
	build := exec.Command("go", append(buildFlags, "-o", dir, "./cmd/...")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	for _, tool := range []string{"rsync", "nginx", "nats", "nats-server", "zstd"} {
		if _, err := exec.LookPath(tool); err != nil {
			fmt.Fprintf(os.Stderr, "%s is missing: run the tests with scripts/test, which gets it\n", tool)
			return 1
		}
	}
	path := dir + string(filepath.ListSeparator) + os.Getenv("PATH")
	if err := os.Setenv("PATH", path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
