package source

import (
	"context"
	"errors"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

const (
	// putters is how many goroutines hash chunks and put them.
	putters = 4

	// inFlight is how many pieces have been read and are not done with: one
	// for each putter, one that the whole is hashed of, one that is read. Of
	// the largest ones it is fewer: the collector may double what they take.
	inFlight      = putters + 2
	inFlightBytes = 12 << 20

	// readBytes is the most that is read at once: nothing ends a read that
	// waits for the disk.
	readBytes = 1 << 20

	// lookBytes is how far the file is read between two looks at whether it is
	// still the same.
	lookBytes = 64 << 20
)

// A reading is one run of [Tree.Chunk]. One goroutine reads, cuts and copies,
// one hashes the whole file in order, and putters hash each chunk and put it:
// the two hashes are most of the work, and neither waits for the other.
type reading struct {
	tree    *Tree
	path    events.Path
	fd      int
	opened  Meta
	average uint32
	was     Body
	most    int // chunks
	put     func(context.Context, Piece) error

	// The reader's.
	extents extents
	cutter  *events.Chunker // none has been cut with it yet; nil: make another
	source  *section        // what cutter reads
	guess   guess

	// From the reader to the others. Both channels have room for all that can
	// be in flight: sending never waits.
	slots  chan struct{} // one is taken for each piece in flight
	whole  chan *flight  // all pieces, in order
	chunks chan *flight  // those that are not holes

	// The one that hashes the whole.
	digest events.Digest
	trail  events.Trail

	// The reader appends, putters fill in the digests.
	mu   sync.Mutex
	list events.ChunkList
}

func newReading(t *Tree, p events.Path, fd int, opened Meta, average uint32, was Body, most int, put func(context.Context, Piece) error) (*reading, error) {
	r := &reading{
		tree: t, path: p, fd: fd, opened: opened, average: average, most: most, put: put,
		extents: extents{size: opened.Entry.Size, seek: func(off int64, whence int) (int64, error) {
			return unix.Seek(fd, off, whence) // a regular file's does not wait: never EINTR
		}},
		was:    was,
		source: &section{},
		guess:  newGuess(was.List, average),
		whole:  make(chan *flight, inFlight),
		chunks: make(chan *flight, inFlight),
	}
	var err error
	if r.cutter, err = events.NewChunker(r.source, average); err != nil { // even if all is a hole: average must be right
		return nil, err
	}
	r.slots = make(chan struct{}, min(inFlight, inFlightBytes/(2*int(average))))
	return r, nil
}

// run reads the file to its end and returns when all of it is hashed and put,
// or after the first error.
func (r *reading) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.read(ctx) })
	g.Go(func() error { return r.hashWhole(ctx) })
	for range putters {
		g.Go(func() error { return r.putChunks(ctx) })
	}
	return g.Wait()
}

// read reads exactly the file's size, and then its end.
func (r *reading) read(ctx context.Context) error {
	defer close(r.whole)
	defer close(r.chunks)
	if err := r.mayFit(ctx); err != nil {
		return err
	}
	for at := int64(0); at < r.extents.size; {
		end, hole, err := r.extents.next(at)
		switch {
		case err != nil:
			return r.seekError(err)
		case hole:
			if err = r.room(ctx); err == nil {
				err = r.send(&flight{size: end - at})
			}
		default:
			err = r.cut(ctx, section{ctx: ctx, path: r.path, fd: r.fd, at: at, end: end})
		}
		if err != nil {
			return err
		}
		at = end
	}
	var tooMany [1]byte
	n, err := pread(r.path, r.fd, tooMany[:], r.extents.size)
	if err == nil && n != 0 {
		err = ErrUnstable // it grew
	}
	return err
}

// mayFit finds by its holes alone that a file is too large, rather than after
// all that fits has been read and put.
func (r *reading) mayFit(ctx context.Context) error {
	// A chunk has minHole at least, but for the last before each hole.
	if r.extents.size/minHole*2 < int64(r.most) {
		return nil
	}
	for at, n := int64(0), int64(0); at < r.extents.size; {
		end, hole, err := r.extents.next(at)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return r.seekError(err)
		}
		if largest := 2 * int64(r.average); hole {
			n++
		} else {
			n += (end - at + largest - 1) / largest
		}
		if n > int64(r.most) {
			return &SkipError{r.path.String(), TooLarge}
		}
		at = end
	}
	return nil
}

// seekError is err with the path if it is the file system's.
func (r *reading) seekError(err error) error {
	if errno := unix.Errno(0); errors.As(err, &errno) {
		return &PathError{"read", r.path, err}
	}
	return err
}

// cut reads a section that has data and sends it on in chunks.
func (r *reading) cut(ctx context.Context, s section) error {
	var last *flight // came as guessed; whether it ends there, the next one tells
	looks := lookout{r: r, s: s}
	defer looks.stop()
	for s.at < s.end {
		if err := looks.ahead(ctx); err != nil {
			return err
		}
		f, known, err := looks.next()
		if err != nil {
			return err
		}
		if known {
			if last != nil {
				if err := r.send(last); err != nil {
					return err
				}
			}
			last = f
			s.at += f.size
			continue
		}
		if last != nil {
			r.free(f)
			s.at -= last.size
			f, last = last, nil
		}
		if s.at, err = r.search(ctx, s, f); err != nil {
			return err
		}
		looks.s.at = s.at
	}
	return nil
}

