package publisher

import (
	"context"
	"errors"

	"treecast/internal/events"
	"treecast/internal/source"
	"treecast/internal/stream"
)

// A shape tells a renamed file by what a rename does not change.
type shape struct {
	size  int64
	mtime events.Time
}

func shapeOf(e *events.Entry) shape {
	if e.Kind != events.File {
		return shape{0, e.Mtime}
	}
	return shape{e.Size, e.Mtime}
}

// withhold notes a new file that could not be sent: a tombstone of its shape
// may be its old name, and waits.
func (s *session) withhold(c change) {
	if c.isNew && c.meta.Entry.Kind == events.File {
		s.unsent[c.meta.Entry.Path] = shapeOf(&c.meta.Entry)
	}
}

// withheld returns those of the tombstones that wait: a file that is on its way
// under another name must not be gone under both, and a directory is not
// deleted before what is in it.
func (s *session) withheld(tombstones []events.Path) map[events.Path]bool {
	waits := make(map[events.Path]bool)
	shapes := make(map[shape]bool)
	for path, of := range s.unsent {
		if _, err := s.src.Lstat(path); errors.Is(err, source.ErrAbsent) {
			delete(s.unsent, path)
			continue
		}
		shapes[of] = true
	}
	if len(shapes) == 0 {
		return waits
	}
	for _, path := range tombstones {
		if r := s.index.Get(path); r == nil || r.kind != events.File || !shapes[shape{r.size, r.mtime}] {
			continue
		}
		for p := path; !p.IsRoot(); p = p.Parent() {
			waits[p] = true
		}
	}
	return waits
}

// sendTombstones publishes the deletions that still are: lstat is asked once
// more, since a path may be back since the round began.
func (s *session) sendTombstones(ctx context.Context, paths []events.Path, n *sent) error {
	waits := s.withheld(paths)
	for len(paths) > 0 {
		size := min(len(paths), blockEntries)
		var entries []events.Entry
		var messages []stream.Message
		for _, path := range paths[:size] {
			if waits[path] {
				s.dirty.Retry(task{path: path, attempts: 4}, longestBusy)
				continue
			}
			if _, err := s.src.Lstat(path); !errors.Is(err, source.ErrAbsent) {
				if errors.Is(err, source.ErrRootLost) {
					return err
				}
				s.dirty.Again(source.Hint{Path: path, Deep: true})
				continue
			}
			e := events.Entry{Path: path, Kind: events.Tombstone, Epoch: s.lease.Epoch()}
			m, err := s.message(&e, nil)
			if err != nil {
				return err
			}
			entries = append(entries, e)
			messages = append(messages, *m)
		}
		paths = paths[size:]
		before := n.entries
		err := s.send(ctx, messages, n, func(i int) (*events.Entry, task) {
			return &entries[i], task{path: entries[i].Path}
		})
		n.tombstones += n.entries - before
		if err != nil {
			return err
		}
	}
	return nil
}
