package rig

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Written returns the bytes that the daemons that run, and what they have
// started and runs still, have caused to be written to a disk: write_bytes of
// proc_pid_io(5), whole pages. What is written in memory, to tmpfs, is not counted, nor what
// goes to sockets; overwriting what is not on the disk yet is counted once.
func (d *Daemons) Written() (sum int64) {
	for _, p := range d.running() {
		for _, pid := range family(p.Pid) {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
			if err != nil {
				continue // it has just ended
			}
			if n, err := parseWritten(string(text)); err == nil {
				sum += n
			}
		}
	}
	return sum
}

func parseWritten(io string) (int64, error) {
	for line := range strings.Lines(io) {
		if value, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			return strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		}
	}
	return 0, errors.New("no write_bytes")
}

// Stamps are what tells that a file was written, of all that is in a directory.
type Stamps struct {
	dir string
	all map[string]stamp
}

// A stamp changes with every write, whoever sets the times.
type stamp struct {
	inode uint64
	ctime syscall.Timespec
	size  int64
}

// Stamp looks at all that is in dir, but for logs of daemons, which end in
// .log right in it, and dir itself.
func Stamp(dir string) (*Stamps, error) {
	s := &Stamps{dir, map[string]stamp{}}
	return s, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || path == dir || filepath.Dir(path) == dir && filepath.Ext(path) == ".log" {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			s.all[path] = stamp{stat.Ino, stat.Ctim, stat.Size}
		}
		return nil
	})
}

// Changed looks again, and returns what was written, made or removed since, in
// order. Written twice is told once, and what was made and removed is told by
// its directory.
func (s *Stamps) Changed() ([]string, error) {
	now, err := Stamp(s.dir)
	if err != nil {
		return nil, err
	}
	changed := map[string]bool{}
	for path, was := range s.all {
		if now.all[path] != was {
			changed[path] = true
		}
	}
	for path := range now.all {
		if _, ok := s.all[path]; !ok {
			changed[path] = true
		}
	}
	return slices.Sorted(maps.Keys(changed)), nil
}
