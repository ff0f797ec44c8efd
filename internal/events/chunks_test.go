package events_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"treecast/internal/events"
)

// randomBytes returns the same n bytes for the same seed, on every host.
func randomBytes(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

func chunksOf(t testing.TB, body []byte, average uint32) events.ChunkList {
	t.Helper()
	c, err := events.NewChunker(bytes.NewReader(body), average)
	if err != nil {
		t.Fatal(err)
	}
	var list events.ChunkList
	for {
		b, err := c.Next()
		if errors.Is(err, io.EOF) && b == nil {
			return list
		}
		if err != nil || len(b) == 0 {
			t.Fatalf("chunk %d: %d bytes, %v", len(list), len(b), err)
		}
		list = append(list, events.Chunk{Digest: events.Sum(b), Size: int64(len(b))})
	}
}

// TestChunksStayWhereTheyAre fails when bytes are cut in other places than
// before: then every large file is sent anew, once.
func TestChunksStayWhereTheyAre(t *testing.T) {
	body := randomBytes(16<<20, 1)
	for average, want := range map[uint32]string{
		512 << 10: "a344",
		1 << 20:   "190a",
		2 << 20:   "49f8",
	} {
		list := chunksOf(t, body, average)
		got := events.Sum(list.AppendText(nil))
		if digits := hex.EncodeToString(got[:2]); digits != want {
			t.Errorf("average %d: %d chunks, list %s, want %s", average, len(list), digits, want)
		}
		for i, c := range list {
			if c.Size > 2*int64(average) || c.Size < int64(average)/4 && i < len(list)-1 {
				t.Errorf("average %d: chunk %d has %d bytes", average, i, c.Size)
			}
		}
	}
}

func TestAnInsertionChangesFewChunks(t *testing.T) {
	body := randomBytes(32<<20, 2)
	was := chunksOf(t, body, 512<<10)
	for name, now := range map[string][]byte{
		"front":  append([]byte{1}, body...),
		"middle": slices.Insert(slices.Clone(body), 16<<20, 1, 2, 3),
		"end":    append(slices.Clone(body), make([]byte, 4096)...),
	} {
		fresh := 0
		for _, c := range chunksOf(t, now, 512<<10) {
			if !slices.Contains(was, c) {
				fresh++
			}
		}
		if fresh > 3 {
			t.Errorf("%s: %d of %d chunks are new", name, fresh, len(was))
		}
	}
}

func TestChunkerOfSmallBodies(t *testing.T) {
	for _, size := range []int{0, 1, 128<<10 - 1, 128 << 10, 128<<10 + 1, 1 << 20, 1<<20 + 1} {
		sum := int64(0)
		for _, c := range chunksOf(t, make([]byte, size), 512<<10) {
			sum += c.Size
		}
		if sum != int64(size) {
			t.Errorf("%d bytes: chunks of %d", size, sum)
		}
	}
	if _, err := events.NewChunker(strings.NewReader(""), 3<<18); !errors.Is(err, events.ErrChunks) {
		t.Errorf("an average that is no power of two: %v", err)
	}
}

func TestAverageFor(t *testing.T) {
	for _, c := range []struct {
		size int64
		was  uint32
		want uint32
	}{
		{1 << 20, 0, 512 << 10}, {4 << 30, 0, 512 << 10}, {5 << 30, 0, 1 << 20}, {9 << 30, 0, 2 << 20}, {1 << 50, 0, 2 << 20},
		{5 << 30, 512 << 10, 512 << 10}, {40 << 30, 512 << 10, 512 << 10}, // it grew: cut as before
		{1 << 20, 2 << 20, 2 << 20},     // it shrank
		{200 << 30, 512 << 10, 2 << 20}, // its list would be too long
	} {
		if got := events.AverageFor(c.size, c.was); got != c.want {
			t.Errorf("%d bytes, was %d: got %d, want %d", c.size, c.was, got, c.want)
		}
	}
}

func TestListsThatAreRefused(t *testing.T) {
	digest := strings.Repeat("ab", 32)
	for _, text := range []string{
		"", "\n", digest + " 10", digest + " 10\n\n", digest + "  10\n", digest + " 010\n", digest + " +10\n", digest + " -10\n",
		digest + " 0\nhole 10\n", digest + " 9\n", digest + " 11\n", digest + " 10\nhole 1\n", digest + " 10 x\n",
		strings.ToUpper(digest) + " 10\n", digest[1:] + " 10\n", strings.Repeat("0", 64) + " 10\n", strings.Repeat("x", 64) + " 10\n",
		"hole 5\nhole 5\n", "hole 9223372036854775807\n", digest + " 5\n" + digest + " 9223372036854775807\n", "Hole 10\n", "hole 10\r\n",
	} {
		if list, err := events.ParseChunkList([]byte(text), 10); !errors.Is(err, events.ErrChunks) {
			t.Errorf("%q: %v, %v", text, list, err)
		}
	}
	if _, err := events.ParseChunkList([]byte(digest+" 4194305\n"), 4194305); !errors.Is(err, events.ErrChunks) {
		t.Errorf("a chunk over the limit: %v", err)
	}
}

func TestPackedChunks(t *testing.T) {
	c := newCodec(t)
	text := bytes.Repeat([]byte("<p>hello, treecast</p>\n"), 40_000)
	for name, body := range map[string][]byte{
		"text": text, "noise": randomBytes(900_000, 3), "tiny": {1}, "largest": randomBytes(events.MaxChunkBytes, 4),
		"largest text": bytes.Repeat([]byte("ab"), events.MaxChunkBytes/2), "a frame": c.Compress(randomBytes(500_000, 5)),
	} {
		chunk := events.Chunk{Digest: events.Sum(body), Size: int64(len(body))}
		data, compressed := c.PackChunk(body)
		if compressed != strings.Contains(name, "text") {
			t.Errorf("%s: compressed is %v", name, compressed)
		}
		for _, dst := range [][]byte{nil, make([]byte, 0, len(body)), make([]byte, 3, events.MaxChunkBytes)} {
			if got, err := c.OpenChunk(chunk, data, compressed, dst); err != nil || !bytes.Equal(got, body) {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
		}
		for what, bad := range map[string]events.Chunk{
			"shorter": {Digest: chunk.Digest, Size: chunk.Size + 1}, "another": {Digest: events.Sum(nil), Size: chunk.Size},
		} {
			if _, err := c.OpenChunk(bad, data, compressed, nil); !errors.Is(err, events.ErrDigest) && !errors.Is(err, events.ErrFrame) {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
		if _, err := c.OpenChunk(chunk, data[:len(data)-1], compressed, nil); err == nil {
			t.Errorf("%s: a cut-off object is accepted", name)
		}
	}
}

func TestPackedLists(t *testing.T) {
	c := newCodec(t)
	for _, n := range []int{1, 8192, 40_000, 150_000} {
		list := make(events.ChunkList, n)
		e := &events.Entry{Kind: events.File, Body: events.ChunksBody}
		for i := range list {
			list[i] = events.Chunk{Digest: events.Sum([]byte{byte(i), byte(i >> 8), byte(i >> 16)}), Size: int64(1 + i%events.MaxChunkBytes)}
			e.Size += list[i].Size
		}
		p := c.PackList(list)
		if inMessage := n <= 8192; inMessage != (p.Payload != nil) || inMessage == (p.Object != nil) || inMessage != (p.Digest == nil) {
			t.Errorf("%d chunks: %d bytes in the message, %d in an object", n, len(p.Payload), len(p.Object))
		}
		if size := len(p.Payload) + len(p.Object); size > 56*n+100 {
			t.Errorf("%d chunks: packed in %d bytes", n, size)
		}
		e.List = p.Digest
		var got events.ChunkList
		var err error
		if e.List == nil {
			got, err = c.List(e, p.Payload)
		} else {
			got, err = c.ListObject(e, bytes.NewReader(p.Object))
		}
		if err != nil || !slices.Equal(got, list) {
			t.Errorf("%d chunks: got %d, %v", n, len(got), err)
		}
		if e.List != nil {
			other := events.Sum(nil)
			e.List = &other
			if _, err := c.ListObject(e, bytes.NewReader(p.Object)); !errors.Is(err, events.ErrDigest) {
				t.Errorf("a list of another name: %v", err)
			}
		}
	}
}

func FuzzParseChunkList(f *testing.F) {
	f.Add(goldenList.AppendText(nil), int64(1<<30+5))
	f.Add([]byte("hole 5\n"), int64(5))
	f.Fuzz(func(t *testing.T, text []byte, size int64) {
		list, err := events.ParseChunkList(text, size)
		if err != nil {
			if !errors.Is(err, events.ErrChunks) {
				t.Fatal(err)
			}
			return
		}
		sum := int64(0)
		for _, c := range list {
			if c.Size <= 0 || !c.Hole() && c.Size > events.MaxChunkBytes {
				t.Fatalf("accepted %v", c)
			}
			sum += c.Size
		}
		if got := list.AppendText(nil); sum != size || !bytes.Equal(got, text) {
			t.Fatalf("%q comes back as %q, %d of %d bytes", text, got, sum, size)
		}
	})
}

func FuzzList(f *testing.F) {
	c, err := events.NewCodec(1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(c.Compress(goldenList.AppendText(nil)), int64(1<<30+5))
	f.Fuzz(func(t *testing.T, payload []byte, size int64) {
		e := &events.Entry{Kind: events.File, Body: events.ChunksBody, Size: size}
		if _, err := c.List(e, payload); err != nil && !errors.Is(err, events.ErrChunks) && !errors.Is(err, events.ErrFrame) {
			t.Fatal(err)
		}
	})
}

func FuzzOpenChunk(f *testing.F) {
	c, err := events.NewCodec(1)
	if err != nil {
		f.Fatal(err)
	}
	body := bytes.Repeat([]byte("treecast"), 100)
	f.Add(c.Compress(body), int64(len(body)), true)
	f.Add(body, int64(len(body)), false)
	f.Fuzz(func(t *testing.T, data []byte, size int64, compressed bool) {
		if size <= 0 || size > events.MaxChunkBytes {
			return
		}
		got, err := c.OpenChunk(events.Chunk{Digest: events.Sum(body), Size: size}, data, compressed, nil)
		if err == nil && !bytes.Equal(got, body) {
			t.Fatalf("accepted %q", got)
		}
	})
}
