package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"

	"treecast/bench/internal/rig"
)

// generate writes a tree of files with the shape of a web site or a source
// tree: a dozen files in a directory, most of them small, a few of them large,
// text but for one in eight. The same arguments make the same tree.
func generate(root string, seed uint64, files int, sizeBytes int64) error {
	random := rand.New(rand.NewPCG(seed, 0))
	weights, sum := make([]float64, files), 0.0
	for i := range weights {
		weights[i] = math.Exp(1.5 * random.NormFloat64())
		sum += weights[i]
	}
	text := bufio.NewReader(rig.Content("text", seed, math.MaxInt64))
	noise := bufio.NewReader(rig.Content("random", seed, math.MaxInt64))
	for i, weight := range weights {
		body, suffix := text, []string{"html", "php", "js", "css", "txt"}[i%5]
		if i%8 == 0 {
			body, suffix = noise, "png"
		}
		dir := filepath.Join(root, fmt.Sprintf("d%02d", i/144), fmt.Sprintf("d%02d", i/12%12))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		b := make([]byte, int64(weight/sum*float64(sizeBytes)))
		if _, err := io.ReadFull(body, b); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d.%s", i, suffix)), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// A base is the tree that each sequence starts with.
type base struct {
	dir       string
	files     []string // relative, in the order of a walk
	sizeBytes int64
}

func readBase(dir string) (b base, err error) {
	b.dir = dir
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(dir, name)
		b.files, b.sizeBytes = append(b.files, relative), b.sizeBytes+fi.Size()
		return err
	})
	return b, err
}

// share returns what n files of 11,478 are of this tree's, 1 at least.
func (b base) share(n int) int { return max(1, (n*len(b.files)+5739)/11478) }

// some returns n of the files, from all over the tree.
func (b base) some(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = b.files[i*len(b.files)/n]
	}
	return names
}
