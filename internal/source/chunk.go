package source

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

// A Piece is one chunk of a file that is being read.
type Piece struct {
	Index int // in the chunk list
	Chunk events.Chunk
	Body  []byte
}

// chunkers is how many chunks of one file are hashed and handed on at once.
const chunkers = 4

// minHole is the least hole that is told of; a smaller one is read as zeros.
const minHole = 128 << 10

// lookEvery is how many bytes are read between two looks at whether the file
// changed: what is being written is not read to its end in vain.
const lookEvery = 64 << 20

// Chunk is [Tree.Read] for a file of more than [events.MaxInlineBytes]: it reads
// it in chunks of that average size (see [events.AverageFor]), and returns its
// entry with the digest of the whole, and its chunk list. Memory is bounded, by
// some thirty times the average, however large the file is. A hole of at least
// 128 KiB is not read and is a hole in the list.
//
// put is called for every chunk that is no hole, from several goroutines at
// once and in no order; its body is the caller's again when put returns. An
// error of put ends the reading and is returned as it is. What put was told of
// stood in the file together only if Chunk returns no error.
//
// Errors are those of Read; a file that is no longer so large is [ErrUnstable],
// and one whose list would be too long is skipped as TooLarge.
func (t *Tree) Chunk(ctx context.Context, p events.Path, average uint32, put func(context.Context, Piece) error) (Meta, events.ChunkList, error) {
	fd, opened, err := t.openSettled(p)
	if err != nil {
		return Meta{}, nil, err
	}
	defer unix.Close(fd)
	if opened.Entry.Size <= events.MaxInlineBytes {
		return Meta{}, nil, ErrUnstable
	}
	_ = unix.Fadvise(fd, 0, 0, unix.FADV_SEQUENTIAL) // advice
	r := &chunkReader{t: t, p: p, fd: fd, opened: opened, average: average, sum: sha256.New()}
	if err := r.run(ctx, put); err != nil {
		return Meta{}, nil, err
	}
	after, err := t.Lstat(p)
	if err != nil {
		return Meta{}, nil, err
	}
	if !same(opened, after) {
		return Meta{}, nil, ErrUnstable
	}
	r.sum.Sum(after.Entry.Digest[:0])
	after.Entry.Body, after.Entry.Average = events.ChunksBody, average
	return after, r.list, nil
}

// A chunkReader is one call of Chunk: one goroutine reads and cuts, one hashes
// the whole in order, and some hash and hand on the chunks.
type chunkReader struct {
	t       *Tree
	p       events.Path
	fd      int
	opened  Meta
	average uint32

	sum  hash.Hash // of the goroutine that hashes the whole
	list events.ChunkList
	mu   sync.Mutex // guards list's elements, and its growth
}

// A cut is a chunk on its way to both who need it. body is nil for a hole.
type cut struct {
	index int
	size  int64
	body  []byte
	users sync.WaitGroup
}

func (r *chunkReader) run(ctx context.Context, put func(context.Context, Piece) error) error {
	const inFlight = 2 * chunkers
	free := make(chan []byte, inFlight)
	for range inFlight {
		free <- nil
	}
	whole, single := make(chan *cut, inFlight), make(chan *cut, inFlight)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(whole)
		defer close(single)
		return r.read(ctx, free, whole, single)
	})
	g.Go(func() error {
		zeros := make([]byte, 64<<10)
		for c := range whole {
			if c.body != nil {
				r.sum.Write(c.body)
				c.users.Done()
				continue
			}
			for left := c.size; left > 0 && ctx.Err() == nil; left -= min(left, int64(len(zeros))) {
				r.sum.Write(zeros[:min(left, int64(len(zeros)))])
			}
		}
		return ctx.Err()
	})
	for range chunkers {
		g.Go(func() error {
			for c := range single {
				piece := Piece{c.index, events.Chunk{Digest: events.Sum(c.body), Size: c.size}, c.body}
				r.set(piece.Index, piece.Chunk)
				err := put(ctx, piece)
				c.users.Done()
				if err != nil {
					return err
				}
				c.users.Wait()
				free <- c.body // has room for each that was taken
			}
			return nil
		})
	}
	return g.Wait()
}

