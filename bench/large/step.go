package main

import (
	"io"
	"os"
	"path/filepath"

	"treecast/bench/internal/rig"
)

const (
	fileName = "large.bin"
	newName  = "renamed.bin"
	appended = 4 << 10 // bytes
)

// A tree is what steps are made in.
type tree struct {
	rig.Trees
	kind string // of content
	size int64  // of the new file
}

// A step is one change at the source.
type step struct {
	name    string
	present string // what every node has after it, "" for nothing
	absent  string // and what not

	// prepare does what an editor or a deployer does before the change is to be
	// seen, beside the tree, and returns the change.
	prepare func(t tree) (change func() error, err error)
}

// marker comes before the clock is used: when it is everywhere, all runs.
var marker = step{name: "marker", present: "marker", prepare: func(t tree) (func() error, error) {
	return t.Replace("marker", func(f *os.File) error {
		_, err := f.WriteString("marker\n")
		return err
	})
}}

// steps are in the order in which they are made; each goes on with what the one
// before has left.
var steps = []step{
	{name: "new", present: fileName, prepare: func(t tree) (func() error, error) {
		return t.Replace(fileName, func(f *os.File) error {
			_, err := io.Copy(f, rig.Content(t.kind, 1, t.size))
			return err
		})
	}},
	{name: "insert 1 byte at the front", present: fileName, prepare: func(t tree) (func() error, error) {
		return t.Replace(fileName, func(f *os.File) error {
			if _, err := f.WriteString("+"); err != nil {
				return err
			}
			return t.CopyTo(f, fileName)
		})
	}},
	{name: "change 1 byte in the middle", present: fileName, prepare: func(t tree) (func() error, error) {
		return t.Replace(fileName, func(f *os.File) error {
			if err := t.CopyTo(f, fileName); err != nil {
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
	{name: "append 4 KiB", present: fileName, prepare: func(t tree) (func() error, error) {
		more, err := io.ReadAll(rig.Content(t.kind, 2, appended))
		return func() error { return t.Append(fileName, more) }, err
	}},
	{name: "rename", present: newName, absent: fileName, prepare: func(t tree) (func() error, error) {
		return func() error {
			return os.Rename(filepath.Join(t.Source, fileName), filepath.Join(t.Source, newName))
		}, nil
	}},
	{name: "delete", absent: newName, prepare: func(t tree) (func() error, error) {
		_, err := t.Replace(newName, func(f *os.File) error { return t.CopyTo(f, newName) }) // for the next step
		return func() error { return os.Remove(filepath.Join(t.Source, newName)) }, err
	}},
	{name: "put back", present: newName, prepare: func(t tree) (func() error, error) {
		return t.Rename(newName), nil
	}},
}
