package apply

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"

	"treecast/internal/events"
)

// A build puts a body together in a part.
type build struct {
	t     *Tree
	e     *events.Entry
	list  events.ChunkList
	part  file
	start []int64 // of each chunk in the body
	spent []bool  // chunks that are in the part, true or not; owned by fill
	doubt bool    // each chunk that is fetched is checked, not the whole alone
	ready *frontier
}

// copyStep is how much is copied at once, so that hashing can follow.
const copyStep = 8 << 20

// build makes s.temp from chunks.
func (s *Staged) build(ctx context.Context, fetch Fetcher) error {
	t, e := s.t, s.e
	part, err := t.parts.open(e.Path)
	if err != nil {
		return err
	}
	b := &build{t: t, e: e, list: s.list, part: part, spent: make([]bool, len(s.list))}
	b.start = make([]int64, len(s.list)+1)
	for i, c := range s.list {
		b.start[i+1] = b.start[i] + c.Size
	}
	err = b.run(ctx, fetch)
	if err == nil {
		err = t.dress(part, e, e.Mode)
	}
	if err == nil {
		if err = part.sync(); err != nil {
			// After a failed fsync the kernel takes the pages for clean: what
			// is there cannot be trusted, however often it is synced.
			err = errors.Join(err, t.parts.remove(e.Path))
		}
	}
	part.close()
	tmp := &temp{name: t.tempName(), kind: events.File, synced: true, part: partName(e.Path)}
	if err == nil {
		err = t.parts.dir.rename(tmp.part, t.tmp, tmp.name, replacing)
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, events.ErrDigest) {
		err = errors.Join(err, t.parts.remove(e.Path))
	}
	if err != nil {
		return err
	}
	t.parts.note(e.Path, false)
	s.temp = tmp
	return nil
}

// run fills the part and checks the whole of it. Only if that is wrong is each
// chunk checked: something that was taken for known was not what it was, or a
// chunk is altered in the bucket.
func (b *build) run(ctx context.Context, fetch Fetcher) error {
	if err := b.prepare(ctx); err != nil {
		return err
	}
	right, err := b.fill(ctx, b.sources(), fetch)
	if err != nil || right {
		return err
	}
	b.t.log.Warn("a body is not what its digest says, its chunks are checked one by one", "path", quote(b.e.Path))
	b.doubt = true
	clear(b.spent)
	if err := b.keepPart(ctx); err != nil {
		return err
	}
	if right, err = b.fill(ctx, nil, fetch); err == nil && !right {
		err = events.ErrDigest
	}
	return err
}

// prepare gives the part its size, and finds out what of it is right already.
func (b *build) prepare(ctx context.Context) error {
	st, err := b.part.stat()
	if err != nil {
		return err
	}
	sparse := slices.ContainsFunc(b.list, events.Chunk.Hole)
	b.doubt = st.size > 0 // an earlier try did not end well
	if st.size > 0 && !sparse {
		if err := b.keepPart(ctx); err != nil {
			return err
		}
	}
	if sparse && st.size > 0 { // what is a hole now may not have been one
		st.size = b.e.Size + 1
		if err := b.part.truncate(0); err != nil {
			return err
		}
	}
	if sparse || st.size > b.e.Size {
		if err := b.part.truncate(b.e.Size); err != nil {
			return err
		}
	}
	return b.reserve()
}

