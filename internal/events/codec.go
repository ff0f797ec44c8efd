package events

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// ErrFrame reports a payload that is not one zstd frame of the entry's size
// within the limits. Permanent.
var ErrFrame = errors.New("unacceptable zstd frame")

// A Codec compresses and opens bodies. Its methods may be called from many
// goroutines at once. Close frees it.
type Codec struct {
	enc    *zstd.Encoder
	list   *zstd.Encoder // of chunk lists
	dec    *zstd.Decoder
	frames sync.Pool // *[]byte, room for a frame whose length is not known yet
}

// NewCodec returns a codec that runs at most concurrency frames of each
// direction at once.
func NewCodec(concurrency int) (*Codec, error) {
	enc, err := zstd.NewWriter(nil,
		zstd.WithEncoderConcurrency(concurrency),
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderCRC(false),   // the digest does it
		zstd.WithSingleSegment(true), // else small frames do not say their size
		zstd.WithWindowSize(1<<20),   // no inline body is larger
		zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	// The fastest level takes hexadecimal digits for incompressible.
	list, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault),
		zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(concurrency),
		zstd.WithDecodeAllCapLimit(true), // of MaxDecodedBytes at most, see Body
		zstd.WithDecoderMaxMemory(MaxWindowBytes),
		zstd.WithDecoderMaxWindow(MaxWindowBytes),
		zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	return &Codec{enc: enc, list: list, dec: dec}, nil
}

// Close frees the codec; it must not be used afterwards.
func (c *Codec) Close() {
	c.dec.Close()
	_ = c.enc.Close() // has nothing to flush
	_ = c.list.Close()
}

// Compress returns body as one zstd frame, which says its size.
func (c *Codec) Compress(body []byte) []byte {
	room, ok := c.frames.Get().(*[]byte)
	if !ok {
		room = new([]byte)
	}
	defer c.frames.Put(room)
	*room = c.enc.EncodeAll(body, slices.Grow((*room)[:0], c.enc.MaxEncodedSize(len(body))))
	return slices.Clone(*room)
}

// Body opens the payload of a file's entry and returns exactly e.Size bytes
// that hash to e.Digest; they are in dst if its capacity is that at least. It allocates at most three times [MaxDecodedBytes],
// whatever the entry or the frame claims. A body in chunks is not for it: see
// [Codec.List].
//
// Errors are [ErrFrame] and [ErrDigest], both permanent.
func (c *Codec) Body(e *Entry, payload, dst []byte) ([]byte, error) {
	switch e.Body {
	case NoBody:
		if len(payload) > 0 {
			return nil, fmt.Errorf("%w: a payload for a path without a body", ErrFrame)
		}
		return nil, nil
	case ChunksBody:
		return nil, fmt.Errorf("%w: a body in chunks", ErrFrame)
	}
	if e.Size <= 0 || e.Size > MaxDecodedBytes {
		return nil, fmt.Errorf("%w: a body of %d bytes, the limit is %d", ErrFrame, e.Size, MaxDecodedBytes)
	}
	body, err := c.open(payload, e.Size, roomFor(e.Size, dst))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) != e.Size || Sum(body) != e.Digest {
		return nil, ErrDigest
	}
	return body, nil
}

// slack is what zstd's decoder needs behind a body to copy 16 bytes at once, and
// may overwrite.
const slack = 16

// roomFor returns dst, or other room if its capacity is less than size: with slack,
// if there is so much, and no more.
func roomFor(size int64, dst []byte) []byte {
	if int64(cap(dst)) < size {
		dst = make([]byte, 0, size+slack)
	}
	return dst[:0:min(int64(cap(dst)), size+slack)]
}

// open decodes one frame into dst, whose capacity limits it. A size that is not
// negative is what the frame must claim, if it claims any.
func (c *Codec) open(frame []byte, size int64, dst []byte) ([]byte, error) {
	var h zstd.Header
	if err := h.Decode(frame); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	if h.Skippable || h.HasFCS && size >= 0 && h.FrameContentSize != uint64(size) {
		return nil, fmt.Errorf("%w: it claims %d bytes, %d are wanted", ErrFrame, h.FrameContentSize, size)
	}
	if frameLen(frame, &h) != len(frame) {
		return nil, fmt.Errorf("%w: it does not end where the payload ends", ErrFrame)
	}
	b, err := c.dec.DecodeAll(frame, dst[:0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	if size >= 0 && int64(len(b)) > size {
		return nil, fmt.Errorf("%w: it has more than %d bytes", ErrFrame, size)
	}
	return b, nil
}

// frameLen returns the length of the frame that b starts with and whose header
// is h, or 0 if b ends before the frame does: RFC 8878, section 3.1.1.
func frameLen(b []byte, h *zstd.Header) int {
	n := h.HeaderSize
	for last := false; !last; {
		if len(b)-n < 3 {
			return 0
		}
		block := uint32(b[n]) | uint32(b[n+1])<<8 | uint32(b[n+2])<<16
		last = block&1 != 0
		size := int(block >> 3)
		if block>>1&3 == 1 { // RLE: one byte, size times
			size = 1
		}
		n += 3 + size
	}
	if h.HasCheckSum {
		n += 4
	}
	return n
}
