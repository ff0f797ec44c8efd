package source

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A user namespace has limits of its own, so that the host's stay as they are.
func userNamespace() *syscall.SysProcAttr {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
}

func limit(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/user/"+name, []byte(value), 0); err != nil {
		unable(t, err.Error())
	}
}

func TestWatchLimitIsPolled(t *testing.T) {
	if !again(t, userNamespace()) {
		return
	}
	limit(t, "max_inotify_watches", "6") // the fence and five directories
	tree, root := open(t, Options{PollInterval: 10 * time.Millisecond})
	for _, d := range []string{"a/1", "b/1", "c/1", "d/1", "e/1"} {
		mkdir(t, root+"/"+d)
	}
	v := watch(t, tree)
	s := v.w.State()
	if s.Watches != 5 || len(s.Polled) == 0 || !s.Degraded {
		t.Fatalf("state %+v, want 5 watches and something polled", s)
	}
	for _, d := range []string{"a", "b", "c", "d", "e"} {
		name := d + "/1/f"
		write(t, root+"/"+name, "")
		v.until("hint of "+name, func(h []Hint) bool { return covered(h, pathOf(t, name)) })
	}
	limit(t, "max_inotify_watches", "1000")
	wait(t, "recovery", func() bool { s := v.w.State(); return !s.Degraded && s.Watches == 11 })
	v.settle()
	v.look(Hint{Deep: true})
	write(t, root+"/e/1/g", "")
	v.settle()
	v.equal()
}

func TestWatchLimitMetByNewDirectories(t *testing.T) {
	if !again(t, userNamespace()) {
		return
	}
	limit(t, "max_inotify_watches", "4")
	tree, root := open(t, Options{PollInterval: 10 * time.Millisecond})
	v := watch(t, tree)
	mkdir(t, root+"/a/b/c/d/e")
	wait(t, "degraded", func() bool { return v.w.State().Degraded })
	write(t, root+"/a/b/c/d/e/f", "")
	v.until("hint of the file", func(h []Hint) bool { return covered(h, pathOf(t, "a/b/c/d/e/f")) })
	must(t, os.RemoveAll(root+"/a"))
	wait(t, "recovery", func() bool { s := v.w.State(); return !s.Degraded && s.Watches == 1 })
	v.settle()
	v.look(Hint{Deep: true})
	v.equal()
}

func TestNoWatchAtAllIsPolled(t *testing.T) {
	if !again(t, userNamespace()) {
		return
	}
	limit(t, "max_inotify_watches", "0")
	tree, root := open(t, Options{PollInterval: 10 * time.Millisecond})
	mkdir(t, root+"/d")
	v := watch(t, tree)
	if s := v.w.State(); !s.Degraded || s.Watches != 0 || len(s.Polled) != 1 || s.Polled[0] != "." {
		t.Errorf("state %+v, want the root polled", s)
	}
	for range 3 {
		v.until("deep hint of the root", func(h []Hint) bool { return covered(h, pathOf(t, "d/x")) })
	}
	limit(t, "max_inotify_watches", "1000")
	wait(t, "recovery", func() bool { s := v.w.State(); return !s.Degraded && s.Watches == 2 })
	write(t, root+"/d/f", "")
	v.settle()
	v.look(Hint{Deep: true})
	v.equal()
}

func TestInstanceLimitIsAClearError(t *testing.T) {
	if !again(t, userNamespace()) {
		return
	}
	limit(t, "max_inotify_instances", "0")
	tree, _ := open(t, Options{})
	err := NewWatcher(tree, func([]Hint) {}).Run(context.Background(), make(chan struct{}))
	if !errors.Is(err, ErrInstanceLimit) {
		t.Errorf("Run: %v", err)
	}
}

