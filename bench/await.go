package main

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// A wanted is what a change has made of a path.
type wanted struct {
	path string
	info fs.FileInfo // nil where it is gone
}

// everything returns what is at and below the topmost paths.
func everything(root string, tops []string) (all []wanted, err error) {
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
			all = append(all, wanted{relative, fi})
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// at reports whether a node has it: kind, size and time, or nothing. The times
// of directories are left to the judge, for they change with what is put into
// them.
func (w wanted) at(node string) bool {
	got, err := os.Lstat(filepath.Join(node, w.path))
	switch {
	case w.info == nil:
		return errors.Is(err, fs.ErrNotExist)
	case err != nil || got.Mode().Type() != w.info.Mode().Type():
		return false
	case got.IsDir():
		return true
	}
	return got.Size() == w.info.Size() && got.ModTime().Equal(w.info.ModTime())
}

// A pending is what a node was not yet seen to have.
type pending struct {
	node string
	all  []wanted
	next int // is looked at first
}

// look crosses off what is there, and gives up at the fourth path that is not:
// whatever the order of a system, what has come is crossed off while the rest is
// on its way, and looking costs next to nothing while nothing comes.
func (p *pending) look() {
	for wrong := 0; len(p.all) > 0 && wrong < 4 && wrong < len(p.all); {
		p.next %= len(p.all)
		if !p.all[p.next].at(p.node) {
			p.next++
			wrong++
			continue
		}
		last := len(p.all) - 1
		p.all[p.next] = p.all[last]
		p.all = p.all[:last]
	}
}

// await looks every millisecond until each node was seen to have all.
func await(ctx context.Context, nodes []string, all []wanted) error {
	left := make([]pending, len(nodes))
	for i, node := range nodes {
		mine := make([]wanted, len(all))
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
