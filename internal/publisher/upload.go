package publisher

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"treecast/internal/events"
	"treecast/internal/source"
	"treecast/internal/stream"
)

// errLarge is why a file's body is not read in its round: it goes to the bucket
// in chunks, beside the rounds.
var errLarge = errors.New("its body is uploaded in chunks")

// uploads read large files and store their chunks beside the rounds, so that
// small changes do not wait for them. A file's entry is published when its
// upload has ended, and every chunk that it names is acked. All but done belongs
// to the goroutine that runs rounds.
type uploads struct {
	s      *session
	bucket *stream.Bucket
	g      *errgroup.Group
	ctx    context.Context
	slots  *semaphore.Weighted
	jobs   map[events.Path]*upload
	done   chan *upload // those that ended
	trails trails
	wants  chan stream.Want
}

// An upload is one file on its way to the bucket.
type upload struct {
	change  change
	average uint32
	known   bool            // an earlier version was published in chunks
	mend    []events.Digest // chunks that a node could not use: looked at, and stored anew
	pinned  pinned
	cancel  context.CancelFunc
	ended   chan struct{}
	since   uint64 // see task; owned by the goroutine that runs rounds
	began   time.Time
	stored  atomic.Int64 // bytes that went to the bucket

	meta   source.Meta // what was read; err, or the rest is set when it has ended
	packed events.PackedList
	err    error
}

// uploadSlots is how many files are read at once; each has several chunks on
// their way.
const uploadSlots = 2

func newUploads(ctx context.Context, s *session, bucket *stream.Bucket, g *errgroup.Group) *uploads {
	return &uploads{
		s: s, bucket: bucket, g: g, ctx: ctx, slots: semaphore.NewWeighted(uploadSlots),
		jobs: make(map[events.Path]*upload), done: make(chan *upload, 1), wants: make(chan stream.Want, 16),
	}
}

// Start uploads c's file, unless the same state of it is under way. Another one
// is given up first: what it stored is not stored again.
func (u *uploads) Start(c change, mend []events.Digest) {
	path := c.meta.Entry.Path
	before := u.jobs[path]
	since := c.task.since
	if before != nil {
		since = min(since, before.since)
		before.since = since
		if before.change.meta.Same(c.meta) {
			return
		}
		before.cancel()
	}
	ctx, cancel := context.WithCancel(u.ctx)
	r := u.s.index.Get(path)
	j := &upload{
		change: c, average: r.averageFor(c.meta.Entry.Size), known: r != nil && r.average != 0, mend: mend,
		pinned: pinned{path: path}, cancel: cancel, ended: make(chan struct{}), since: since, began: time.Now(),
	}
	u.jobs[path] = j
	u.g.Go(func() error {
		defer cancel()
		defer close(j.ended)
		if before != nil {
			<-before.ended
		}
		if j.err = u.slots.Acquire(ctx, 1); j.err == nil {
			j.err = u.run(ctx, j)
			u.slots.Release(1)
		}
		select {
		case u.done <- j:
			return nil
		case <-u.ctx.Done():
			return u.ctx.Err()
		}
	})
}

// Left reports whether an upload is under way by a hint of that generation or an
// older one.
func (u *uploads) Left(generation uint64) bool {
	for _, j := range u.jobs {
		if j.since <= generation {
			return true
		}
	}
	return false
}

// run stores what the bucket does not have, the list last.
func (u *uploads) run(ctx context.Context, j *upload) error {
	if err := u.s.settled(j.change); err != nil {
		return err
	}
	was, err := u.was(ctx, j)
	if err != nil {
		return err
	}
	there := make(map[events.Digest]bool, len(was.List))
	for _, c := range was.List {
		there[c.Digest] = len(j.mend) == 0 // else the bucket has lost something: maybe more than one node has seen
	}
	meta, body, err := u.s.src.Chunk(ctx, j.change.meta.Entry.Path, j.average, was, func(ctx context.Context, piece source.Piece) error {
		if there[piece.Chunk.Digest] {
			return nil
		}
		return u.store(ctx, j, piece.Chunk.Digest, func() ([]byte, bool) { return u.s.codec.PackChunk(piece.Body) },
			func(data []byte, compressed bool) bool {
				_, err := u.s.codec.OpenChunk(piece.Chunk, data, compressed, nil)
				return err == nil
			})
	})
	if err != nil {
		return err
	}
	u.trails.put(meta.Entry.Digest, body.Trail)
	j.meta, j.packed = meta, u.s.codec.PackList(body.List)
	if j.packed.Digest == nil {
		return nil
	}
	// It is compressed, and packing the same list again gives the same bytes.
	return u.store(ctx, j, *j.packed.Digest, func() ([]byte, bool) { return j.packed.Object, true },
		func(data []byte, _ bool) bool { return slices.Equal(data, j.packed.Object) })
}

