package apply

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestPowerCutOnExt4 has a real file system forget what was not synced: ext4
// on a loop device is shut down without flushing its log, as xfstests do it,
// and mounted again.
func TestPowerCutOnExt4(t *testing.T) {
	root, d := dir(".").at(9), dir("d").at(5)
	many := []item{root}
	for i := range 20 {
		many = append(many, reg(fmt.Sprintf("n%d/f", i), "x"), dir(fmt.Sprintf("n%d", i)))
	}
	for name, groups := range map[string][][]item{
		"one file":   {{reg("new", "x"), root}, {reg("d/f", "two")}},
		"many files": {many, {reg("d/f", "two")}},
		"link":       {{link("d/l", "x"), dir("d").at(6)}},
		"tombstone":  {{gone("d/f"), d}},
		"chunks":     {{reg("c", "one two three").at(6).in(4), root}, {reg("d/c", "one two three").at(6).in(4).was("c"), d}},
		"swaps":      {{reg("s", "x"), root}, {dir("s"), reg("s/f", "x"), dir("s"), root}, {reg("s", "y"), root}},
		"attributes": {{dir("d").at(7).with(0o2711), dir(".").at(8)}},
	} {
		t.Run(name, func(t *testing.T) {
			disk := newDisk(t)
			b := benchAt(t, disk.mount)
			b.reopen()
			b.apply(d, reg("d/f", "one"), d, root)
			want := map[string]item{"d": d, ".": root, "d/f": reg("d/f", "one")}
			for _, g := range groups {
				b.apply(g...)
				for _, it := range g {
					want[it.path] = it
				}
			}
			must(t, b.tree.Mark(Watermark{Site: "web", Seq: 42}))
			disk.cut(t)
			_ = b.tree.Close() // of a dead disk
			b.tree = nil
			disk.remount(t)
			check := func() {
				for _, it := range want {
					if _, replaced := want["s"]; it.path == "s/f" && replaced {
						continue
					}
					b.check(it)
				}
			}
			check() // before Open mends anything
			b.reopen()
			check()
			if w, ok := b.tree.Watermark(); !ok || w.Seq != 42 {
				t.Error(w, ok)
			}
			b.close()
		})
	}
}

// disk is an ext4 of its own, whose power can be cut.
type disk struct{ image, mount string }

// newDisk makes one with options of mkfs.
func newDisk(t *testing.T, options ...string) *disk {
	t.Helper()
	top := t.TempDir()
	d := &disk{filepath.Join(top, "image"), filepath.Join(top, "mount")}
	must(t, os.Mkdir(d.mount, 0o755))
	must(t, os.WriteFile(d.image, nil, 0o600))
	must(t, os.Truncate(d.image, 64<<20))
	// commit=300: nothing becomes durable by luck.
	for _, args := range [][]string{append([]string{"mkfs.ext4", "-qF", d.image}, options...), {"mount", "-o", "loop,commit=300", d.image, d.mount}} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%q: %v %s", args, err, out)
		}
	}
	t.Cleanup(func() { must(t, unix.Unmount(d.mount, unix.MNT_DETACH)) })
	return d
}

func (d *disk) cut(t *testing.T) {
	t.Helper()
	f, err := os.Open(d.mount)
	must(t, err)
	defer f.Close()
	const shutdown, noLogFlush = 0x8004587d, uint32(2) // EXT4_IOC_SHUTDOWN
	how := noLogFlush
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), shutdown, uintptr(unsafe.Pointer(&how))); errno != 0 {
		t.Skip(errno)
	}
}

func (d *disk) remount(t *testing.T) {
	t.Helper()
	must(t, unix.Unmount(d.mount, 0))
	out, err := exec.CommandContext(t.Context(), "mount", "-o", "loop", d.image, d.mount).CombinedOutput()
	if err != nil {
		t.Fatalf("%v %s", err, out)
	}
}
