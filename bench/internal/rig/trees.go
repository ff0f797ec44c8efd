package rig

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Trees are a source tree and the nodes' trees, in one directory.
type Trees struct {
	Dir    string
	Source string
	Nodes  []string
	Beside string // on the source's file system, outside of its tree
}

// NewTrees makes empty trees in dir, which must not exist.
func NewTrees(dir string, nodes int) (Trees, error) {
	t := Trees{Dir: dir, Source: filepath.Join(dir, "a"), Beside: filepath.Join(dir, "beside")}
	for i := range nodes {
		t.Nodes = append(t.Nodes, filepath.Join(dir, fmt.Sprintf("node%d", i+1)))
	}
	for _, d := range append([]string{t.Dir, t.Source, t.Beside}, t.Nodes...) {
		if err := os.Mkdir(d, 0o755); err != nil {
			return t, err
		}
	}
	return t, nil
}

// Replace writes a file beside the tree, and returns what puts it in the place
// of the one with the name.
func (t Trees) Replace(name string, write func(*os.File) error) (change func() error, err error) {
	f, err := os.OpenFile(filepath.Join(t.Beside, name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	if err := write(f); err != nil {
		f.Close()
		return nil, err
	}
	return t.Rename(name), f.Close()
}

// Rename returns what moves a file from beside the tree into it.
func (t Trees) Rename(name string) (change func() error) {
	return func() error { return os.Rename(filepath.Join(t.Beside, name), filepath.Join(t.Source, name)) }
}

// CopyTo appends the bytes of a file of the source to f.
func (t Trees) CopyTo(f *os.File, name string) error {
	from, err := os.Open(filepath.Join(t.Source, name))
	if err != nil {
		return err
	}
	defer from.Close()
	_, err = io.Copy(f, from)
	return err
}

// Append adds to the end of a file of the source.
func (t Trees) Append(name string, more []byte) error {
	f, err := os.OpenFile(filepath.Join(t.Source, name), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	if _, err := f.Write(more); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// Judge asks rsync, which must find nothing to do for any node, times of
// directories and all. What comes last, as a directory's time does, is given as
// long as patience.
//
// Errors are *Difference, or say why nobody could tell.
func Judge(ctx context.Context, t Trees, patience time.Duration) error {
	for _, node := range t.Nodes {
		for deadline := time.Now().Add(patience); ; {
			out, err := Program(ctx, "rsync", "-anic", "--delete", t.Source+"/", node+"/").CombinedOutput()
			if err == nil && len(out) == 0 {
				break
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				return fmt.Errorf("judge: %w\n%s", err, out)
			}
			if time.Now().After(deadline) {
				return &Difference{Node: node, Items: string(out)}
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	return nil
}

// A Difference says what rsync would change at a node.
type Difference struct {
	Node  string
	Items string // rsync -i
}

func (d *Difference) Error() string {
	return fmt.Sprintf("judge: rsync would change %s:\n%sthe trees differ", d.Node, d.Items)
}
