package events

import (
	"errors"
	"fmt"
	"io"

	chunkers "github.com/PlakarKorp/go-cdc-chunkers"
	_ "github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc" // registers the algorithm
)

// A Chunker cuts a stream of bytes into chunks where their content says so
// (FastCDC), so that an insertion changes the chunks around it and no others.
// The cuts depend on the bytes and the average size alone, on every host.
type Chunker struct {
	inner *chunkers.Chunker
	ended bool
}

// NewChunker returns a chunker of r. average must be of [AverageFor], or of an
// entry; chunks have between a quarter and twice of it, but for the last one. It
// keeps twice the average and 1 MiB in memory.
func NewChunker(r io.Reader, average uint32) (*Chunker, error) {
	if !validAverage(average) {
		return nil, fmt.Errorf("%w: average of %d bytes", ErrChunks, average)
	}
	largest := int(average) * 2
	inner, err := chunkers.NewChunkerBuffer("fastcdc-v1.0.0", r, &chunkers.ChunkerOpts{
		MinSize:    int(average) / 4,
		NormalSize: int(average),
		MaxSize:    largest,
	}, make([]byte, largest+1<<20))
	if err != nil {
		return nil, err
	}
	return &Chunker{inner: inner}, nil
}

// Next returns the next chunk, which is the caller's until the next call. At
// the end, and only there, the error is io.EOF, and there is no chunk.
func (c *Chunker) Next() ([]byte, error) {
	if c.ended {
		return nil, io.EOF
	}
	b, err := c.inner.Next()
	if errors.Is(err, io.EOF) {
		c.ended = true
		if len(b) == 0 {
			return nil, io.EOF
		}
		err = nil
	}
	return b, err
}
