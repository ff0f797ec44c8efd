package rig

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// A Wanted is what a change has made of a path. There may be a million.
type Wanted struct {
	Path string
	Gone bool // and then nothing else
	kind fs.FileMode
	size int64
	time int64 // of its last change, in nanoseconds
}

func wanted(path string, fi fs.FileInfo) Wanted {
	return Wanted{Path: path, kind: fi.Mode().Type(), size: fi.Size(), time: fi.ModTime().UnixNano()}
}

// Everything returns what is at and below the topmost paths.
func Everything(root string, tops ...string) (all []Wanted, err error) {
	for _, top := range tops {
		err := filepath.WalkDir(filepath.Join(root, top), func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			fi, err := d.Info()
			if err != nil {
				return err
			}
			relative, err := filepath.Rel(root, name)
			all = append(all, wanted(relative, fi))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// At reports whether a node has it: kind, size and time, or nothing. The times
// of directories are left to the judge, for they change with what is put into
// them.
func (w Wanted) At(node string) bool {
	fi, err := os.Lstat(filepath.Join(node, w.Path))
	if err != nil || w.Gone {
		return w.Gone && errors.Is(err, fs.ErrNotExist)
	}
	got := wanted(w.Path, fi)
	return got == w || got.kind == w.kind && w.kind.IsDir()
}

// A pending is what a node was not yet seen to have.
type pending struct {
	node string
	all  []Wanted
	next int // is looked at first
}

// look crosses off what is there, and gives up at the fourth path that is not:
// whatever the order of a system, what has come is crossed off while the rest is
// on its way, and looking costs next to nothing while nothing comes.
func (p *pending) look() {
	for wrong := 0; len(p.all) > 0 && wrong < 4 && wrong < len(p.all); {
		p.next %= len(p.all)
		if !p.all[p.next].At(p.node) {
			p.next++
			wrong++
			continue
		}
		last := len(p.all) - 1
		p.all[p.next] = p.all[last]
		p.all = p.all[:last]
	}
}

// Await looks every millisecond until each node was seen to have all.
func Await(ctx context.Context, nodes []string, all []Wanted) error {
	left := make([]pending, len(nodes))
	for i, node := range nodes {
		mine := make([]Wanted, len(all))
		for to, from := range rand.Perm(len(all)) {
			mine[to] = all[from]
		}
		left[i] = pending{node: node, all: mine}
	}
	for {
		done := true
		for i := range left {
			left[i].look()
			done = done && len(left[i].all) == 0
		}
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}
