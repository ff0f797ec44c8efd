package source

import (
	"bytes"
	"context"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

// Whatever the list that is known, the result is the one without it.
func TestAKnownListChangesNothing(t *testing.T) {
	tree, root := open(t, Options{})
	p := pathOf(t, "f")
	base := noise(9<<20, 1)
	insert := func(at int, more []byte) []byte { return slices.Concat(base[:at], more, base[at:]) }
	changed := bytes.Clone(base)
	changed[5<<20] ^= 1
	cases := map[string][]byte{
		"the same":       base,
		"in front":       insert(0, []byte("x")),
		"in the middle":  insert(4<<20, noise(700<<10, 2)),
		"changed":        changed,
		"appended":       insert(len(base), []byte("more")),
		"appended much":  insert(len(base), noise(3<<20, 3)),
		"truncated":      base[:7<<20],
		"cut out":        slices.Concat(base[:2<<20], base[5<<20:]),
		"twice":          slices.Concat(base, base),
		"turned round":   slices.Concat(base[4<<20:], base[:4<<20]),
		"another":        noise(9<<20, 4),
		"zeros":          make([]byte, 9<<20),
		"zeros and more": slices.Concat(make([]byte, 5<<20), base, make([]byte, 3<<20)),
	}
	bodies := map[string]Body{}
	chunk := func(was Body) (events.Digest, Body) {
		t.Helper()
		m, body, err := tree.Chunk(t.Context(), p, average, was, func(_ context.Context, piece Piece) error {
			if events.Sum(piece.Body) != piece.Chunk.Digest || int64(len(piece.Body)) != piece.Chunk.Size {
				t.Errorf("chunk %d is not what it says", piece.Index)
			}
			return nil
		})
		must(t, err)
		return m.Entry.Digest, body
	}
	put := func(content []byte, holes bool) {
		t.Helper()
		write(t, root+"/f", string(content))
		if !holes {
			return
		}
		f, err := os.OpenFile(root+"/f", os.O_RDWR, 0)
		must(t, err)
		must(t, punch(f, 1<<20, 512<<10))
		must(t, punch(f, 3<<20, 1<<20))
		must(t, f.Close())
	}
	for name, content := range cases {
		put(content, false)
		_, bodies[name] = chunk(Body{})
		put(content, true)
		_, bodies[name+", with holes"] = chunk(Body{})
	}
	r := rand.New(rand.NewPCG(1, 2))
	var random events.ChunkList // of sizes that happen, with digests that do not
	for range 100 {
		random = append(random, events.Chunk{Digest: events.Sum([]byte{byte(r.Uint32())}), Size: average/4 + r.Int64N(average)})
	}
	bodies["random"] = Body{List: random}
	for name, content := range cases {
		for _, holes := range []bool{false, true} {
			put(content, holes)
			sum, want := chunk(Body{})
			for _, known := range []string{"the same", slices.Sorted(maps.Keys(bodies))[r.IntN(len(bodies))]} {
				got, body := chunk(bodies[known])
				if got != sum || !slices.Equal(body.List, want.List) {
					t.Errorf("%s (holes %t), knowing %s: %d chunks, %d without", name, holes, known, len(body.List), len(want.List))
				}
				if again, _ := chunk(body); again != sum { // from a trail that goes on from another
					t.Errorf("%s (holes %t), knowing %s and itself: another digest", name, holes, known)
				}
			}
		}
	}
}

// Where a list is known, next to nothing is left for the chunker.
func TestAKnownListIsUsed(t *testing.T) {
	content := noise(20<<20, 1)
	list := cutBy(t, content, average)
	g := newGuess(list, average)
	for i, c := range list[:len(list)-1] {
		if got, ok := g.next(1 << 30); !ok || got != c {
			t.Fatalf("chunk %d: %v, %t", i, got, ok)
		}
	}
	if _, ok := g.next(1 << 30); ok {
		t.Fatal("the last one was cut by the end")
	}
	g.missed()
	at := int64(0)
	for _, c := range list[:3] {
		at += c.Size
	}
	if sum, known := g.found(content[at : at+list[3].Size]); !known || sum != list[3].Digest {
		t.Fatal("not found")
	}
	if got, ok := g.next(1 << 30); !ok || got != list[4] {
		t.Fatalf("after the one that was found: %v", got)
	}
}

func punch(f *os.File, at, n int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, n)
}