// was returns the version that is published, if that was cut with the same
// average. All of it is pinned while it is published: the bucket has it, and goes
// on to.
func (u *uploads) was(ctx context.Context, j *upload) (body source.Body, err error) {
	if !j.known {
		return body, nil
	}
	path := j.change.meta.Entry.Path
	e, d, err := u.s.collection.catalog.chunked(ctx, path)
	if err != nil || d == nil || e.Average != j.average {
		return body, err
	}
	list, err := u.s.collection.catalog.list(ctx, &e, d.Payload)
	if err != nil {
		return body, ctx.Err() // it is cut, and looked up, as if it were new
	}
	for _, c := range list {
		if c.Hole() {
			continue
		}
		if err := u.s.collection.pins.Pin(ctx, &j.pinned, c.Digest); err != nil {
			return body, err
		}
	}
	if now, err := u.s.conn.Entry(ctx, u.s.Site, path); err != nil || now == nil || now.Seq != d.Seq {
		return body, err
	}
	return source.Body{List: list, Trail: u.trails.get(e.Digest)}, nil
}

// keepFull is how long what an upload has stored that found no more room is kept
// from what makes room, for the next attempt. That keeps what it needs of it
// itself.
const keepFull = 2 * longestFull

// store puts one object where the bucket lacks it, or, if a node could not use
// it, where it is not good.
func (u *uploads) store(ctx context.Context, j *upload, name events.Digest, pack func() ([]byte, bool), good func([]byte, bool) bool) error {
	if err := u.s.collection.pins.Pin(ctx, &j.pinned, name); err != nil {
		return err
	}
	have, err := u.bucket.Lookup(ctx, []events.Digest{name})
	if err != nil {
		return err
	}
	o, there := have[name]
	if there && slices.Contains(j.mend, name) { // what a replica that lags still has does not count
		there = false
		err := u.s.conn.Bodies(u.s.Site).Get(ctx, []events.Digest{name}, func(_ int, data []byte, compressed bool) error {
			there = good(data, compressed)
			return nil
		})
		if err != nil && !errors.Is(err, stream.ErrNoObject) {
			return err
		}
	}
	if there {
		if o.Unnamed.IsZero() {
			return nil
		}
		err := u.bucket.SetUnnamed(ctx, o, time.Time{})
		if errors.Is(err, stream.ErrChanged) || errors.Is(err, stream.ErrFull) {
			return nil // changed by another upload, which pins it too; a mark that stays only costs the grace
		}
		return err
	}
	data, compressed := pack()
	j.stored.Add(int64(len(data)))
	return u.bucket.Put(ctx, name, data, compressed)
}

// uploaded publishes the entry of an upload that has ended, or puts its path back.
func (s *session) uploaded(ctx context.Context, j *upload) error {
	path := j.change.meta.Entry.Path
	keep, published := time.Duration(0), false
	defer func() {
		if published || keep > 0 {
			s.collection.pins.Forget(func(p events.Path) bool { return p == path })
		}
		s.collection.pins.Release(&j.pinned, keep)
		if !published {
			s.collection.Stir() // what it stored may have no name
		}
	}()
	if s.uploads.jobs[path] != j {
		return nil // a newer state of it is under way
	}
	delete(s.uploads.jobs, path)
	if now, err := s.src.Lstat(path); j.err == nil && (err != nil || !now.Same(j.meta)) {
		// What it is since, or that it is gone, may be published already.
		s.dirty.Again(source.Hint{Path: path})
		return nil
	}
	out := outgoing{change: j.change, entry: j.meta.Entry, err: j.err}
	out.change.task.since = j.since
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(j.err, stream.ErrNoStream), errors.Is(j.err, stream.ErrWentBack):
		return errors.Join(errAgain, j.err)
	case errors.Is(j.err, stream.ErrFenced):
		return j.err
	case errors.Is(j.err, stream.ErrFull):
		keep = keepFull
		s.collection.MakeRoom(path)
	case j.err == nil:
		out.entry.Epoch, out.entry.List = s.lease.Epoch(), j.packed.Digest
		if from, ok := s.index.WithBody(out.entry.Digest); ok && from != path {
			out.entry.From = &from
		}
		out.message, out.err = s.message(&out.entry, j.packed.Payload)
		s.inodes.put(j.meta)
	}
	n := sent{began: j.began, uploaded: j.stored.Load()}
	start := time.Now()
	if err := s.sendBlock(ctx, []outgoing{out}, &n); err != nil {
		return err
	}
	if published = n.entries > 0; published {
		s.Log.Info("published", "entries", n.entries, "path", strconv.Quote(path.String()), "bytes", j.meta.Entry.Size,
			"seq", s.lease.LastSeq(), "elapsed", time.Since(start))
	}
	return s.seal(ctx, false, &sent{began: start})
}

// mend looks after chunks of a path that a node could not use.
func (s *session) mend(w stream.Want) {
	r := s.index.Get(w.Path)
	if r == nil || r.average == 0 || s.uploads.jobs[w.Path] != nil {
		return
	}
	m, err := s.src.Lstat(w.Path)
	if err != nil || m.Entry.Kind != events.File {
		s.dirty.Hint([]source.Hint{{Path: w.Path}})
		return
	}
	s.Log.Info("a node wants chunks", "node", strconv.Quote(w.Node), "path", strconv.Quote(w.Path.String()), "chunks", len(w.Digests))
	s.uploads.Start(change{meta: m, task: task{path: w.Path}}, w.Digests)
}