// search sends chunks of a section that a chunker cuts, until one of them is of
// the list that is known, or the section ends. f has the first one's room. It
// returns where it is then.
func (r *reading) search(ctx context.Context, s section, f *flight) (at int64, err error) {
	if left := s.end - s.at; left <= int64(r.average)/4 {
		// No chunker would cut it, and each would be new.
		f.size, f.sum = left, events.Digest{}
		if err := s.look(f.body()); err != nil {
			return 0, err
		}
		return s.end, r.send(f)
	}
	cutter := r.cutter
	if r.cutter = nil; cutter == nil {
		if cutter, err = events.NewChunker(r.source, r.average); err != nil {
			return 0, err
		}
	}
	at = s.at
	*r.source = s
	for known := false; !known; {
		chunk, err := cutter.Next()
		if err == io.EOF { //nolint:errorlint // what Next promises
			break
		}
		if err != nil {
			return 0, err
		}
		if f == nil {
			if err := r.room(ctx); err != nil {
				return 0, err
			}
			f = &flight{buf: r.buffer()}
		}
		f.size = int64(len(chunk))
		copy(f.body(), chunk)
		f.sum, known = r.guess.found(chunk)
		if err := r.send(f); err != nil {
			return 0, err
		}
		at += f.size
		f = nil
	}
	return at, nil
}

// send gives the next piece its place in the list, and hands it on to those that
// hash it.
func (r *reading) send(f *flight) error {
	r.mu.Lock()
	if len(r.list) == r.most {
		r.mu.Unlock()
		return &SkipError{r.path.String(), TooLarge}
	}
	f.index = len(r.list)
	r.list = append(r.list, events.Chunk{Size: f.size})
	r.mu.Unlock()
	if f.buf == nil {
		f.users.Store(1)
	} else {
		f.users.Store(2)
		r.chunks <- f
	}
	r.whole <- f
	return nil
}

// hashWhole makes the digest of the file's bytes, those of holes included, and
// looks now and then whether it is still the same file.
func (r *reading) hashWhole(ctx context.Context) error {
	var whole *events.TrailHash // nil as long as the file is as it was
	alike, at := 0, int64(0)    // chunks and bytes that it begins with
	unseen := int64(0)          // bytes since the last look
	for f := range r.whole {
		if unseen += f.size; unseen >= lookBytes {
			unseen = 0
			if _, err := r.tree.end(r.path, r.opened); err != nil {
				return err
			}
		}
		if whole == nil && f.is(r.was, alike) {
			alike, at = alike+1, at+f.size
			r.land(f)
			continue
		}
		if whole == nil {
			var err error
			if whole, err = r.resume(ctx, alike, at); err != nil {
				return err
			}
		}
		whole.Chunk()
		if f.buf != nil {
			_, _ = whole.Write(f.body()) // never fails
		} else if err := writeZeros(ctx, whole, f.size); err != nil {
			return err
		}
		r.land(f)
	}
	if whole == nil {
		var err error
		if whole, err = r.resume(ctx, alike, at); err != nil {
			return err
		}
	}
	r.digest, r.trail = whole.Sum()
	return nil
}

// resume returns the hash of the chunks that the file begins with as before, at
// bytes: of those behind the trail's last place that fits, which are few as a
// rule, it reads the bytes again.
func (r *reading) resume(ctx context.Context, alike int, at int64) (*events.TrailHash, error) {
	whole, from := r.was.Trail.Resume(r.was.List[:alike])
	again := r.was.List[from:alike]
	for _, c := range again {
		at -= c.Size
	}
	buf := make([]byte, min(readBytes, 2*int(r.average)))
	for _, c := range again {
		whole.Chunk()
		if c.Hole() {
			if err := writeZeros(ctx, whole, c.Size); err != nil {
				return nil, err
			}
		} else if _, err := io.CopyBuffer(whole, &section{ctx, r.path, r.fd, at, at + c.Size}, buf); err != nil {
			return nil, err
		}
		at += c.Size
	}
	return whole, nil
}

func writeZeros(ctx context.Context, w io.Writer, n int64) error {
	zeros := make([]byte, min(n, minHole))
	for ; n > 0; n -= int64(len(zeros)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, _ = w.Write(zeros[:min(n, int64(len(zeros)))])
	}
	return nil
}

// putChunks hashes chunks and puts them.
func (r *reading) putChunks(ctx context.Context) error {
	for f := range r.chunks {
		if err := ctx.Err(); err != nil {
			return err
		}
		body := f.body()
		c := events.Chunk{Digest: f.sum, Size: f.size}
		if f.sum == (events.Digest{}) {
			c.Digest = events.Sum(body)
		}
		r.mu.Lock()
		r.list[f.index] = c
		r.mu.Unlock()
		if err := r.put(ctx, Piece{Index: f.index, Chunk: c, Body: body}); err != nil {
			return err
		}
		r.land(f)
	}
	return nil
}
