package main

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestLayout shows that names are different, and that a top directory has no
// more than half of the files, nor a directory more than a hundred.
func TestLayout(t *testing.T) {
	for _, files := range []int{2, 3, 201, 30_000, 250_000, 1_000_000} {
		l := newLayout(files)
		seen, dirs, tops := map[string]bool{}, map[string]int{}, map[string]int{}
		for i := range files {
			name := l.name(i)
			seen[name] = true
			dirs[filepath.Dir(name)]++
			top, _, _ := strings.Cut(name, "/")
			tops[top]++
		}
		if len(seen) != files {
			t.Errorf("%d files: %d names", files, len(seen))
		}
		if n := tops[topName(0)]; n != min(files/2, 100_000) {
			t.Errorf("%d files: %d in the first directory", files, n)
		}
		for dir, n := range dirs {
			if n > 100 {
				t.Errorf("%d files: %d in %s", files, n, dir)
			}
		}
		some := l.some(2000)
		if want := min(files, 2000); len(some) != want || len(seen) != files || !seen[some[0]] {
			t.Errorf("%d files: some are %d, want %d", files, len(some), want)
		}
	}
}

func TestGenerate(t *testing.T) {
	dir, l := t.TempDir(), newLayout(1000)
	if err := l.generate(dir, 1024); err != nil {
		t.Fatal(err)
	}
	files, bytes := 0, int64(0)
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		files, bytes = files+1, bytes+fi.Size()
		return err
	})
	if average := bytes / 1000; err != nil || files != 1000 || average < 900 || average > 1150 {
		t.Errorf("%d files, %d bytes on average, %v", files, average, err)
	}
}
