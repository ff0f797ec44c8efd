package events

import (
	"crypto/sha256"
	"encoding"
	"hash"
	"slices"
)

// A Trail is what SHA-256 was at, at the starts of some of a body's chunks: near
// all of its length, and always at the last one's. The digest of another body
// that begins with the same chunks can be made from there. It has
// at most 18 places, 2 KiB, and is not changed once it is made.
type Trail []place

// A place is the state before the chunk of that number.
type place struct {
	chunk int
	state []byte
}

// trailPlaces is how many places a trail has before every other one is left out.
const trailPlaces = 16

// A TrailHash makes the digest of a body and its trail: Chunk at the start of
// each chunk, Write for its bytes, Sum at the end.
type TrailHash struct {
	h     resumable
	chunk int // the number of the next one
	every int // chunks between two places
	trail Trail
	last  []byte // before the chunk that was begun last
}

// resumable is what crypto/sha256 promises of its hash.
type resumable interface {
	hash.Hash
	encoding.BinaryAppender
	encoding.BinaryUnmarshaler
}

// NewTrailHash returns a hash at the start of a body.
func NewTrailHash() *TrailHash {
	return &TrailHash{h: sha256.New().(resumable), every: 1} //nolint:errcheck // it is one
}

// Resume returns a hash that has taken in the bytes of the first chunk chunks of
// t's body, the largest such number up to common.
func (t Trail) Resume(common int) (h *TrailHash, chunk int) {
	h = NewTrailHash()
	i := len(t) - 1
	for i >= 0 && t[i].chunk > common {
		i--
	}
	if i < 0 {
		return h, 0
	}
	if err := h.h.UnmarshalBinary(t[i].state); err != nil {
		panic(err) // it is of this process
	}
	h.chunk = t[i].chunk
	h.trail = slices.Clone(t[:i])
	for h.every < h.chunk/trailPlaces {
		h.every *= 2
	}
	return h, h.chunk
}

// Chunk begins the next chunk.
func (h *TrailHash) Chunk() {
	state, err := h.h.AppendBinary(h.last[:0])
	if err != nil {
		panic(err) // crypto/sha256 promises none
	}
	h.last = state
	if h.chunk > 0 && h.chunk%h.every == 0 {
		h.trail = append(h.trail, place{h.chunk, slices.Clone(state)})
		if len(h.trail) > trailPlaces {
			h.every *= 2
			h.trail = slices.DeleteFunc(h.trail, func(p place) bool { return p.chunk%h.every != 0 })
		}
	}
	h.chunk++
}

// Write takes in bytes of the chunk that was begun; it never fails.
func (h *TrailHash) Write(b []byte) (int, error) { return h.h.Write(b) }

// Sum returns the digest of the body, and its trail.
func (h *TrailHash) Sum() (sum Digest, t Trail) {
	h.h.Sum(sum[:0])
	t = h.trail
	if n := h.chunk - 1; n > 0 && (len(t) == 0 || t[len(t)-1].chunk < n) {
		t = append(slices.Clip(t), place{n, slices.Clone(h.last)})
	}
	return sum, t
}