func (r *chunkReader) set(i int, c events.Chunk) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list[i] = c
}

// grow makes room for one more chunk and returns its index.
func (r *chunkReader) grow() (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.list) == events.MaxChunks {
		return 0, &SkipError{r.p.String(), TooLarge}
	}
	r.list = append(r.list, events.Chunk{})
	return len(r.list) - 1, nil
}

// read goes through the file, one stretch of data or hole after the other.
func (r *chunkReader) read(ctx context.Context, free chan []byte, whole, single chan<- *cut) error {
	size := r.opened.Entry.Size
	for at := int64(0); at < size; {
		end, hole := r.stretch(at)
		if hole {
			i, err := r.grow()
			if err != nil {
				return err
			}
			c := &cut{index: i, size: end - at}
			r.set(i, events.Chunk{Size: c.size})
			if err := hand(ctx, whole, c); err != nil {
				return err
			}
			at = end
			continue
		}
		if err := r.readData(ctx, at, end, free, whole, single); err != nil {
			return err
		}
		at = end
	}
	// The byte too many shows that the file grew.
	n, err := retry(func() (int, error) { return unix.Pread(r.fd, make([]byte, 1), size) })
	if err != nil {
		return &PathError{"read", r.p, err}
	}
	if n != 0 {
		return ErrUnstable
	}
	return nil
}

// stretch says how far what is at offset at reaches, and whether it is a hole
// worth telling of.
func (r *chunkReader) stretch(at int64) (end int64, hole bool) {
	size := r.opened.Entry.Size
	from := at
	for {
		data, err := unix.Seek(r.fd, from, unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO): // none until the end
			data = size
		case err != nil: // the file system cannot say
			return size, false
		}
		data = min(data, size)
		if data-from >= minHole {
			if from == at {
				return data, true
			}
			return from, false
		}
		if data == size {
			return size, false
		}
		next, err := unix.Seek(r.fd, data, unix.SEEK_HOLE)
		if err != nil || next >= size {
			return size, false
		}
		if next <= from { // it changes under our hands, which is found out
			return size, false
		}
		from = next
	}
}

// readData cuts what is from at to end.
func (r *chunkReader) readData(ctx context.Context, at, end int64, free chan []byte, whole, single chan<- *cut) error {
	chunker, err := events.NewChunker(&stretchReader{r: r, ctx: ctx, at: at, end: end}, r.average)
	if err != nil {
		return err
	}
	for {
		b, err := chunker.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		i, err := r.grow()
		if err != nil {
			return err
		}
		var body []byte
		select {
		case body = <-free:
		case <-ctx.Done():
			return ctx.Err()
		}
		if cap(body) < len(b) {
			body = make([]byte, 0, 2*int(r.average)) // no chunk is larger
		}
		c := &cut{index: i, size: int64(len(b)), body: append(body[:0], b...)}
		c.users.Add(2)
		if err := hand(ctx, whole, c); err != nil {
			return err
		}
		if err := hand(ctx, single, c); err != nil {
			return err
		}
	}
}

func hand(ctx context.Context, to chan<- *cut, c *cut) error {
	select {
	case to <- c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A stretchReader reads a part of the file, and looks now and then whether that
// is still what it was.
type stretchReader struct {
	r       *chunkReader
	ctx     context.Context
	at, end int64
	since   int64 // bytes since the last look
}

func (s *stretchReader) Read(b []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	if s.at >= s.end {
		return 0, io.EOF
	}
	if s.since >= lookEvery {
		s.since = 0
		now, err := s.r.t.fstat(s.r.p, s.r.fd)
		if err != nil {
			return 0, err
		}
		if !same(s.r.opened, now) {
			return 0, ErrUnstable
		}
	}
	b = b[:min(int64(len(b)), s.end-s.at)]
	n, err := retry(func() (int, error) { return unix.Pread(s.r.fd, b, s.at) })
	if err != nil {
		return 0, &PathError{"read", s.r.p, err}
	}
	if n == 0 {
		return 0, ErrUnstable // it shrank
	}
	s.at += int64(n)
	s.since += int64(n)
	return n, nil
}
