package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sys/unix"
)

// ErrInUse reports a directory that another broker keeps its streams in.
var ErrInUse = errors.New("the store is in use by another broker")

const lockName = "broker.lock"

// A storeLock keeps other brokers out of a directory: two nats-servers on one
// store destroy it.
type storeLock struct{ file *os.File }

// lockStore makes dir if it is missing, and locks it until release or the end
// of the process.
func lockStore(dir string) (*storeLock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer file.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("store: lock of %q: %w", dir, err)
		}
		text := make([]byte, 32)
		n, _ := file.ReadAt(text, 0) // only to tell who
		return nil, fmt.Errorf("%w: %q, pid %s; stop that one, or take another directory", ErrInUse, dir, strings.TrimSpace(string(text[:n])))
	}
	pid := strconv.Itoa(os.Getpid()) + "\n"
	if err := errors.Join(file.Truncate(0), writeAll(file, pid)); err != nil {
		return nil, errors.Join(fmt.Errorf("store: lock of %q: %w", dir, err), file.Close())
	}
	return &storeLock{file}, nil
}

func writeAll(file *os.File, text string) error {
	_, err := file.WriteAt([]byte(text), 0)
	return err
}

// release gives the directory to the next broker. The file stays: whoever
// removed it could let two brokers in.
func (l *storeLock) release() error {
	err := l.file.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// limitStore sets the limit of what is stored, where the configuration has
// none: what there is, and nine tenths of what is free on the disk now.
func limitStore(opts *server.Options) error {
	if opts.JetStreamMaxStore > 0 {
		return nil
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(opts.StoreDir, &disk); err != nil {
		return fmt.Errorf("store: free space of %q: %w", opts.StoreDir, err)
	}
	used, err := usedBytes(opts.StoreDir)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	free := int64(disk.Bavail) * disk.Bsize
	opts.JetStreamMaxStore = max(used+free/10*9, 1)
	return nil
}

// usedBytes is what the files in dir take on the disk.
func usedBytes(dir string) (int64, error) {
	used := int64(0)
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() {
			used += stat.Blocks * 512
		}
		return nil
	})
	return used, err
}
