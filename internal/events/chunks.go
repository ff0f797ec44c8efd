package events

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
)

// ErrChunks reports a chunk list that breaks the contract. Permanent.
var ErrChunks = errors.New("malformed chunk list")

// A Chunk is one piece of a large body: Size bytes that hash to Digest, which
// is also the name of the object that has them. A zero Digest is a hole: Size
// bytes of zero that no object has.
type Chunk struct {
	Digest Digest
	Size   int64
}

// Hole reports whether c stands for zeros.
func (c Chunk) Hole() bool { return c.Digest == Digest{} }

// A ChunkList is a body in its pieces, in order.
type ChunkList []Chunk

const holeWord = "hole"

// AppendText appends the list as the wire has it, to be read by people too: a
// line for each chunk with the 64 hex digits of its digest, or the word hole,
// and its size in bytes.
func (l ChunkList) AppendText(b []byte) []byte {
	for _, c := range l {
		if c.Hole() {
			b = append(b, holeWord...)
		} else {
			b = hex.AppendEncode(b, c.Digest[:])
		}
		b = append(b, ' ')
		b = strconv.AppendInt(b, c.Size, 10)
		b = append(b, '\n')
	}
	return b
}

// ParseChunkList is the inverse of [ChunkList.AppendText] for a body of size
// bytes. It accepts at most [MaxChunks] chunks of at most [MaxChunkBytes] each,
// never two holes in a row, and refuses everything else with [ErrChunks].
func ParseChunkList(text []byte, size int64) (ChunkList, error) {
	lines := bytes.Count(text, []byte("\n"))
	if lines == 0 || lines > MaxChunks || text[len(text)-1] != '\n' {
		return nil, fmt.Errorf("%w: %d lines in %d bytes, 1 to %d are allowed", ErrChunks, lines, len(text), MaxChunks)
	}
	list := make(ChunkList, 0, lines)
	left := size
	for len(text) > 0 {
		var line []byte
		line, text, _ = bytes.Cut(text, []byte("\n"))
		c, err := parseChunk(line)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrChunks, len(list)+1, err)
		}
		if n := len(list); n > 0 && c.Hole() && list[n-1].Hole() {
			return nil, fmt.Errorf("%w: line %d: a hole behind a hole", ErrChunks, n+1)
		}
		if left -= c.Size; left < 0 { // each is positive: no overflow
			return nil, fmt.Errorf("%w: more than the body's %d bytes", ErrChunks, size)
		}
		list = append(list, c)
	}
	if left != 0 {
		return nil, fmt.Errorf("%w: %d bytes short of the body's %d", ErrChunks, left, size)
	}
	return list, nil
}

var (
	errLine      = errors.New("not a digest and a size")
	errChunkSize = errors.New("size out of range")
)

func parseChunk(line []byte) (Chunk, error) {
	var c Chunk
	name, digits, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return c, errLine
	}
	limit := int64(MaxBodyBytes)
	if string(name) != holeWord {
		limit = MaxChunkBytes
		if len(name) != 2*len(c.Digest) || !bytes.Equal(name, bytes.ToLower(name)) {
			return c, errLine
		}
		if _, err := hex.Decode(c.Digest[:], name); err != nil || c.Hole() {
			return c, errLine
		}
	}
	size, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil || strconv.FormatInt(size, 10) != string(digits) {
		return c, errLine
	}
	if size <= 0 || size > limit {
		return c, errChunkSize
	}
	c.Size = size
	return c, nil
}

// AverageFor returns the average size of the chunks of a body of size bytes:
// 512 KiB, doubled as long as the list would be long, at most 2 MiB.
//
// was is that of the version that is published, 0 if there is none: it is kept
// while the list stays within the limits, so that a file that grows past a
// threshold is not cut, and sent, all over again.
func AverageFor(size int64, was uint32) uint32 {
	if was != 0 && size/int64(was) <= MaxChunks/4 {
		return was
	}
	average := uint32(minAverage)
	for average < maxAverage && size/int64(average) > messageChunks {
		average *= 2
	}
	return average
}

// messageChunks is up to how many chunks a list surely fits in its entry's
// message: 52 bytes each, compressed.
const messageChunks = 8192

// validAverage reports whether a chunker takes average.
func validAverage(average uint32) bool {
	return minAverage <= average && average <= maxAverage && average&(average-1) == 0
}
