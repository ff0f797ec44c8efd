package treecast_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// TestRestWritesNothing: when nothing changes, nobody writes: neither the broker
// to its store, nor a node to its state or tree, nor the publisher to the
// source; whatever they ask each other and the kernel meanwhile. It is longer
// than the pauses of what looks around: statuses, roots, heartbeats.
func TestRestWritesNothing(t *testing.T) {
	t.Parallel()
	calm, rest, torture := 3*time.Second, 20*time.Second, os.Getenv("TREECAST_TORTURE") != ""
	if torture {
		calm, rest = 3*time.Minute, 3*time.Minute
	}
	c := startCluster(t, "b", "c")
	c.write(t, "d/index.html", []byte("inline"))
	c.write(t, "large", slices.Repeat([]byte("in chunks "), 200_000))
	c.must(t, c.judge(nil))

	w, err := fsnotify.NewWatcher()
	c.must(t, err)
	defer w.Close()
	c.must(t, filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // a staged file that has become another
		case err != nil:
			return err
		case d.IsDir():
			if err := w.Add(path); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	}))
	// next returns the next change within d, one without a name if there is none.
	next := func(d time.Duration) fsnotify.Event {
		for end := time.After(d); ; {
			select {
			case e := <-w.Events:
				switch filepath.Base(e.Name) {
				case "broker.log", "publisher.log", "b.log", "c.log":
					continue
				case "index.db", "thw.db", "thw.db.tmp":
					// nats-server's index of a stream, once within two minutes and
					// a half after the stream has changed: not in what torture waits.
					if !torture {
						continue
					}
				}
				return e
			case err := <-w.Errors:
				t.Fatal(err)
			case <-end:
				return fsnotify.Event{}
			}
		}
	}
	c.must(t, c.await("rest", func() error {
		if last := next(calm); last.Name != "" {
			return errors.New(last.String())
		}
		return nil
	}))
	if wrote := next(rest); wrote.Name != "" {
		t.Errorf("nothing has changed for %v, and then: %s", calm, wrote)
	}

	// That all this would be seen.
	c.write(t, "d/index.html", []byte("changed"))
	c.must(t, c.judge(nil))
	seen := map[string]bool{}
	for len(seen) < 3 {
		e := next(patience)
		if e.Name == "" {
			break
		}
		for _, dir := range []string{"store", "b", ".b.treecast"} {
			if rel, err := filepath.Rel(c.path(dir), e.Name); err == nil && filepath.IsLocal(rel) {
				seen[dir] = true
			}
		}
	}
	if len(seen) < 3 {
		t.Errorf("a change was seen in %v alone", seen)
	}
}
