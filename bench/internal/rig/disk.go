package rig

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// WorkDir makes a directory of our own in parent, or if that is "" in memory
// where that can be had.
func WorkDir(parent, prefix string) (string, error) {
	if parent == "" {
		if dir, err := os.MkdirTemp("/dev/shm", prefix); err == nil {
			return dir, nil
		}
	}
	return os.MkdirTemp(parent, prefix)
}

// RemoveAll removes dir for good: a process of a daemon that was just stopped
// may write a last file.
func RemoveAll(dir string) error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if err := os.RemoveAll(dir); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// EnoughSpace refuses work that would fill dir's file system.
func EnoughSpace(dir string, needBytes int64) error {
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return fmt.Errorf("free space of %s: %w", dir, err)
	}
	free := int64(disk.Bavail) * disk.Bsize    //nolint:gosec // a disk's size fits
	if uint32(disk.Type) == unix.TMPFS_MAGIC { //nolint:gosec // magic numbers have 32 bits
		available, err := memoryAvailable()
		if err != nil {
			return err
		}
		free = min(free, available)
	}
	if free < needBytes {
		return fmt.Errorf("%s has %v free, and %v may be needed: --work names another place; smaller sizes and fewer nodes need less", dir, Size(free), Size(needBytes))
	}
	return nil
}

// memoryAvailable says how much memory may be used before the machine runs out
// of it, whatever size its file systems in memory claim to have; see proc(5).
func memoryAvailable() (int64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "\nMemAvailable:")
	var kibibytes int64
	if _, err := fmt.Sscan(rest, &kibibytes); err != nil {
		return 0, fmt.Errorf("/proc/meminfo: MemAvailable: %w", err)
	}
	return kibibytes << 10, nil
}

// Flush writes out what is still to be written of dir's file system, so that no
// step pays for the one before.
func Flush(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// FileSystem names the file system that dir is on; see statfs(2).
func FileSystem(dir string) (string, error) {
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return "", err
	}
	switch magic := uint32(disk.Type); magic { //nolint:gosec // magic numbers have 32 bits
	case unix.TMPFS_MAGIC:
		return "tmpfs", nil
	case unix.EXT4_SUPER_MAGIC:
		return "ext4", nil // or ext2, ext3
	case unix.XFS_SUPER_MAGIC:
		return "xfs", nil
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs", nil
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs", nil
	default:
		return fmt.Sprintf("a file system %#x", magic), nil
	}
}
