package subscriber

import (
	"cmp"
	"context"
	"slices"

	"treecast/internal/events"
	"treecast/internal/stream"
)

// A known is an entry of a snapshot.
type known struct {
	seq   uint64
	entry events.Entry
	item  string // how the tree differs from it, itemized; "": it does not
}

// A snapshot is what a stream has, tombstones too, each path once, sorted by
// path. It takes some 300 bytes a path.
type snapshot []*known

// takeSnapshot reads site's stream. refused is told of what cannot be decoded,
// which is not in the snapshot.
func takeSnapshot(ctx context.Context, from Stream, site events.Site, refused func(seq uint64, subject string)) (s snapshot, info stream.Info, err error) {
	info, err = from.Snapshot(ctx, site, func(seq uint64, subject, header string) error {
		e, err := events.Decode(site, subject, header)
		if err != nil {
			refused(seq, subject)
			return nil
		}
		e.Intern()
		s = append(s, &known{seq: seq, entry: e})
		return nil
	})
	return s.inForce(), info, err
}

// inForce sorts the snapshot and returns it without what a newer entry took the
// place of: of its path, or of kin. What is in a directory that is none any more
// is void, and what has become a directory, since something is in it. The stream
// keeps both where a publisher was cut short before the tombstones. Applied in
// the stream's order they would have left nothing.
func (s snapshot) inForce() snapshot {
	slices.SortFunc(s, func(a, b *known) int {
		return cmp.Or(a.entry.Path.Compare(b.entry.Path), cmp.Compare(a.seq, b.seq))
	})
	void := make(map[*known]bool)
	var above []*known // the last one's ancestors, and itself, but directories
	for i, k := range s {
		if i+1 < len(s) && s[i+1].entry.Path == k.entry.Path {
			void[k] = true
			continue
		}
		for len(above) > 0 && !k.entry.Path.Within(above[len(above)-1].entry.Path) {
			above = above[:len(above)-1]
		}
		for _, a := range above {
			switch {
			case a.seq > k.seq:
				void[k] = true
			case k.entry.Kind != events.Tombstone:
				void[a] = true
			}
		}
		if k.entry.Kind != events.Dir {
			above = append(above, k)
		}
	}
	return slices.DeleteFunc(s, func(k *known) bool { return void[k] })
}

// after returns what comes after p.
func (s snapshot) after(p events.Path) snapshot {
	i, found := s.find(p)
	if found {
		i++
	}
	return slices.Clone(s[i:]) // and not all in memory
}

func (s snapshot) find(p events.Path) (i int, found bool) {
	return slices.BinarySearchFunc(s, p, func(k *known, p events.Path) int { return k.entry.Path.Compare(p) })
}

func (s snapshot) entries() []*events.Entry {
	list := make([]*events.Entry, len(s))
	for i, k := range s {
		list[i] = &k.entry
	}
	return list
}
