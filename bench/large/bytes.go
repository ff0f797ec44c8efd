package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	"treecast/bench/internal/rig"
)

// sameBytes reports the nodes whose file is not the source's.
func sameBytes(ctx context.Context, t rig.Trees, name string) error {
	dirs := append([]string{t.Source}, t.Nodes...)
	sums := make([][sha256.Size]byte, len(dirs))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.NumCPU())
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
