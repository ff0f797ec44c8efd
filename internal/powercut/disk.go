// Package powercut has, for tests, a disk whose power can be cut: an ext4 on a
// loop device, which is shut down and mounted again as xfstests do it. What the
// kernel had not written by then is lost, as with a real power cut; but writes
// are not reordered.
//
// Floor F0: imports x/sys and the standard library. It needs root, mkfs.ext4
// and loop devices.
package powercut

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A How says what becomes of the file system's log when the power is cut.
type How uint32

// The flags of EXT4_IOC_SHUTDOWN. Whatever it is, each call after the cut gives
// an error.
const (
	Flushed   How = iota // everything is written first: only the errors remain
	Logged               // the log is written: names outlive bytes that were not synced
	Unwritten            // nothing is: what was not synced is lost
)

func (h How) String() string {
	return [...]string{"flushed", "logged", "unwritten"}[h]
}

// A Disk is mounted at Dir. One goroutine at a time.
type Disk struct{ Image, Dir string }

// New makes a disk of so many bytes in a new file image, with options of
// mkfs.ext4, and mounts it at dir, which is made if it is missing.
func New(image, dir string, size int64, options ...string) (*Disk, error) {
	d := &Disk{Image: image, Dir: dir}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	err := os.WriteFile(image, nil, 0o600)
	if err == nil {
		err = os.Truncate(image, size)
	}
	if err == nil {
		err = command("mkfs.ext4", append([]string{"-qF", image}, options...)...)
	}
	if err == nil {
		err = d.Mount()
	}
	if err != nil {
		return nil, err
	}
	if err := os.Remove(filepath.Join(dir, "lost+found")); err != nil {
		return nil, errors.Join(err, d.Detach())
	}
	return d, nil
}

// Mount mounts the disk, so that nothing becomes durable by luck: the log is
// not written for five minutes unless something is synced. Where all loop devices
// are in use it waits for one.
func (d *Disk) Mount() (err error) {
	for range 100 {
		err = command("mount", "-o", "loop,commit=300", d.Image, d.Dir)
		if err == nil || !strings.Contains(err.Error(), "loop device") {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

// Cut cuts the power. The disk stays mounted, dead.
func (d *Disk) Cut(how How) error {
	f, err := os.Open(d.Dir)
	if err != nil {
		return err
	}
	defer f.Close()
	const shutdown = 0x8004587d // EXT4_IOC_SHUTDOWN
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), shutdown, uintptr(unsafe.Pointer(&how))); errno != 0 {
		return fmt.Errorf("shutdown of %s: %w", d.Dir, errno)
	}
	return nil
}

// Restore mounts the disk again after a cut, and checks it as a boot does.
// Nobody may have anything open on it.
func (d *Disk) Restore() error {
	if err := d.Unmount(); err != nil {
		return err
	}
	if err := d.free(); err != nil {
		return err
	}
	var code *exec.ExitError
	if err := command("e2fsck", "-p", d.Image); errors.As(err, &code) && code.ExitCode() > 1 { // 1: mended
		return err
	}
	return d.Mount()
}

// free makes sure that the disk is read from its image when it is mounted next. A
// process in a mount namespace of its own, which someone else began while the
// disk was mounted, keeps the dead one alive: the disk then is a copy.
func (d *Disk) free() error {
	for range 10 {
		out, err := exec.CommandContext(context.Background(), "losetup", "-j", d.Image).Output()
		if err != nil || len(out) == 0 {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := command("cp", "--sparse=always", d.Image, d.Image+".copy"); err != nil {
		return err
	}
	return os.Rename(d.Image+".copy", d.Image)
}

// Unmount unmounts the disk, once nobody uses it.
func (d *Disk) Unmount() error {
	var err error
	for range 100 { // the kernel may be about to close what a killed process had
		if err = unix.Unmount(d.Dir, 0); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("unmount of %s: %w", d.Dir, err)
	}
	return nil
}

// Detach takes the disk away, whoever uses it.
func (d *Disk) Detach() error { return unix.Unmount(d.Dir, unix.MNT_DETACH) }

func command(name string, args ...string) error {
	if out, err := exec.CommandContext(context.Background(), name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %q: %w\n%s", name, args, err, out)
	}
	return nil
}
