package main

import (
	"io"
	"os"
	"path/filepath"
)

const (
	fileName = "large.bin"
	newName  = "renamed.bin"
	appended = 4 << 10 // bytes
)

// A step is one change at the source.
type step struct {
	name    string
	present string // what every node has after it, "" for nothing
	absent  string // and what not

	// prepare does what an editor or a deployer does before the change is to be
	// seen, beside the tree, and returns the change.
	prepare func(t trees) (change func() error, err error)
}

// marker comes before the clock is used: when it is everywhere, all runs.
var marker = step{name: "marker", present: "marker", prepare: func(t trees) (func() error, error) {
	return t.replace("marker", func(f *os.File) error {
		_, err := f.WriteString("marker\n")
		return err
	})
}}

// steps are in the order in which they are made; each goes on with what the one
// before has left.
var steps = []step{
	{name: "new", present: fileName, prepare: func(t trees) (func() error, error) {
		return t.replace(fileName, func(f *os.File) error {
			_, err := io.Copy(f, content(t.kind, 1, t.size))
			return err
		})
	}},
	{name: "insert 1 byte at the front", present: fileName, prepare: func(t trees) (func() error, error) {
		return t.replace(fileName, func(f *os.File) error {
			if _, err := f.WriteString("+"); err != nil {
				return err
			}
			return t.copyTo(f, fileName)
		})
	}},
	{name: "change 1 byte in the middle", present: fileName, prepare: func(t trees) (func() error, error) {
		return t.replace(fileName, func(f *os.File) error {
			if err := t.copyTo(f, fileName); err != nil {
				return err
			}
			var b [1]byte
			at := t.size / 2
			if _, err := f.ReadAt(b[:], at); err != nil {
				return err
			}
			b[0]++
			_, err := f.WriteAt(b[:], at)
			return err
		})
	}},
	{name: "append 4 KiB", present: fileName, prepare: func(t trees) (func() error, error) {
		more, err := io.ReadAll(content(t.kind, 2, appended))
		return func() error {
			f, err := os.OpenFile(filepath.Join(t.source, fileName), os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			if _, err := f.Write(more); err != nil {
				f.Close()
				return err
			}
			return f.Close()
		}, err
	}},
	{name: "rename", present: newName, absent: fileName, prepare: func(t trees) (func() error, error) {
		return func() error {
			return os.Rename(filepath.Join(t.source, fileName), filepath.Join(t.source, newName))
		}, nil
	}},
	{name: "delete", absent: newName, prepare: func(t trees) (func() error, error) {
		_, err := t.replace(newName, func(f *os.File) error { return t.copyTo(f, newName) }) // for the next step
		return func() error { return os.Remove(filepath.Join(t.source, newName)) }, err
	}},
	{name: "put back", present: newName, prepare: func(t trees) (func() error, error) {
		return t.rename(newName), nil
	}},
}
