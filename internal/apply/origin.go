package apply

import (
	"context"
	"errors"
	"io"
	"slices"
	"syscall"

	"treecast/internal/events"
)

// An origin is a file of the tree that may have some of the bytes.
type origin struct {
	path  events.Path
	file  file
	st    stat
	known knownFile // its list is nil if nothing is known
}

// origins opens the path's own file and that of e.From. That one cannot be read
// is no error: there are others.
func (b *build) origins() (origins []*origin) {
	paths := []events.Path{b.e.Path}
	if b.e.From != nil && *b.e.From != b.e.Path {
		paths = append(paths, *b.e.From)
	}
	for _, p := range paths {
		f, err := b.t.root.openFile(p.String())
		if err != nil {
			continue
		}
		o := &origin{path: p, file: f}
		if o.st, err = f.stat(); err != nil {
			f.close()
			continue
		}
		if k, ok := b.t.known.get(o.st); ok {
			o.known = k
		}
		origins = append(origins, o)
	}
	return origins
}

// resume returns the hash that sum goes on with. If a file is known that begins
// with the same chunks, that goes first, and its bytes are not hashed again: it
// is right that nothing happened to it, nor to others that are copied in its place,
// before the copy and after.
func (b *build) resume(origins []*origin) *events.TrailHash {
	hash := events.NewTrailHash()
	b.begun = 0
	for i, o := range origins {
		alike := 0
		for alike < min(len(b.list), len(o.known.list)) && b.list[alike] == o.known.list[alike] {
			alike++
		}
		if h, n := o.known.trail.Resume(b.list[:alike]); n > b.begun {
			hash, b.begun = h, n
			origins[0], origins[i] = origins[i], origins[0]
		}
	}
	return hash
}

// copyFrom copies what o has of the chunks that are still lacking.
func (b *build) copyFrom(ctx context.Context, o *origin) error {
	if !slices.Contains(b.spent, false) {
		return nil
	}
	list, err := b.t.chunksOf(ctx, o, b.e.Average)
	if err != nil {
		b.t.log.Debug("old bytes are not used", "path", quote(o.path), "err", err)
		return ctx.Err()
	}
	at := make(map[events.Digest]int64, len(list))
	offset := int64(0)
	for _, c := range list {
		if !c.Hole() {
			at[c.Digest] = offset
		}
		offset += c.Size
	}
	for i := 0; i < len(b.list); i++ {
		from, ok := at[b.list[i].Digest]
		if b.spent[i] || !ok {
			continue
		}
		j, n := i+1, b.list[i].Size // a run of neighbours is copied at once
		for j < len(b.list) && !b.spent[j] && n < copyStep {
			if next, ok := at[b.list[j].Digest]; !ok || next != from+n {
				break
			}
			n += b.list[j].Size
			j++
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := b.part.copyFrom(o.file, from, b.start[i], n); err != nil {
			if errors.Is(err, syscall.EIO) { // of either: fetching tells which
				b.t.log.Warn("old bytes cannot be copied, they are fetched", "path", quote(o.path), "err", err)
				return nil
			}
			return err
		}
		if err := b.wrote(n); err != nil {
			return err
		}
		for ; i < j; i++ {
			b.spent[i] = true
			b.ready.mark(i)
		}
		i--
	}
	return nil
}

// chunksOf says what chunks o has, from memory if nothing happened to it since
// it was written or read.
func (t *Tree) chunksOf(ctx context.Context, o *origin, average uint32) (events.ChunkList, error) {
	if o.known.list != nil {
		return o.known.list, nil
	}
	chunker, err := events.NewChunker(o.file, average)
	if err != nil {
		return nil, err
	}
	var list events.ChunkList
	for {
		body, err := chunker.Next()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		list = append(list, events.Chunk{Digest: events.Sum(body), Size: int64(len(body))})
	}
}
