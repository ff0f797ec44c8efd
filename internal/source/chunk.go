package source

import (
	"context"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

// A Piece is one chunk of a file that is being read: Body has Chunk.Size bytes,
// which hash to Chunk.Digest. Index is its place in the chunk list, where holes
// count too.
type Piece struct {
	Index int
	Chunk events.Chunk
	Body  []byte
}

// A Body is what is known of a file's bytes: the list of its chunks, and the
// trail of its digest, which may be nil.
type Body struct {
	List  events.ChunkList
	Trail events.Trail
}

// Chunk reads the regular file at p, of more than [events.MaxInlineBytes], and
// returns its entry, with digest, size, average and body, and what its body is:
// [events.ParseChunkList] accepts the list. It is the read protocol of
// [Tree.Read]: what Chunk returned without an error stood in the file together.
// Until then nothing is known of what put was given, but that each piece is
// what its digest says.
//
// was, zero if there is none, is an earlier version that was cut with that
// average. Where the file still has a chunk of it, that is found by its digest,
// without looking for the cut; and of the chunks that it begins with, which are
// known to be the same then, the digest is not made again. The result is the same
// as without was, and sooner there.
//
// average is what [events.NewChunker] takes, in bytes. A hole of 128 KiB or
// more is a hole in the list, and not read, where the file system can tell; the
// data between two of them is cut by itself. Smaller ones are read as zeros.
//
// put is called once for every chunk that is not a hole, also for those that
// are alike, by up to four goroutines at once and in no order. Body is its own
// only during the call. Its context ends with ctx, or when the reading ended
// for any reason. When Chunk returns, every call has. An error of put ends the
// reading and is returned as it is; so does the end of ctx, with ctx.Err().
//
// The memory it needs does not grow with the file, but for the list's 40 bytes
// a chunk: 8 MiB a call for an average of 512 KiB, 17 MiB for the largest. While
// it reads it looks at the file again every 64 MiB, so that one that is being
// written is not read to its end in vain.
//
// Errors: those of [Tree.Read], with [ErrUnstable] also for a file that is no
// longer large, and TooLarge for one that cannot be in [events.MaxChunks]
// chunks; [events.ErrChunks] for an average that no chunker takes.
func (t *Tree) Chunk(ctx context.Context, p events.Path, average uint32, was Body, put func(context.Context, Piece) error) (Meta, Body, error) {
	return t.chunk(ctx, p, average, was, events.MaxChunks, put)
}

// chunk is Chunk with a limit of its own for the list.
func (t *Tree) chunk(ctx context.Context, p events.Path, average uint32, was Body, most int, put func(context.Context, Piece) error) (Meta, Body, error) {
	fd, opened, err := t.begin(p)
	if err != nil {
		return Meta{}, Body{}, err
	}
	defer unix.Close(fd)
	switch size := opened.Entry.Size; {
	case size <= events.MaxInlineBytes:
		return Meta{}, Body{}, ErrUnstable // it was larger a moment ago
	case size > events.MaxBodyBytes:
		return Meta{}, Body{}, &SkipError{p.String(), TooLarge}
	}
	if settled, known := t.probe(fd); known && !settled {
		return Meta{}, Body{}, ErrBusy
	}
	_ = unix.Fadvise(fd, 0, 0, unix.FADV_SEQUENTIAL) // a hint: without it the file is read all the same
	r, err := newReading(t, p, fd, opened, average, was, most, put)
	if err != nil {
		return Meta{}, Body{}, err
	}
	if err := r.run(ctx); err != nil {
		return Meta{}, Body{}, err
	}
	if err := ctx.Err(); err != nil {
		return Meta{}, Body{}, err // put may have had no use for it
	}
	after, err := t.end(p, opened)
	if err != nil {
		return Meta{}, Body{}, err
	}
	after.Entry.Digest = r.digest
	after.Entry.Body = events.ChunksBody
	after.Entry.Average = average
	return after, Body{r.list, r.trail}, nil
}
