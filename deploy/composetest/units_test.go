package composetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestUnits has systemd read the units, with the commands in a place where they
// are, and holds them to the exposure that they have.
func TestUnits(t *testing.T) {
	analyze := need(t, "systemd-analyze")
	ctx := testContext(t)
	for name, exposure := range map[string]int{ // tenths, of systemd 252
		"treecast-publisher.service":  20,
		"treecast-subscriber.service": 27,
		"treecast-broker.service":     16,
	} {
		t.Run(name, func(t *testing.T) {
			unit := read(t, filepath.Join(repository(t), "deploy/systemd", name))
			bin := t.TempDir()
			for _, command := range []string{"publisher", "subscriber", "embedded-broker"} {
				if err := os.WriteFile(filepath.Join(bin, command), []byte("#!/bin/sh\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			path := filepath.Join(t.TempDir(), name)
			unit = strings.ReplaceAll(unit, "ExecStart=/usr/local/bin", "ExecStart="+bin)
			if err := os.WriteFile(path, []byte(unit), 0o644); err != nil {
				t.Fatal(err)
			}
			// A key that it does not know is a warning, not an error.
			cmd := exec.CommandContext(ctx, analyze, "verify", path)
			if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("systemd-analyze verify: %v\n%s", err, out)
			}
			if _, err := run(ctx, analyze, "security", "--offline=true", "--no-pager",
				fmt.Sprintf("--threshold=%d", exposure), path); err != nil {
				t.Errorf("exposed more than %.1f: %v", float64(exposure)/10, err)
			}
		})
	}
}

// TestSubscriberUnitWritesBesideRoot keeps the unit and the example together: a
// root that is itself in ReadWritePaths= would be a mount point for the
// service, and cut off from the staging beside it.
func TestSubscriberUnitWritesBesideRoot(t *testing.T) {
	dir := filepath.Join(repository(t), "deploy/systemd")
	root := regexp.MustCompile(`(?m)^root: (\S+)$`).FindStringSubmatch(read(t, filepath.Join(dir, "subscriber.yaml")))
	if root == nil {
		t.Fatal("subscriber.yaml names no root")
	}
	unit := read(t, filepath.Join(dir, "treecast-subscriber.service"))
	if want := "\nReadWritePaths=" + filepath.Dir(root[1]) + "\n"; !strings.Contains(unit, want) {
		t.Errorf("the unit lacks %q", want)
	}
	if want := "\nRequiresMountsFor=" + root[1] + "\n"; !strings.Contains(unit, want) {
		t.Errorf("the unit lacks %q", want)
	}
}

// TestUnitPrivileges runs the three commands with the users and capabilities
// of their units, and no others: files of any owner and mode arrive as they are.
// It does not hold them to the units' view of files or system calls.
func TestUnitPrivileges(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the commands")
	}
	if os.Getuid() != 0 {
		missing(t, "only root can give privileges up")
	}
	ctx := testContext(t)
	need(t, "setpriv")
	bin := buildCommands(ctx, t)
	dir := openTempDir(t) // the publisher is nobody
	source, node, store := filepath.Join(dir, "source"), filepath.Join(dir, "parent/html"), filepath.Join(dir, "store")
	for _, d := range []string{source, node, store} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(store, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	owned := func(path, content string, uid int, mode os.FileMode) {
		t.Helper()
		path = filepath.Join(source, path)
		writeFile(t, path, content)
		if err := errors.Join(os.Chown(path, uid, uid), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	owned("index.html", "public\n", 0, 0o644)
	owned("private", "secret\n", 1000, 0o600)
	owned("group/inside", "also\n", 33, 0o640)
	owned("no/one", "may read this\n", 33, 0)
	if err := errors.Join(os.Chown(filepath.Join(source, "group"), 1000, 33),
		os.Chmod(filepath.Join(source, "group"), os.ModeSetgid|0o750), os.Chmod(filepath.Join(source, "no"), 0)); err != nil {
		t.Fatal(err)
	}

	address := freeAddress(t, loopback())
	url := "nats://" + address
	ends := []func(){
		startAsUnit(ctx, t, "treecast-broker.service", filepath.Join(bin, "embedded-broker"), "run",
			"--store-dir="+store, "--listen="+address, "--monitor="+freeAddress(t, loopback())),
		startAsUnit(ctx, t, "treecast-publisher.service", filepath.Join(bin, "publisher"), "run",
			"--nats="+url, "--root="+source),
		startAsUnit(ctx, t, "treecast-subscriber.service", filepath.Join(bin, "subscriber"), "run",
			"--nats="+url, "--node=b", "--root="+node),
	}
	equal := func() error {
		var trees [2][]string
		for i, root := range []string{source, node} {
			out, err := run(ctx, "find", treeArgs(root)...)
			if err != nil {
				return err
			}
			trees[i] = list(out)
		}
		return firstDifference(trees[1], trees[0])
	}
	eventually(t, converges, equal)
	owned("private", "another secret\n", 1000, 0o600)
	owned("no/one", "still\n", 1000, 0o400)
	if err := os.RemoveAll(filepath.Join(source, "group")); err != nil {
		t.Fatal(err)
	}
	eventually(t, converges, equal)
	for i := range ends {
		ends[len(ends)-1-i]() // the broker last
	}
}

const nobody = 65534

// startAsUnit starts a command with the privileges that its unit gives. The
// function that it returns ends the command with SIGTERM, which must take no
// more than 10 s and end well.
func startAsUnit(ctx context.Context, t *testing.T, unit string, command ...string) (end func()) {
	t.Helper()
	text := read(t, filepath.Join(repository(t), "deploy/systemd", unit))
	set := func(key string) string {
		caps := "-all"
		match := regexp.MustCompile(`(?m)^` + key + `=(.*)$`).FindStringSubmatch(text)
		if match != nil {
			for _, name := range strings.Fields(match[1]) {
				caps += ",+" + strings.ToLower(strings.TrimPrefix(name, "CAP_"))
			}
		}
		return caps
	}
	args := []string{"--no-new-privs", "--bounding-set=" + set("CapabilityBoundingSet"),
		"--inh-caps=" + set("AmbientCapabilities"), "--ambient-caps=" + set("AmbientCapabilities")}
	if strings.Contains(text, "\nUser=treecast\n") {
		args = append(args, fmt.Sprintf("--reuid=%d", nobody), fmt.Sprintf("--regid=%d", nobody), "--clear-groups")
	}
	cmd := exec.CommandContext(ctx, "setpriv", append(args, command...)...)
	cmd.WaitDelay = 10 * time.Second
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	var failed error
	go func() {
		defer close(ended)
		failed = cmd.Wait()
	}()
	t.Cleanup(func() {
		cmd.Process.Kill() // does nothing to one that has ended
		<-ended
		if t.Failed() {
			t.Logf("%s: %v\n%s", command[0], failed, tail(log.String(), 4000))
		}
	})
	return func() {
		t.Helper()
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
			if failed != nil {
				t.Errorf("%s: %v", command[0], failed)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s goes on 10 s after SIGTERM", command[0])
		}
	}
}

// openTempDir is a t.TempDir that every user can reach.
func openTempDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
