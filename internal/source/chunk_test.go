package source

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"

	"treecast/internal/events"
)

const average = 512 << 10

func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

// collect reads p in chunks and puts them together again.
func collect(t *testing.T, tree *Tree, p events.Path) (Meta, events.ChunkList, []byte, error) {
	t.Helper()
	var mu sync.Mutex
	bodies := map[int][]byte{}
	m, body, err := tree.Chunk(t.Context(), p, average, Body{}, func(_ context.Context, piece Piece) error {
		mu.Lock()
		defer mu.Unlock()
		if events.Sum(piece.Body) != piece.Chunk.Digest || int64(len(piece.Body)) != piece.Chunk.Size {
			t.Errorf("chunk %d is not what it says", piece.Index)
		}
		bodies[piece.Index] = append([]byte(nil), piece.Body...)
		return nil
	})
	var all []byte
	for i, c := range body.List {
		if c.Hole() {
			bodies[i] = make([]byte, c.Size)
		}
		all = append(all, bodies[i]...)
	}
	return m, body.List, all, err
}

func TestChunksMakeTheFile(t *testing.T) {
	tree, root := open(t, Options{})
	p := pathOf(t, "f")
	for _, content := range []string{
		string(noise(events.MaxInlineBytes+1, 1)), string(noise(3<<20, 2)), string(noise(40<<20, 3)), strings.Repeat("text\n", 1<<20),
	} {
		write(t, root+"/f", content)
		m, list, got, err := collect(t, tree, p)
		must(t, err)
		if string(got) != content || m.Entry.Digest != events.Sum([]byte(content)) || m.Entry.Size != int64(len(content)) {
			t.Errorf("%d bytes: %d bytes in %d chunks", len(content), len(got), len(list))
		}
		m.Entry.Epoch = 1
		line, err := m.Entry.MarshalHeader()
		must(t, err)
		if e, err := events.ParseEntry(line); err != nil || e.Average != average || e.Body != events.ChunksBody {
			t.Errorf("the wire has %+v, %v", e, err)
		}
	}
	write(t, root+"/f", "small")
	if _, _, _, err := collect(t, tree, p); !errors.Is(err, ErrUnstable) {
		t.Errorf("a small file: %v", err)
	}
}

func TestHolesAreNotRead(t *testing.T) {
	tree, root := open(t, Options{})
	p := pathOf(t, "f")
	for name, c := range map[string]struct {
		size int64
		data map[int64]int // offset -> bytes
		want int           // holes
	}{
		"all hole": {64 << 20, nil, 1},
		"front":    {8 << 20, map[int64]int{4 << 20: 4 << 20}, 1},
		"middle":   {8 << 20, map[int64]int{0: 1 << 20, 7 << 20: 1 << 20}, 1},
		"end":      {8 << 20, map[int64]int{0: 1 << 20}, 1},
		"several":  {64 << 20, map[int64]int{0: 10, 16 << 20: 10, 32 << 20: 2 << 20}, 3},
		"small":    {2 << 20, map[int64]int{0: 4096, 64 << 10: 4096, 128 << 10: 2<<20 - 128<<10}, 0},
	} {
		must(t, os.RemoveAll(root+"/f"))
		f, err := os.Create(root + "/f")
		must(t, err)
		must(t, f.Truncate(c.size))
		for off, n := range c.data {
			_, err := f.WriteAt(noise(n, 1), off)
			must(t, err)
		}
		must(t, f.Close())
		content, err := os.ReadFile(root + "/f")
		must(t, err)
		m, list, got, err := collect(t, tree, p)
		must(t, err)
		holes, total := 0, int64(0)
		for i, ch := range list {
			if ch.Hole() {
				holes++
				if i > 0 && list[i-1].Hole() {
					t.Errorf("%s: a hole behind a hole", name)
				}
			}
			total += ch.Size
		}
		if holes != c.want || total != c.size || m.Entry.Digest != events.Sum(content) || string(got) != string(content) {
			t.Errorf("%s: %d holes, want %d, %d bytes", name, holes, c.want, total)
		}
	}
}

func TestChangesWhileItIsChunked(t *testing.T) {
	tree, root := open(t, Options{})
	p := pathOf(t, "f")
	file := root + "/f"
	for name, c := range map[string]struct {
		do   func()
		want error
	}{
		"in place":  {func() { overwrite(t, file) }, ErrUnstable},
		"truncated": {func() { must(t, os.Truncate(file, 1<<20)) }, ErrUnstable},
		"appended":  {func() { must(t, os.Truncate(file, 11<<20)) }, ErrUnstable},
		"replaced": {func() {
			write(t, root+"/g", string(noise(10<<20, 2)))
			must(t, os.Rename(root+"/g", file))
		}, ErrUnstable},
		"removed": {func() { must(t, os.Remove(file)) }, ErrAbsent},
	} {
		must(t, os.RemoveAll(file))
		write(t, file, string(noise(10<<20, 1)))
		var once sync.Once
		_, _, err := tree.Chunk(t.Context(), p, average, Body{}, func(context.Context, Piece) error {
			once.Do(c.do)
			return nil
		})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func overwrite(t *testing.T, file string) {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("x"), 5<<20)
	must(t, errors.Join(err, f.Close()))
}

func TestChunkEndsWithPut(t *testing.T) {
	tree, root := open(t, Options{})
	write(t, root+"/f", string(noise(20<<20, 1)))
	broken := errors.New("broken")
	for range 20 { // goleak looks for what is left
		_, _, err := tree.Chunk(t.Context(), pathOf(t, "f"), average, Body{}, func(context.Context, Piece) error { return broken })
		if !errors.Is(err, broken) {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		_, _, err = tree.Chunk(ctx, pathOf(t, "f"), average, Body{}, func(context.Context, Piece) error { cancel(); return nil })
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
}

func TestChunkWaitsForAWriter(t *testing.T) {
	tree, root := open(t, Options{})
	write(t, root+"/f", string(noise(1<<20, 1)))
	f, err := os.OpenFile(root+"/f", os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	if _, known, err := tree.Settled(pathOf(t, "f")); err != nil || !known {
		t.Skip("no leases here")
	}
	if _, _, _, err := collect(t, tree, pathOf(t, "f")); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
}

func BenchmarkChunk(b *testing.B) {
	root := b.TempDir()
	if err := os.WriteFile(root+"/f", noise(64<<20, 1), 0o600); err != nil {
		b.Fatal(err)
	}
	tree, err := Open(Options{Root: root})
	if err != nil {
		b.Fatal(err)
	}
	defer tree.Close()
	p, err := events.ParsePath("f")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(64 << 20)
	for b.Loop() {
		if _, _, err := tree.Chunk(b.Context(), p, average, Body{}, func(context.Context, Piece) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