// reserve takes the room for all but the holes before anything is fetched: a
// body that does not fit must not fill the disk with each try.
func (b *build) reserve() error {
	for i := 0; i < len(b.list); i++ {
		from := b.start[i]
		for i < len(b.list) && !b.list[i].Hole() {
			i++
		}
		if n := b.start[i] - from; n > 0 {
			if err := b.part.allocate(from, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// keepPart marks the chunks that the part has where they belong.
func (b *build) keepPart(ctx context.Context) error {
	st, err := b.part.stat()
	if err != nil {
		return err
	}
	var buf []byte
	for i, c := range b.list {
		if err := ctx.Err(); err != nil {
			return err
		}
		if c.Hole() || b.start[i+1] > st.size {
			continue
		}
		buf = slices.Grow(buf[:0], int(c.Size))[:c.Size]
		if _, err := b.part.ReadAt(buf, b.start[i]); err != nil {
			return err
		}
		b.spent[i] = events.Sum(buf) == c.Digest
	}
	return nil
}

// fill puts into the part what it lacks, while the whole is hashed as far as it
// is there, and reports whether it is what e wants.
func (b *build) fill(ctx context.Context, sources []events.Path, fetch Fetcher) (right bool, err error) {
	b.ready = newFrontier(len(b.list))
	for i, c := range b.list {
		if b.spent[i] = b.spent[i] || c.Hole(); b.spent[i] {
			b.ready.mark(i)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, b.ready.stop)
	defer stop()
	g.Go(func() error {
		sum, err := b.sum(ctx)
		right = err == nil && sum == b.e.Digest
		return err
	})
	g.Go(func() error {
		for _, p := range sources {
			if err := b.copyFrom(ctx, p); err != nil {
				return err
			}
		}
		return b.fetch(ctx, fetch)
	})
	return right, g.Wait()
}

// sources are the files of the tree that may have some of the bytes.
func (b *build) sources() []events.Path {
	if b.e.From != nil && *b.e.From != b.e.Path {
		return []events.Path{b.e.Path, *b.e.From}
	}
	return []events.Path{b.e.Path}
}

// copyFrom copies what the file at p has of the chunks that are still lacking.
// That it cannot be read is no error: there are others.
func (b *build) copyFrom(ctx context.Context, p events.Path) error {
	if !slices.Contains(b.spent, false) {
		return nil
	}
	src, err := b.t.root.openFile(p.String())
	if err != nil {
		return nil
	}
	defer src.close()
	list, err := b.t.chunksOf(ctx, src, b.e.Average)
	if err != nil {
		b.t.log.Debug("old bytes are not used", "path", quote(p), "err", err)
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
		if err := b.part.copyFrom(src, from, b.start[i], n); err != nil {
			if errors.Is(err, syscall.EIO) { // of either: fetching tells which
				b.t.log.Warn("old bytes cannot be copied, they are fetched", "path", quote(p), "err", err)
				return nil
			}
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

// chunksOf says what chunks an open file of the tree has, from memory if nothing
// happened to it since it was written or read.
func (t *Tree) chunksOf(ctx context.Context, f file, average uint32) (events.ChunkList, error) {
	st, err := f.stat()
	if err != nil {
		return nil, err
	}
	if k, ok := t.known.get(st); ok && k.list != nil {
		return k.list, nil
	}
	chunker, err := events.NewChunker(f, average)
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

// fetch gets what nothing here has, each chunk once.
func (b *build) fetch(ctx context.Context, fetch Fetcher) error {
	places := map[events.Digest][]int{}
	var lacking []events.Chunk
	for i, c := range b.list {
		if b.spent[i] {
			continue
		}
		if places[c.Digest] == nil {
			lacking = append(lacking, c)
		}
		places[c.Digest] = append(places[c.Digest], i)
	}
	if len(lacking) == 0 {
		return nil
	}
	var got atomic.Int64
	var disk atomic.Pointer[error] // what failed here: fetch may say it as if it had failed there
	err := fetch.Fetch(ctx, lacking, func(c events.Chunk, body []byte) error {
		if b.doubt && events.Sum(body) != c.Digest {
			return events.ErrDigest
		}
		for _, i := range places[c.Digest] {
			if _, err := b.part.WriteAt(body, b.start[i]); err != nil {
				disk.CompareAndSwap(nil, &err)
				return err
			}
			b.ready.mark(i)
		}
		got.Add(1)
		return nil
	})
	if failed := disk.Load(); failed != nil {
		return *failed
	}
	if n := got.Load(); err == nil && n < int64(len(lacking)) {
		err = fmt.Errorf("%d of %d chunks were not got", int64(len(lacking))-n, len(lacking))
	}
	return err
}

// sum hashes the part from its start, as far as it is ready.
func (b *build) sum(ctx context.Context) (events.Digest, error) {
	var sum events.Digest
	h := sha256.New()
	buf := make([]byte, 1<<20)
	zeros := make([]byte, 64<<10)
	for i, c := range b.list {
		if !b.ready.wait(i) {
			return sum, ctx.Err()
		}
		for off := int64(0); off < c.Size; {
			if err := ctx.Err(); err != nil {
				return sum, err
			}
			piece := zeros[:min(int64(len(zeros)), c.Size-off)]
			if !c.Hole() {
				piece = buf[:min(int64(len(buf)), c.Size-off)]
				if _, err := b.part.ReadAt(piece, b.start[i]+off); err != nil {
					return sum, err
				}
			}
			h.Write(piece)
			off += int64(len(piece))
		}
	}
	h.Sum(sum[:0])
	return sum, nil
}

// A frontier tells one goroutine which of a row of things are done.
type frontier struct {
	mu      sync.Mutex
	changed sync.Cond
	done    []bool
	stopped bool
}

func newFrontier(n int) *frontier {
	f := &frontier{done: make([]bool, n)}
	f.changed.L = &f.mu
	return f
}

func (f *frontier) mark(i int) {
	f.mu.Lock()
	f.done[i] = true
	f.mu.Unlock()
	f.changed.Signal()
}

// stop ends all waits.
func (f *frontier) stop() {
	f.mu.Lock()
	f.stopped = true
	f.mu.Unlock()
	f.changed.Broadcast()
}

// wait returns when i is done, false if that cannot be any more.
func (f *frontier) wait(i int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for !f.done[i] && !f.stopped {
		f.changed.Wait()
	}
	return f.done[i]
}
