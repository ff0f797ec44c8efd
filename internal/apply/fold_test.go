package apply

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// TestFoldedNamesAreRefused: where two names are one, no tree is kept.
func TestFoldedNamesAreRefused(t *testing.T) {
	accent := strings.NewReplacer("e\u0301", "\u00e9")
	for name, c := range map[string]struct {
		fold func(string) string
		only string
	}{
		"case":                     {fold: strings.ToLower},
		"accents":                  {fold: accent.Replace},
		"case, but not in staging": {fold: strings.ToLower, only: "html"},
	} {
		t.Run(name, func(t *testing.T) {
			b := benchAt(t, t.TempDir())
			_, err := open(b.opts, folding{c.fold, c.only})
			if !errors.Is(err, ErrFolds) || Permanent(err) {
				t.Error(err)
			}
			if names, err := os.ReadDir(b.root); err != nil || len(names) > 0 {
				t.Errorf("the root has %v, %v", names, err)
			}
			b.reopen() // the real one does not fold
		})
	}
}

// folding is the real file system, but that what is looked for is found by
// names that fold to one.
type folding struct {
	fold func(string) string
	only string // of the directories that were opened by a path that ends so
}

func (f folding) open(path string) (directory, error) {
	d, err := kernel{}.open(path)
	if err != nil {
		return nil, err
	}
	return foldingDir{d, f, strings.HasSuffix(path, f.only)}, nil
}

type foldingDir struct {
	directory
	fs    folding
	folds bool
}

func (d foldingDir) openDir(rel string) (directory, error) {
	in, err := d.directory.openDir(rel)
	if err != nil {
		return nil, err
	}
	return foldingDir{in, d.fs, d.folds}, nil
}

func (d foldingDir) rename(name string, to directory, toName string, how renaming) error {
	return d.directory.rename(name, to.(foldingDir).directory, toName, how)
}

func (d foldingDir) lstat(rel string) (stat, error) {
	st, err := d.directory.lstat(rel)
	if err == nil || !d.folds || strings.Contains(rel, "/") {
		return st, err
	}
	names, err2 := d.names()
	if err2 != nil {
		return st, err
	}
	for _, name := range names {
		if d.fs.fold(name) == d.fs.fold(rel) {
			return d.directory.lstat(name)
		}
	}
	return st, err
}
