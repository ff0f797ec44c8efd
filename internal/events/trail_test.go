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
		hashed := 0
		for range 4 {
			h, from := trail.Resume(hashed)
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
			if n := len(body) - 1; n > 0 {
				if _, at := trail.Resume(n); at != n {
					t.Fatalf("an append would go on at %d of %d", at, n)
				}
				if _, at := trail.Resume(n - 1); at < n-1-max(1, n/4) {
					t.Fatalf("a change in chunk %d would go on at %d", n-1, at)
				}
			}
			hashed = rapid.IntRange(0, len(body)).Draw(t, "alike")
			body = append(body[:hashed:hashed], rapid.SliceOfN(chunk, 1, 60).Draw(t, "other")...)
		}
	})
}
