package rig

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Machine says when, on what and in which kind of memory or disk something is
// measured in dir.
func Machine(dir string) (string, error) {
	fs, err := FileSystem(dir)
	if err != nil {
		return "", err
	}
	var host unix.Utsname
	if err := unix.Uname(&host); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, Linux %s, %d CPUs; trees and stores on %s",
		time.Now().UTC().Format(time.DateOnly), unix.ByteSliceToString(host.Release[:]), runtime.NumCPU(), fs), nil
}

// Save writes the files of a report, by name, to dir, which is made; nothing if
// dir is "".
func Save(dir string, files map[string]func(io.Writer) error) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, write := range files {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if err := errors.Join(write(f), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