// Another file system in the tree is not entered, nothing in it is hinted, and
// it proves no absence.
func TestMountOverSubdirectory(t *testing.T) {
	if !again(t, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}) {
		return
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		unable(t, err.Error())
	}
	tree, root := open(t, Options{PollInterval: 10 * time.Millisecond})
	mkdir(t, root+"/d/sub")
	mkdir(t, root+"/bind")
	write(t, root+"/d/sub/f", "below")
	write(t, root+"/file", "below")
	v := watch(t, tree)
	must(t, unix.Mount("none", root+"/d", "tmpfs", 0, ""))
	mounted := []string{root + "/d"}
	t.Cleanup(func() {
		for _, name := range mounted {
			must(t, unix.Unmount(name, unix.MNT_DETACH))
		}
	})
	mkdir(t, root+"/d/sub")
	write(t, root+"/d/sub/f", "above")
	must(t, unix.Mount(filepath.Dir(root), root+"/bind", "", unix.MS_BIND, "")) // the same device
	mounted = append(mounted, root+"/bind")
	must(t, unix.Mount("/proc/version", root+"/file", "", unix.MS_BIND, ""))
	mounted = append(mounted, root+"/file")
	for _, s := range []string{"d", "d/sub", "d/sub/f", "d/none", "bind", "bind/root", "file"} {
		p := pathOf(t, s)
		_, err := tree.Lstat(p)
		skipped(t, err, OtherDevice)
		_, _, err = tree.Read(p, nil)
		skipped(t, err, OtherDevice)
	}
	_, err := tree.List(pathOf(t, "d"))
	skipped(t, err, OtherDevice)
	l, err := tree.List(pathOf(t, "."))
	must(t, err)
	if len(l.Children) != 0 || len(l.Skipped) != 3 || len(l.Unknown) != 0 {
		t.Errorf("listing %+v, want three skipped", l)
	}
	v.w.Rewatch()
	v.until("hint of the mount", func(h []Hint) bool { return hinted(h, pathOf(t, "d")) })
	wait(t, "the watches", func() bool { return v.w.State().Watches == 1 })
	for _, name := range mounted {
		must(t, unix.Unmount(name, 0))
	}
	mounted = nil
	v.w.Rewatch()
	v.until("hint of what was below", func(h []Hint) bool { return covered(h, pathOf(t, "d/sub/f")) })
	v.settle()
	v.look(Hint{Deep: true})
	v.equal()
	if s := v.w.State(); s.Watches != 4 {
		t.Errorf("%d watches, want 4", s.Watches)
	}
	must(t, unix.Mount("none", root, "tmpfs", 0, "")) // over the root
	mounted = []string{root}
	rootLost(t, tree)
	v.until("hint of the root", func(h []Hint) bool { return hinted(h, pathOf(t, ".")) })
}

// Mode 000 is no obstacle to root, hence another user.
func TestUnreadable(t *testing.T) {
	if !again(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}) {
		return
	}
	tree, root := open(t, Options{})
	mkdir(t, root+"/closed/sub")
	mkdir(t, root+"/listable/sub")
	write(t, root+"/listable/f", "")
	write(t, root+"/f", "content")
	must(t, os.Chmod(root+"/closed", 0))
	must(t, os.Chmod(root+"/listable", 0o444))
	must(t, os.Chmod(root+"/f", 0))
	t.Cleanup(func() {
		_ = os.Chmod(root+"/closed", 0o755)
		_ = os.Chmod(root+"/listable", 0o755)
	})
	v := watch(t, tree)
	if s := v.w.State(); s.Degraded || s.Watches != 2 {
		t.Errorf("state %+v", s)
	}
	if m, err := tree.Lstat(pathOf(t, "closed")); err != nil || m.Entry.Mode != 0 {
		t.Errorf("the closed directory itself: %v %v", m, err)
	}
	for _, s := range []string{"closed/sub", "closed/none", "listable/sub", "listable/none"} {
		_, err := tree.Lstat(pathOf(t, s))
		skipped(t, err, Unreadable)
	}
	_, err := tree.List(pathOf(t, "closed"))
	skipped(t, err, Unreadable)
	_, _, err = tree.Read(pathOf(t, "f"), nil)
	skipped(t, err, Unreadable)
	_, _, err = tree.Settled(pathOf(t, "f"))
	skipped(t, err, Unreadable)
	l, err := tree.List(pathOf(t, "listable"))
	must(t, err)
	if len(l.Children) != 0 || len(l.Skipped) != 2 || l.Skipped[0].Reason != Unreadable {
		t.Errorf("listing without search permission: %+v", l)
	}
	must(t, os.Chmod(root+"/closed", 0o755))
	must(t, os.Chmod(root+"/listable", 0o755))
	must(t, os.Chmod(root+"/f", 0o644))
	v.settle()
	v.equal()
	if s := v.w.State(); s.Watches != 5 {
		t.Errorf("%d watches after the modes were put right, want 5", s.Watches)
	}
	write(t, root+"/closed/sub/g", "")
	v.settle()
	v.equal()
	// Another's file: leases are for owners.
	must(t, os.Remove(root+"/f"))
	if settled, known, err := tree.Settled(pathOf(t, "closed/sub/g")); !settled || !known || err != nil {
		t.Errorf("own file: %v %v %v", settled, known, err)
	}
}

func TestLeaseOfAnothersFileIsUnknown(t *testing.T) {
	if !again(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}) {
		return
	}
	tree, err := Open(Options{Root: "/etc"})
	must(t, err)
	defer tree.Close()
	if !tree.Leases() {
		t.Error("refused before any try")
	}
	if _, known, err := tree.Settled(pathOf(t, "passwd")); known || err != nil {
		t.Errorf("known %v, %v", known, err)
	}
	if tree.Leases() {
		t.Error("still thought to work")
	}
	if _, body, err := tree.Read(pathOf(t, "passwd"), nil); err != nil || len(body) == 0 {
		t.Errorf("read without a lease: %d bytes, %v", len(body), err)
	}
}
