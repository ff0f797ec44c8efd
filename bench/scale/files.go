package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"treecast/bench/internal/rig"
)

// A layout is the shape of a generated tree: top directories with many files,
// which stand in directories of a hundred, of which up to a hundred stand in
// one.
type layout struct {
	files int
	top   int // files in each top directory
}

// newLayout has a top directory of 100,000 files at most, and of half of all:
// whoever removes more than half of a tree at once is asked whether that is
// meant.
func newLayout(files int) layout { return layout{files, max(1, min(files/2, 100_000))} }

// name returns the path of a file.
func (l layout) name(i int) string {
	i, top := i%l.top, i/l.top
	return filepath.Join(topName(top), fmt.Sprintf("d%02d", i/10_000), fmt.Sprintf("d%02d", i/100%100),
		fmt.Sprintf("f%02d.%s", i%100, []string{"html", "php", "js", "css", "txt"}[i%5]))
}

func topName(i int) string { return fmt.Sprintf("t%d", i) }

// some returns n of all files, at random, but the same ones each time.
func (l layout) some(n int) []string {
	names := make([]string, min(n, l.files))
	for i, at := range rand.New(rand.NewPCG(1, 0)).Perm(l.files)[:len(names)] {
		names[i] = l.name(at)
	}
	return names
}

// generate makes the files, of text, with up to twice the average size.
func (l layout) generate(root string, averageBytes int64) error {
	random := rand.New(rand.NewPCG(2, 0))
	text := make([]byte, 1<<20+2*averageBytes)
	if _, err := io.ReadFull(rig.Content("text", 1, int64(len(text))), text); err != nil {
		return err
	}
	made := ""
	for i := range l.files {
		name := filepath.Join(root, l.name(i))
		if dir := filepath.Dir(name); dir != made {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			made = dir
		}
		at := random.Int64N(1 << 20)
		body := fmt.Appendf(nil, "file %d\n", i) // none is another's
		body = append(body, text[at:at+random.Int64N(2*averageBytes)]...)
		if err := os.WriteFile(name, body, 0o644); err != nil {
			return err
		}
	}
	return nil
}
