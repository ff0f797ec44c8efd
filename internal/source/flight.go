package source

import (
	"context"
	"sync/atomic"

	"treecast/internal/events"
)

// A flight is a piece that has been read and is not done with.
type flight struct {
	index int
	size  int64
	sum   events.Digest // zero: not known yet
	buf   *[]byte       // nil for a hole
	users atomic.Int32  // the last one frees it
}

func (f *flight) body() []byte { return (*f.buf)[:f.size] }

// room waits for room for one more piece.
func (r *reading) room(ctx context.Context) error {
	select {
	case r.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// land lets go of a piece, and makes room if nobody else uses it.
func (r *reading) land(f *flight) {
	if f.users.Add(-1) == 0 {
		r.free(f)
	}
}

// free gives back a piece's room.
func (r *reading) free(f *flight) {
	if f.buf != nil {
		r.tree.bodies.Put(f.buf)
	}
	<-r.slots
}

// buffer returns room for a chunk of any size.
func (r *reading) buffer() *[]byte {
	largest := 2 * int(r.average)
	if b, ok := r.tree.bodies.Get().(*[]byte); ok && len(*b) >= largest {
		return b
	}
	b := make([]byte, largest)
	return &b
}

// is reports whether f is known to be the chunk i of a body that has a trail.
func (f *flight) is(b Body, i int) bool {
	return b.Trail != nil && i < len(b.List) && b.List[i] == events.Chunk{Digest: f.sum, Size: f.size} && b.List[i].Hole() == (f.buf == nil)
}
