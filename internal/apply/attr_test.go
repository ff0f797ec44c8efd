package apply

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// immutable is chattr +i; the test's end takes it off again.
func immutable(t *testing.T, path string) {
	t.Helper()
	setFlags(t, path, unix.STATX_ATTR_IMMUTABLE)
	t.Cleanup(func() { mutable(t, path) })
}

func mutable(t *testing.T, path string) {
	t.Helper()
	setFlags(t, path, 0)
}

func setFlags(t *testing.T, path string, flag int) {
	t.Helper()
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return
	}
	must(t, err)
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		unable(t, "no inode flags here:", err)
	}
	const immutableFlag = 0x10 // FS_IMMUTABLE_FL; STATX_ATTR_IMMUTABLE is the same bit
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags&^immutableFlag|flag&immutableFlag); err != nil {
		unable(t, "no inode flags here:", err)
	}
}
