package publisher

import (
	"context"
	"errors"
	"maps"

	"treecast/internal/events"
	"treecast/internal/source"
)

// inodes remembers which large files, by inode, have what is published, so that
// a renamed one is known without reading it. It belongs to the goroutine that
// runs rounds.
type inodes struct{ files map[[2]uint64]source.Meta }

func (x *inodes) put(m source.Meta) {
	if x.files == nil {
		x.files = make(map[[2]uint64]source.Meta)
	}
	x.files[[2]uint64{m.Dev, m.Ino}] = m
}

// prune forgets the files whose path keep does not know.
func (x *inodes) prune(keep func(events.Path) bool) {
	maps.DeleteFunc(x.files, func(_ [2]uint64, m source.Meta) bool { return !keep(m.Entry.Path) })
}

// was returns the path that the file m had when it was published, if neither its
// size nor its time differ since.
func (x *inodes) was(m source.Meta) (events.Path, bool) {
	old, ok := x.files[[2]uint64{m.Dev, m.Ino}]
	if !ok || old.Entry.Size != m.Entry.Size || old.Entry.Mtime != m.Entry.Mtime || old.Entry.Path == m.Entry.Path {
		return events.Path{}, false
	}
	return old.Entry.Path, true
}

// renamed makes the entry of a large file that was renamed from the one that is
// published: the same inode, size and time under another name. Its bytes are
// read afterwards: only a change whose time was set back by hand could have been
// missed, and is published then.
func (s *session) renamed(ctx context.Context, out *outgoing) {
	c := out.change
	from, ok := s.inodes.was(c.meta)
	r := s.index.Get(from)
	if !ok || r == nil || r.average == 0 || r.uncertain || r.size != c.meta.Entry.Size || r.mtime != c.meta.Entry.Mtime {
		return
	}
	if _, err := s.src.Lstat(from); !errors.Is(err, source.ErrAbsent) {
		return
	}
	old, d, err := s.collection.catalog.chunked(ctx, from)
	if err != nil || d == nil || old.Digest != r.digest {
		return
	}
	e := c.meta.Entry
	e.Digest, e.Body, e.Average, e.List, e.From, e.Epoch = old.Digest, old.Body, old.Average, old.List, &from, s.lease.Epoch()
	message, err := s.message(&e, d.Payload)
	if err != nil {
		return
	}
	s.inodes.put(c.meta)
	*out = outgoing{change: c, entry: e, message: message, unread: true}
}
