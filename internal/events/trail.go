package events

import (
	"crypto/sha256"
	"encoding"
	"hash"
	"slices"
)

// A Trail is what SHA-256 was at, at the starts of some of a body's chunks: along
// all of its length, as near to each other as in the longest body that it went on
// from, and at the last one's, unless the body ends just where it was
// hashed on from. The digest of another body that begins with the same chunks can
// be made from there. It has at most 18 places, 3 KiB, and is not changed once it
// is made.
type Trail []place

// A place is the state before the chunk of that number, which is at so many
// bytes.
type place struct {
	chunk int
	at    int64
	state []byte
}

// trailPlaces is how many places a trail has before every other one is left out.
const trailPlaces = 16

// A TrailHash makes the digest of a body and its trail: Chunk at the start of
// each chunk, Write for its bytes, Sum at the end.
type TrailHash struct {
	h     resumable
	at    int64 // bytes that it has taken in
	chunk int   // the number of the next one
	every int   // chunks between two places
	trail Trail
	last  place // before the chunk that was begun last
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
// alike, which t's body begins with: the largest such number that t has a place
// for. The same body may have been cut otherwise when t was made, with another
// average or by other holes: a place where alike has no cut is none.
func (t Trail) Resume(alike ChunkList) (h *TrailHash, chunk int) {
	h = NewTrailHash()
	fits, next, at := -1, 0, int64(0)
	for i, c := range alike {
		at += c.Size
		if next < len(t) && t[next].chunk == i+1 {
			if t[next].at == at {
				fits = next
			}
			next++
		}
	}
	if fits < 0 {
		return h, 0
	}
	p := t[fits]
	if err := h.h.UnmarshalBinary(p.state); err != nil {
		panic(err) // it is of this process
	}
	h.chunk, h.at = p.chunk, p.at
	h.trail = slices.Clone(t[:fits])
	for h.every < h.chunk/trailPlaces {
		h.every *= 2
	}
	return h, h.chunk
}

// Chunk begins the next chunk.
func (h *TrailHash) Chunk() {
	state, err := h.h.AppendBinary(h.last.state[:0])
	if err != nil {
		panic(err) // crypto/sha256 promises none
	}
	h.last = place{h.chunk, h.at, state}
	if h.chunk > 0 && h.chunk%h.every == 0 {
		h.trail = append(h.trail, h.last.clone())
		if len(h.trail) > trailPlaces {
			h.every *= 2
			h.trail = slices.DeleteFunc(h.trail, func(p place) bool { return p.chunk%h.every != 0 })
		}
	}
	h.chunk++
}

// Write takes in bytes of the chunk that was begun; it never fails.
func (h *TrailHash) Write(b []byte) (int, error) {
	h.at += int64(len(b))
	return h.h.Write(b)
}

// Sum returns the digest of the body, and its trail.
func (h *TrailHash) Sum() (sum Digest, t Trail) {
	h.h.Sum(sum[:0])
	t = h.trail
	if n := h.last.chunk; n > 0 && (len(t) == 0 || t[len(t)-1].chunk < n) {
		t = append(slices.Clip(t), h.last.clone())
	}
	return sum, t
}

func (p place) clone() place { return place{p.chunk, p.at, slices.Clone(p.state)} }
