package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// trees are a source tree and the nodes' trees, in one directory.
type trees struct {
	dir    string
	source string
	nodes  []string
	beside string // on the source's file system, outside of its tree
	kind   string // of content
	size   int64  // of the new file
}

// newTrees makes empty trees in dir, which must not exist.
func newTrees(dir, kind string, sizeBytes int64, nodes int) (trees, error) {
	t := trees{
		dir: dir, source: filepath.Join(dir, "a"), beside: filepath.Join(dir, "beside"), kind: kind, size: sizeBytes,
	}
	for i := range nodes {
		t.nodes = append(t.nodes, filepath.Join(dir, fmt.Sprintf("node%d", i+1)))
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return t, err
	}
	for _, d := range append([]string{t.source, t.beside}, t.nodes...) {
		if err := os.Mkdir(d, 0o755); err != nil {
			return t, err
		}
	}
	return t, nil
}

// replace writes a file beside the tree, and returns what puts it in the place
// of the one with the name.
func (t trees) replace(name string, write func(*os.File) error) (change func() error, err error) {
	f, err := os.OpenFile(filepath.Join(t.beside, name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	if err := write(f); err != nil {
		f.Close()
		return nil, err
	}
	return t.rename(name), f.Close()
}

func (t trees) rename(name string) (change func() error) {
	return func() error { return os.Rename(filepath.Join(t.beside, name), filepath.Join(t.source, name)) }
}

// copyTo appends the bytes of a file of the source to f.
func (t trees) copyTo(f *os.File, name string) error {
	from, err := os.Open(filepath.Join(t.source, name))
	if err != nil {
		return err
	}
	defer from.Close()
	_, err = io.Copy(f, from)
	return err
}

// sameBytes reports the nodes whose file is not the source's.
func sameBytes(ctx context.Context, t trees, name string) error {
	dirs := append([]string{t.source}, t.nodes...)
	sums := make([][sha256.Size]byte, len(dirs))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(cpus())
	for i, dir := range dirs {
		g.Go(func() (err error) {
			sums[i], err = sum(ctx, filepath.Join(dir, name))
			return err
		})
	}
	err := g.Wait()
	for i, dir := range dirs {
		if err == nil && sums[i] != sums[0] {
			err = fmt.Errorf("%s/%s: size and time are the source's, the bytes are not", dir, name)
		}
	}
	return err
}

func sum(ctx context.Context, file string) (digest [sha256.Size]byte, err error) {
	f, err := os.Open(file)
	if err != nil {
		return digest, err
	}
	defer f.Close()
	h := sha256.New()
	for err == nil {
		if ctx.Err() != nil {
			return digest, context.Cause(ctx)
		}
		_, err = io.CopyN(h, f, 8<<20)
	}
	if !errors.Is(err, io.EOF) {
		return digest, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// judge asks rsync, which must find nothing to do for any node, times of
// directories and all. What comes last, as a directory's time does, is given a
// few seconds.
func judge(ctx context.Context, t trees) error {
	for _, node := range t.nodes {
		for deadline := time.Now().Add(10 * time.Second); ; {
			out, err := program(ctx, "rsync", "-anic", "--delete", t.source+"/", node+"/").CombinedOutput()
			if err == nil && len(out) == 0 {
				break
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil || time.Now().After(deadline) {
				return fmt.Errorf("judge: rsync would change %s:\n%s%w", node, out, errors.Join(err, errDiffers))
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	return nil
}

var errDiffers = errors.New("the trees differ")

// firstLine returns the first line that a program prints.
func firstLine(ctx context.Context, name string, args ...string) (string, error) {
	out, err := program(ctx, name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line, nil
}
