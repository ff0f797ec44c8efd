package subscriber

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"treecast/internal/apply"
	"treecast/internal/events"
	"treecast/internal/stream"
)

// bodies gets the chunks of one path's body from the bucket. What is missing
// there, or is not what its name says, the publisher is asked to put right; the
// path keeps what it has until then.
type bodies struct {
	*subscriber
	path events.Path
}

// Fetch is apply.Fetcher.
func (b *bodies) Fetch(ctx context.Context, chunks []events.Chunk, got func(events.Chunk, []byte) error) error {
	digests := make([]events.Digest, len(chunks))
	for i, c := range chunks {
		digests[i] = c.Digest
	}
	return b.get(ctx, digests, func(i int, data []byte, compressed bool) error {
		body, err := b.codec.UnpackChunk(chunks[i], data, compressed, nil)
		if err != nil {
			return err
		}
		return got(chunks[i], body)
	})
}

// get is Bodies.Get, with a second try for what fn finds to be altered.
func (b *bodies) get(ctx context.Context, digests []events.Digest, fn func(i int, data []byte, compressed bool) error) error {
	var bad []events.Digest
	from := b.conn.Bodies(b.Site)
	place := make(map[events.Digest]int, len(digests))
	for i, d := range digests {
		place[d] = i
	}
	left := digests
	var err error
	for range 2 {
		bad = nil
		err = from.Get(ctx, left, func(i int, data []byte, compressed bool) error {
			err := fn(place[left[i]], data, compressed)
			if errors.Is(err, events.ErrDigest) || errors.Is(err, events.ErrFrame) {
				bad = append(bad, left[i]) // fn has one caller at a time
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
	if werr := from.Want(ctx, b.Node, b.path, left); werr != nil {
		b.Log.Debug("publisher not asked for chunks", "path", strconv.Quote(b.path.String()), "err", werr)
	}
	return fmt.Errorf("%w: %d of them, the first is %s", errBadChunks, len(left), left[0])
}

// errBadChunks holds a path: the bucket has not, or not right, what its body is
// made of. The publisher was asked to mend that.
var errBadChunks = errors.New("chunks are missing or altered in the bucket, the publisher was asked for them")

// stageLarge stages an entry whose body is in chunks.
func (s *subscriber) stageLarge(ctx context.Context, e *events.Entry, payload []byte) (*apply.Staged, error) {
	b := &bodies{s, e.Path}
	list, err := b.list(ctx, e, payload)
	if err != nil {
		return nil, err
	}
	return s.tree.StageChunks(ctx, e, list, b)
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
