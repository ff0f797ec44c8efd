package events

import (
	"crypto/sha256"
	"testing"

	"pgregory.net/rapid"
)

// What is hashed on from a trail is what is hashed whole, wherever the two
// bodies part, and however often that is done.
func TestTrailGoesOn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		chunk := rapid.SliceOfN(rapid.Byte(), 1, 100)
		body := rapid.SliceOfN(chunk, 1, 120).Draw(t, "body")
		var trail Trail
		hashed, more, longest := 0, len(body), 0
		for range 4 {
			longest = max(longest, len(body)) // a trail that is gone on with has the places of its body
			h, from := trail.Resume(listOf(body[:hashed]))
			if from > hashed {
				t.Fatalf("goes on at chunk %d, %d are alike", from, hashed)
			}
			want := sha256.New()
			for i, c := range body {
				want.Write(c)
				if i >= from {
					h.Chunk()
					h.Write(c)
				}
			}
			var sum Digest
			sum, trail = h.Sum()
			if string(sum[:]) != string(want.Sum(nil)) {
				t.Fatalf("another digest from chunk %d", from)
			}
			if len(trail) > trailPlaces+2 {
				t.Fatalf("%d places", len(trail))
			}
			if n := len(body) - 1; n > 0 && more > 0 {
				if _, at := trail.Resume(listOf(body[:n])); at != n {
					t.Fatalf("an append would go on at %d of %d", at, n)
				}
				if _, at := trail.Resume(listOf(body[:n-1])); at < n-1-max(1, longest/4) {
					t.Fatalf("a change in chunk %d would go on at %d", n-1, at)
				}
			}
			hashed = rapid.IntRange(0, len(body)).Draw(t, "alike")
			other := rapid.SliceOfN(chunk, 0, 60).Draw(t, "other")
			body, more = append(body[:hashed:hashed], other...), len(other)
		}
	})
}

// The trail of a body that was cut otherwise, with another average or by other
// holes, gives no other digest: a file of the same bytes may have left it.
func TestTrailOfAnotherCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body := rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(t, "body")
		cut := func(label string) (chunks [][]byte) {
			for rest := body; len(rest) > 0; {
				n := rapid.IntRange(1, len(rest)).Draw(t, label)
				chunks, rest = append(chunks, rest[:n]), rest[n:]
			}
			return chunks
		}
		h := NewTrailHash()
		for _, c := range cut("theirs") {
			h.Chunk()
			h.Write(c)
		}
		want, trail := h.Sum()
		ours := cut("ours")
		h, from := trail.Resume(listOf(ours))
		for _, c := range ours[from:] {
			h.Chunk()
			h.Write(c)
		}
		if sum, _ := h.Sum(); sum != want {
			t.Fatal("another digest")
		}
	})
}

func listOf(chunks [][]byte) (list ChunkList) {
	for _, c := range chunks {
		list = append(list, Chunk{Digest: Sum(c), Size: int64(len(c))})
	}
	return list
}
