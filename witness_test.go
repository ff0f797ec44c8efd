package treecast_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A witness reads a node's tree as a web server does, all the time, and looks
// for what must never be seen: a file that is not the whole of one version, and
// the absence of a file that the source has had since it was first there.
type witness struct {
	root string

	mu     sync.RWMutex // held while the tree is read; who has it for writing may unmount
	absent atomic.Bool  // someone waits to have it
	stays  []string     // names of files that are there for good
	files  atomic.Int64 // that were read
}

// keep adds a file that was seen to be there, for good.
func (w *witness) keep(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stays = append(w.stays, name)
}

// leave returns when nothing of the tree is open, and keeps it so until enter.
func (w *witness) leave() {
	w.absent.Store(true)
	w.mu.Lock()
}

func (w *witness) enter() {
	w.absent.Store(false)
	w.mu.Unlock()
}

// run looks until stop is closed.
func (w *witness) run(stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		case <-time.After(100 * time.Millisecond):
		}
		w.mu.RLock()
		err := w.look(w.absent.Load)
		w.mu.RUnlock()
		if err != nil {
			return err
		}
	}
}

// look reads the tree once, unless enough says so before.
func (w *witness) look(enough func() bool) error {
	for _, name := range w.stays {
		if _, err := os.Lstat(filepath.Join(w.root, name)); err != nil {
			return fmt.Errorf("a file that was there for good: %w", err)
		}
	}
	top, err := filepath.EvalSymlinks(w.root)
	if err != nil {
		return err
	}
	return filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case enough():
			return fs.SkipAll
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR): // it was removed or replaced meanwhile
			return nil
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".treecast":
			return fs.SkipDir
		case d.Type().IsRegular():
			w.files.Add(1)
			return w.read(path)
		}
		return nil
	})
}

// read checks one file, if it is still there.
func (w *witness) read(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP):
		return nil
	case err != nil:
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return err
	}
	file, err := io.ReadAll(f)
	if err == nil {
		err = whole(file, fi)
	}
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	return nil
}
