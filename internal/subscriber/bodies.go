package subscriber

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"treecast/internal/events"
	"treecast/internal/stream"
)

// bodies gets the chunks of one path's body from the bucket. What is missing
// there, or is not what its name says, the publisher is asked to put right; the
// path keeps what it has until then.
type bodies struct {
	*subscriber
	path  events.Path
	bytes int64  // that came
	room  []byte // for what is unpacked
}

// Fetch is apply.Fetcher.
func (b *bodies) Fetch(ctx context.Context, chunks []events.Chunk, got func(events.Chunk, []byte) error) error {
	digests := make([]events.Digest, len(chunks))
	for i, c := range chunks {
		digests[i] = c.Digest
	}
	return b.get(ctx, digests, func(i int, data []byte, compressed bool) error {
		if n := chunks[i].Size; compressed && int64(cap(b.room)) < n {
			b.room = make([]byte, 0, n+n/4)
		}
		body, err := b.codec.UnpackChunk(chunks[i], data, compressed, b.room)
		if err != nil {
			return err
		}
		return got(chunks[i], body)
	})
}

// get is Bodies.Get, with a second try for what fn finds to be altered.
func (b *bodies) get(ctx context.Context, digests []events.Digest, fn func(i int, data []byte, compressed bool) error) error {
	var bad []events.Digest
	place := make(map[events.Digest]int, len(digests))
	for i, d := range digests {
		place[d] = i
	}
	left := digests
	var err error
	for range 2 {
		bad = nil
		err = b.bucket.Get(ctx, left, func(i int, data []byte, compressed bool) error {
			b.bytes += int64(len(data)) // fn has one caller at a time
			err := fn(place[left[i]], data, compressed)
			if errors.Is(err, events.ErrDigest) || errors.Is(err, events.ErrFrame) {
				bad = append(bad, left[i])
				return nil
			}
			return err
		})
		var missing *stream.MissingError
		if err != nil && !errors.As(err, &missing) {
			return err
		}
		if missing != nil {
			bad = append(bad, missing.Digests...)
		}
		if left = bad; len(left) == 0 {
			return nil
		}
	}
	if werr := b.bucket.Want(ctx, b.Node, b.path, left); werr != nil {
		b.Log.Debug("publisher not asked for chunks", "path", strconv.Quote(b.path.String()), "err", werr)
	}
	return fmt.Errorf("%w: %d of them, the first is %s", errBadChunks, len(left), left[0])
}

// errBadChunks holds a path: the bucket has not, or not right, what its body is
// made of. The publisher was asked to mend that.
var errBadChunks = errors.New("chunks are missing or altered in the bucket, the publisher was asked for them")

// stageLarge stages an item whose body is in chunks.
func (it *item) stageLarge(ctx context.Context, s *subscriber) {
	b := &bodies{subscriber: s, path: it.entry.Path}
	var list events.ChunkList
	if list, it.err = b.list(ctx, &it.entry, it.delivery.Payload); it.err == nil {
		it.staged, it.err = s.tree.StageChunks(ctx, &it.entry, list, b)
	}
	it.fetched = b.bytes
}

// list opens the chunk list, in the message or in the bucket.
func (b *bodies) list(ctx context.Context, e *events.Entry, payload []byte) (list events.ChunkList, err error) {
	if e.List == nil {
		return b.codec.List(e, payload)
	}
	err = b.get(ctx, []events.Digest{*e.List}, func(_ int, data []byte, _ bool) (err error) {
		list, err = b.codec.ListObject(e, bytes.NewReader(data))
		return err
	})
	return list, err
}
