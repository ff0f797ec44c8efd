package events

import (
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// PackChunk returns a chunk's bytes as an object has them: one zstd frame, or
// body itself where that saves less than a sixteenth, as of images and
// archives.
func (c *Codec) PackChunk(body []byte) (data []byte, compressed bool) {
	const probe = 64 << 10 // a start that does not shrink tells of the rest, at a tenth of the price
	if len(body) > 4*probe && !shrinks(len(c.Compress(body[:probe])), probe) && !shrinks(len(c.Compress(body[len(body)-probe:])), probe) {
		return body, false
	}
	if frame := c.Compress(body); shrinks(len(frame), len(body)) {
		return frame, true
	}
	return body, false
}

func shrinks(packed, size int) bool { return packed < size-size/16 }

// OpenChunk opens an object's data and returns exactly the chunk's bytes; they
// are in dst, as [Codec.Body] has them there, if its capacity is the chunk's size at
// least, and data's own if it is not compressed. Errors are [ErrFrame] and [ErrDigest]: the object is not
// what its name says.
func (c *Codec) OpenChunk(chunk Chunk, data []byte, compressed bool, dst []byte) ([]byte, error) {
	data, err := c.UnpackChunk(chunk, data, compressed, dst)
	if err == nil && Sum(data) != chunk.Digest {
		err = ErrDigest
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

// UnpackChunk is [Codec.OpenChunk] that leaves the digest to the caller: the
// bytes are as many as they should be, no more is known of them.
func (c *Codec) UnpackChunk(chunk Chunk, data []byte, compressed bool, dst []byte) ([]byte, error) {
	if compressed {
		var err error
		if data, err = c.open(data, chunk.Size, roomFor(chunk.Size, dst)); err != nil {
			return nil, err
		}
	}
	if int64(len(data)) != chunk.Size {
		return nil, ErrDigest
	}
	return data, nil
}

// A PackedList is a chunk list on its way: as the payload of its entry's
// message, or, where that is too long, as an object.
type PackedList struct {
	Payload []byte  // one zstd frame; nil: see Object
	Object  []byte  // one zstd frame; nil: see Payload
	Digest  *Digest // of the object's text, for Entry.List
}

// PackList packs l.
func (c *Codec) PackList(l ChunkList) PackedList {
	text := l.AppendText(nil)
	frame := c.list.EncodeAll(text, make([]byte, 0, len(text)/2+64))
	if len(text) <= MaxDecodedBytes && len(frame) <= MaxInlineBytes {
		return PackedList{Payload: frame}
	}
	digest := Sum(text)
	return PackedList{Object: frame, Digest: &digest}
}

// List opens the chunk list in the payload of a file's entry. Where the list is
// an object (e.List is not nil) the payload must be empty, and [Codec.ListObject]
// opens the object. Errors are [ErrFrame] and [ErrChunks], both permanent.
func (c *Codec) List(e *Entry, payload []byte) (ChunkList, error) {
	text, err := c.open(payload, -1, make([]byte, 0, MaxDecodedBytes))
	if err != nil {
		return nil, err
	}
	return ParseChunkList(text, e.Size)
}

// ListObject opens the object that e.List names. Errors are those of
// [Codec.List], and [ErrDigest] for an object that is not what its name says.
func (c *Codec) ListObject(e *Entry, data io.Reader) (ChunkList, error) {
	dec, err := zstd.NewReader(data, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(MaxListBytes)) // a frame of one segment: its size is its window
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	defer dec.Close()
	text, err := io.ReadAll(io.LimitReader(dec, MaxListBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrFrame, err)
	case len(text) > MaxListBytes:
		return nil, fmt.Errorf("%w: a text of more than %d bytes", ErrChunks, MaxListBytes)
	case Sum(text) != *e.List:
		return nil, ErrDigest
	}
	return ParseChunkList(text, e.Size)
}
