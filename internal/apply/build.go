package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"

	"treecast/internal/events"
)

// A build puts a body together in a part.
//
// What it writes is made durable step by step. Else the kernel would keep up to a
// tenth of the memory of it, and the disk as much in its own, and whatever is synced
// on the same disk would wait for all of that: pages, for seconds.
type build struct {
	t     *Tree
	e     *events.Entry
	list  events.ChunkList
	part  file
	start []int64 // of each chunk in the body
	spent []bool  // chunks that are in the part, true or not; owned by fill
	doubt bool    // each chunk that is fetched is checked, not the whole alone
	ready *frontier

	loose atomic.Int64 // bytes that were written since the last sync

	begun int          // chunks that come from the first origin and need not be hashed: it was, see resume
	trail events.Trail // of the body, when it is right
}

// syncStep is how much is written before it is made durable. With less the
// disk has more to do than to write, with more pages wait longer for it.
const syncStep = 8 << 20

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
		err = b.synced(part.sync())
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
	s.temp, s.trail = tmp, b.trail
	return nil
}

// run fills the part and checks the whole of it. Only if that is wrong is each
// chunk checked: something that was taken for known was not what it was, or a
// chunk is altered in the bucket.
func (b *build) run(ctx context.Context, fetch Fetcher) error {
	if err := b.prepare(ctx); err != nil {
		return err
	}
	origins := b.origins()
	right, err := b.fill(ctx, origins, fetch)
	for _, o := range origins {
		o.file.close()
	}
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
// A body that does not fit must not fill the disk with each try.
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
	need := int64(0)
	for i, c := range b.list {
		if !b.spent[i] && !c.Hole() {
			need += c.Size
		}
	}
	free, err := b.part.free()
	if err == nil && free < need {
		err = syscall.ENOSPC
	}
	return err
}

// reserve takes the room for what is still lacking before it is fetched.
func (b *build) reserve() error {
	for i := 0; i < len(b.list); i++ {
		from := b.start[i]
		for i < len(b.list) && !b.spent[i] {
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
func (b *build) fill(ctx context.Context, origins []*origin, fetch Fetcher) (right bool, err error) {
	b.ready = newFrontier(len(b.list))
	for i, c := range b.list {
		if b.spent[i] = b.spent[i] || c.Hole(); b.spent[i] {
			b.ready.mark(i)
		}
	}
	hash := b.resume(origins)
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, b.ready.stop)
	defer stop()
	g.Go(func() error {
		sum, trail, err := b.sum(ctx, hash)
		right, b.trail = err == nil && sum == b.e.Digest, trail
		return err
	})
	same := true
	g.Go(func() error {
		for _, o := range origins {
			if err := b.copyFrom(ctx, o); err != nil {
				return err
			}
			if b.begun > 0 { // what the first one does not give up may come from the next
				now, err := o.file.stat()
				same = same && err == nil && now.same(o.st)
			}
		}
		if err := b.reserve(); err != nil {
			return err
		}
		return b.fetch(ctx, fetch)
	})
	err = g.Wait()
	return right && same, err
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
		if (b.doubt || places[c.Digest][0] < b.begun) && events.Sum(body) != c.Digest {
			return events.ErrDigest
		}
		for _, i := range places[c.Digest] {
			if _, err := b.part.WriteAt(body, b.start[i]); err != nil {
				disk.CompareAndSwap(nil, &err)
				return err
			}
			b.ready.mark(i)
			if err := b.wrote(c.Size); err != nil {
				disk.CompareAndSwap(nil, &err)
				return err
			}
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

// wrote makes what was written durable, if that and what was written before are
// much.
func (b *build) wrote(n int64) error {
	if b.loose.Add(n) < syncStep {
		return nil
	}
	b.loose.Store(0)
	return b.synced(b.part.datasync())
}

// synced takes what a sync of the part returned. After a failed one the kernel
// takes the pages for clean: what is there cannot be trusted, however often it is
// synced, and must not be there for the next try.
func (b *build) synced(err error) error {
	if err == nil {
		return nil
	}
	return errors.Join(err, b.t.parts.remove(b.e.Path))
}

// sum hashes the part, as far as it is ready, from where h is on.
func (b *build) sum(ctx context.Context, h *events.TrailHash) (sum events.Digest, trail events.Trail, err error) {
	buf := make([]byte, 1<<20)
	zeros := make([]byte, 64<<10)
	for i, c := range b.list[b.begun:] {
		i += b.begun
		if !b.ready.wait(i) {
			return sum, nil, ctx.Err()
		}
		h.Chunk()
		for off := int64(0); off < c.Size; {
			if err := ctx.Err(); err != nil {
				return sum, nil, err
			}
			piece := zeros[:min(int64(len(zeros)), c.Size-off)]
			if !c.Hole() {
				piece = buf[:min(int64(len(buf)), c.Size-off)]
				if _, err := b.part.ReadAt(piece, b.start[i]+off); err != nil {
					return sum, nil, err
				}
			}
			_, _ = h.Write(piece)
			off += int64(len(piece))
		}
	}
	sum, trail = h.Sum()
	return sum, trail, nil
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
