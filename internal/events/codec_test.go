package events_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"treecast/internal/events"
)

func newCodec(tb testing.TB) *events.Codec {
	tb.Helper()
	c, err := events.NewCodec(2)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

// fileOf returns the entry of a file with that body.
func fileOf(tb testing.TB, body []byte) *events.Entry {
	tb.Helper()
	e := anEntry(tb, events.File)
	e.Size, e.Digest = int64(len(body)), events.Sum(body)
	return &e
}

// text returns n bytes that compress about as well as source code does.
func text(n int) []byte {
	random := rand.New(rand.NewPCG(1, 2))
	words := []string{"func", "return", "if err != nil {\n", "}\n", "path", " ", "\t", "entry", ":=", "the"}
	var b bytes.Buffer
	for b.Len() < n {
		b.WriteString(words[random.IntN(len(words))])
		b.WriteByte(byte('a' + random.IntN(26)))
	}
	return b.Bytes()[:n]
}

// noise returns n bytes that do not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

func TestBodiesComeBackAsTheyWere(t *testing.T) {
	c := newCodec(t)
	for _, n := range []int{1, 2, 3, 100, 4 << 10, 128<<10 - 1, 128 << 10, 128<<10 + 1, events.MaxInlineBytes, events.MaxDecodedBytes} {
		for name, body := range map[string][]byte{"text": text(n), "noise": noise(n), "zeros": make([]byte, n)} {
			frame := c.Compress(body)
			if len(frame) > n+64 {
				t.Errorf("%d bytes of %s became %d", n, name, len(frame))
			}
			var h zstd.Header
			if err := h.Decode(frame); err != nil || !h.HasFCS || h.FrameContentSize != uint64(n) {
				t.Errorf("frame of %d bytes of %s says %+v, %v", n, name, h, err)
			}
			got, err := c.Body(fileOf(t, body), frame, nil)
			if err != nil || !bytes.Equal(got, body) {
				t.Errorf("%d bytes of %s: got %d, %v", n, name, len(got), err)
			}
		}
	}
}

func TestBodyIsForManyGoroutines(t *testing.T) {
	c := newCodec(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 50 {
				body := text(1000*i + n + 1)
				if got, err := c.Body(fileOf(t, body), c.Compress(body), nil); err != nil || !bytes.Equal(got, body) {
					t.Errorf("got %d of %d bytes, %v", len(got), len(body), err)
				}
			}
		})
	}
	wg.Wait()
}

func TestBodyOfAnEmptyFile(t *testing.T) {
	c := newCodec(t)
	e := fileOf(t, nil)
	e.Body = events.NoBody
	if got, err := c.Body(e, nil, nil); err != nil || len(got) != 0 {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if _, err := c.Body(e, []byte{0}, nil); !errors.Is(err, events.ErrFrame) {
		t.Errorf("with a payload: got %v, want ErrFrame", err)
	}
	e.Body, e.Size = events.ChunksBody, 1<<40
	if _, err := c.Body(e, []byte{0}, nil); !errors.Is(err, events.ErrFrame) {
		t.Errorf("in chunks: got %v, want ErrFrame", err)
	}
}

// frame builds a zstd frame by hand, RFC 8878: a descriptor, what follows it,
// blocks.
func frame(descriptor byte, fields []byte, blocks ...[]byte) []byte {
	return append(append([]byte{0x28, 0xb5, 0x2f, 0xfd, descriptor}, fields...), slices.Concat(blocks...)...)
}

const (
	rawBlock = 0
	rleBlock = 1
	lastFlag = 1
)

// block returns a block's header and content; of an RLE block, size is how
// often its byte stands.
func block(flags uint32, kind uint32, size int, content []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(size)<<3|kind<<1|flags)[:3], content...)
}

func rle(flags uint32, size int) []byte { return block(flags, rleBlock, size, []byte{'x'}) }

func skippable(content []byte) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{0x50, 0x2a, 0x4d, 0x18}, uint32(len(content)))
	return append(b, content...)
}

// hostileFrames are payloads that no entry may have: M8. Each is built to be
// as near to an acceptable one as it can be.
func hostileFrames(tb testing.TB) map[string]struct {
	entry *events.Entry
	frame []byte
	want  error
} {
	body := text(10_000)
	good := newCodec(tb).Compress(body)
	zeros := make([]byte, 1000)
	half := newCodec(tb).Compress(zeros)
	x := func(n int) *events.Entry { return fileOf(tb, bytes.Repeat([]byte("x"), n)) }
	sized := func(e *events.Entry, size int64) *events.Entry { e.Size = size; return e }
	window := func(log byte) []byte { return []byte{(log - 10) << 3} }
	bomb := make([][]byte, 0, 8000)
	for range 8000 {
		bomb = append(bomb, rle(0, 128<<10))
	}
	flipped := slices.Clone(good)
	flipped[len(flipped)/2] ^= 1
	fcs8 := func(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

	return map[string]struct {
		entry *events.Entry
		frame []byte
		want  error
	}{
		"nothing":            {fileOf(tb, body), nil, events.ErrFrame},
		"a byte":             {fileOf(tb, body), []byte{0x28}, events.ErrFrame},
		"magic only":         {fileOf(tb, body), good[:4], events.ErrFrame},
		"not zstd":           {fileOf(tb, body), []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"), events.ErrFrame},
		"not compressed":     {fileOf(tb, body), body, events.ErrFrame},
		"cut by one":         {fileOf(tb, body), good[:len(good)-1], events.ErrFrame},
		"cut in half":        {fileOf(tb, body), good[:len(good)/2], events.ErrFrame},
		"header only":        {fileOf(tb, body), good[:9], events.ErrFrame},
		"trailing byte":      {fileOf(tb, body), append(slices.Clone(good), 0), events.ErrFrame},
		"twice":              {fileOf(tb, body), slices.Concat(good, good), events.ErrFrame},
		"skippable first":    {fileOf(tb, body), slices.Concat(skippable([]byte("hidden")), good), events.ErrFrame},
		"skippable after":    {fileOf(tb, body), slices.Concat(good, skippable([]byte("hidden"))), events.ErrFrame},
		"skippable only":     {fileOf(tb, body), skippable(body), events.ErrFrame},
		"skippable of 4 GiB": {fileOf(tb, body), []byte{0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff}, events.ErrFrame},
		"two halves, known":  {x(2000), slices.Concat(half, half), events.ErrFrame},
		"two halves, unknown": {x(2000), slices.Concat(frame(0, window(10), rle(lastFlag, 1000)),
			frame(0, window(10), rle(lastFlag, 1000))), events.ErrFrame},
		"second frame empty": {x(1000), slices.Concat(frame(0, window(10), rle(lastFlag, 1000)),
			frame(0, window(10), block(lastFlag, rawBlock, 0, nil))), events.ErrFrame},
		"reserved block":        {x(1000), frame(0, window(10), block(lastFlag, 3, 1, []byte{'x'})), events.ErrFrame},
		"reserved bit":          {x(1000), frame(1<<3, window(10), rle(lastFlag, 1000)), events.ErrFrame},
		"no last block":         {x(1000), frame(0, window(10), rle(0, 1000)), events.ErrFrame},
		"block over 128 KiB":    {x(1 << 20), frame(0, window(20), rle(lastFlag, 1<<20)), events.ErrFrame},
		"dictionary":            {x(1000), frame(1, append(window(10), 7), rle(lastFlag, 1000)), events.ErrFrame},
		"checksum missing":      {x(1000), frame(1<<2, window(10), rle(lastFlag, 1000)), events.ErrFrame},
		"checksum wrong":        {x(1000), frame(1<<2, window(10), rle(lastFlag, 1000), []byte{1, 2, 3, 4}), events.ErrFrame},
		"window of 16 MiB":      {x(1000), frame(0, window(24), rle(lastFlag, 1000)), events.ErrFrame},
		"window of 2 TiB":       {x(1000), frame(0, window(41), rle(lastFlag, 1000)), events.ErrFrame},
		"content of 2^60":       {x(1000), frame(0xe0, fcs8(1<<60), rle(lastFlag, 1000)), events.ErrFrame},
		"content of 2^64-1":     {x(1000), frame(0xe0, fcs8(1<<64-1), rle(lastFlag, 1000)), events.ErrFrame},
		"content of 2^60, also": {sized(x(1000), 1<<60), frame(0xe0, fcs8(1<<60), rle(lastFlag, 1000)), events.ErrFrame},
		"content of 2 MiB":      {sized(x(1000), 2<<20), frame(0xe0, fcs8(2<<20), rle(lastFlag, 1000)), events.ErrFrame},
		"claims more":           {x(1000), frame(0xe0, fcs8(1000), rle(lastFlag, 999)), events.ErrFrame},
		"claims less":           {x(1000), frame(0xe0, fcs8(1000), rle(lastFlag, 1001)), events.ErrFrame},
		"claims nothing":        {x(1000), frame(0xe0, fcs8(0), rle(lastFlag, 1000)), events.ErrFrame},
		"bomb":                  {sized(x(1), events.MaxDecodedBytes), frame(0, window(20), append(bomb, rle(lastFlag, 1))...), events.ErrFrame},
		"bomb, small entry":     {x(1), frame(0, window(20), append(bomb, rle(lastFlag, 1))...), events.ErrFrame},
		"bomb, one block":       {sized(x(1), events.MaxDecodedBytes-1), frame(0, window(20), append(slices.Clone(bomb[:8]), rle(lastFlag, 1))...), events.ErrFrame},
		"empty blocks":          {x(1), frame(0, window(20), bytes.Repeat(block(0, rawBlock, 0, nil), 100_000)), events.ErrFrame},

		"size one more":      {sized(x(1000), 1001), frame(0, window(10), rle(lastFlag, 1000)), events.ErrDigest},
		"size one less":      {sized(x(1000), 999), frame(0, window(10), rle(lastFlag, 1000)), events.ErrFrame},
		"size 0":             {sized(x(1000), 0), frame(0, window(10), rle(lastFlag, 1000)), events.ErrFrame},
		"size negative":      {sized(x(1000), -1), frame(0, window(10), rle(lastFlag, 1000)), events.ErrFrame},
		"size least":         {sized(x(1000), -1<<63), frame(0, window(10), rle(lastFlag, 1000)), events.ErrFrame},
		"size most":          {sized(x(1000), 1<<63-1), frame(0, window(10), rle(lastFlag, 1000)), events.ErrFrame},
		"another body":       {fileOf(tb, zeros), frame(0, window(10), rle(lastFlag, 1000)), events.ErrDigest},
		"a bit of a literal": {fileOf(tb, noise(1000)), frame(0, window(10), block(lastFlag, rawBlock, 1000, append(noise(999), 0))), events.ErrDigest},
		"a bit flipped":      {fileOf(tb, body), flipped, nil}, // whichever of the two
	}
}

func TestHostileFrames(t *testing.T) {
	c := newCodec(t)
	for name, h := range hostileFrames(t) {
		t.Run(name, func(t *testing.T) {
			got, err := c.Body(h.entry, h.frame, nil)
			if got != nil || err == nil {
				t.Fatalf("accepted as %d bytes", len(got))
			}
			if _, err := c.Body(h.entry, h.frame, make([]byte, 0, 2*events.MaxDecodedBytes)); err == nil {
				t.Fatal("accepted where there is more room than the entry says")
			}
			if h.want != nil && !errors.Is(err, h.want) || !errors.Is(err, events.ErrFrame) && !errors.Is(err, events.ErrDigest) {
				t.Fatalf("got %v, want %v", err, h.want)
			}
			checkReport(t, err)
			if n := allocated(func() { _, _ = c.Body(h.entry, h.frame, nil) }); n > 3*events.MaxDecodedBytes {
				t.Errorf("allocated %d bytes", n)
			}
		})
	}
}

// A body is in the room that it is given, and nothing behind its slack is written
// to, whatever the frame is.
func TestBodiesStayInTheirRoom(t *testing.T) {
	c := newCodec(t)
	for _, n := range []int64{1, 2, 15, 16, 17, 100, 999, 5000, 128<<10 - 1, 128 << 10, 128<<10 + 1, 300_000} {
		for _, body := range [][]byte{text(int(n)), noise(int(n)), make([]byte, n)} {
			e, frame := fileOf(t, body), c.Compress(body)
			for _, more := range []int64{-1, 0, 1, 15, 16, 17, 64} {
				if got, inside := bodyIn(t, c, e, frame, n+more); !bytes.Equal(got, body) || inside != (more >= 0) {
					t.Errorf("%d bytes, with room for %d more: got %d, inside: %v", n, more, len(got), inside)
				}
			}
		}
	}
	for _, h := range hostileFrames(t) {
		if size := h.entry.Size; size > 0 && size <= events.MaxDecodedBytes {
			bodyIn(t, c, h.entry, h.frame, size)
			bodyIn(t, c, h.entry, h.frame, size+64)
		}
	}
}

// bodyIn opens a frame in room of that capacity, reports what is written beyond it
// or its slack, and whether the body is in it.
func bodyIn(tb testing.TB, c *events.Codec, e *events.Entry, frame []byte, capacity int64) (body []byte, inside bool) {
	const before = 8
	all := bytes.Repeat([]byte{0xA5}, int(before+capacity+100))
	body, err := c.Body(e, frame, all[before:before:before+capacity])
	end := before + min(capacity, e.Size+16)
	if len(bytes.Trim(all[:before], "\xA5")) > 0 || len(bytes.Trim(all[end:], "\xA5")) > 0 {
		tb.Errorf("%d bytes of room for %d (%v): written beyond", capacity, e.Size, err)
	}
	return body, len(body) > 0 && &body[0] == &all[before]
}

// allocated returns how many bytes f allocates, as long as nothing else runs.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestFramesOfOtherEncoders are not ours, but within the contract.
func TestFramesOfOtherEncoders(t *testing.T) {
	c := newCodec(t)
	body := text(200_000)
	encode := func(options ...zstd.EOption) []byte {
		var b bytes.Buffer
		w, err := zstd.NewWriter(&b, options...)
		if err != nil {
			t.Fatal(err)
		}
		for part := range slices.Chunk(body, 1000) {
			if _, err := w.Write(part); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for name, frame := range map[string][]byte{
		"streamed":             encode(),
		"streamed, best":       encode(zstd.WithEncoderLevel(zstd.SpeedBestCompression)),
		"streamed, no crc":     encode(zstd.WithEncoderCRC(false)),
		"the widest window":    encode(zstd.WithWindowSize(events.MaxWindowBytes)),
		"the narrowest":        encode(zstd.WithWindowSize(zstd.MinWindowSize)),
		"raw blocks":           frameOfRawBlocks(body),
		"compressed in blocks": encode(zstd.WithWindowSize(32 << 10)),
	} {
		if got, err := c.Body(fileOf(t, body), frame, nil); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%s: got %d bytes, %v", name, len(got), err)
		}
	}
}

func frameOfRawBlocks(body []byte) []byte {
	var blocks [][]byte
	for part := range slices.Chunk(body, 1000) {
		blocks = append(blocks, block(0, rawBlock, len(part), part))
	}
	return frame(0, []byte{0}, append(blocks, block(lastFlag, rawBlock, 0, nil))...)
}

// TestStockToolsReadOurFrames is the contract's "readable with stock tools",
// in both directions.
func TestStockToolsReadOurFrames(t *testing.T) {
	tool, err := exec.LookPath("zstd")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	c := newCodec(t)
	body := text(300_000)
	run := func(in []byte, args ...string) []byte {
		cmd := exec.Command(tool, args...)
		cmd.Stdin = bytes.NewReader(in)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("zstd %q: %v", args, err)
		}
		return out
	}
	if got := run(c.Compress(body), "-dqc"); !bytes.Equal(got, body) {
		t.Errorf("zstd -d made %d bytes", len(got))
	}
	for _, level := range []string{"-1", "-3", "-19"} {
		if got, err := c.Body(fileOf(t, body), run(body, "-qc", level), nil); err != nil || !bytes.Equal(got, body) {
			t.Errorf("zstd %s: got %d bytes, %v", level, len(got), err)
		}
	}
}

func FuzzBody(f *testing.F) {
	for _, h := range hostileFrames(f) {
		if len(h.frame) < 1<<12 { // large ones take the fuzzer long to minimize
			f.Add(h.frame, h.entry.Size)
		}
	}
	c := newCodec(f)
	f.Add(c.Compress([]byte("hello")), int64(5))
	f.Add(c.Compress(text(5000)), int64(5000))
	free, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(2*events.MaxDecodedBytes), zstd.WithDecoderConcurrency(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(free.Close)
	f.Fuzz(func(t *testing.T, payload []byte, size int64) {
		e := fileOf(t, nil)
		e.Size = size
		if body, err := free.DecodeAll(payload, nil); err == nil {
			e.Digest = events.Sum(body) // so that only the frame can be what is wrong
		}
		var got []byte
		var err error
		n := allocated(func() { got, err = c.Body(e, payload, nil) })
		if n > 8*events.MaxDecodedBytes { // the fuzzer allocates beside us
			t.Fatalf("allocated %d bytes for a payload of %d", n, len(payload))
		}
		switch {
		case err == nil:
			if int64(len(got)) != size || events.Sum(got) != e.Digest {
				t.Fatalf("%d bytes were accepted as %d", len(got), size)
			}
		case got != nil, !errors.Is(err, events.ErrFrame) && !errors.Is(err, events.ErrDigest):
			t.Fatalf("%d bytes and %v", len(got), err)
		}
		if 0 < size && size <= events.MaxDecodedBytes {
			if again, _ := bodyIn(t, c, e, payload, size+16); !bytes.Equal(again, got) {
				t.Fatalf("%d bytes, and %d where there is slack", len(got), len(again))
			}
		}
	})
}

func FuzzCompress(f *testing.F) {
	c := newCodec(f)
	for _, n := range []int{1, 100, 5000, 200_000} {
		f.Add(text(n))
		f.Add(noise(n))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) == 0 || len(body) > events.MaxDecodedBytes {
			return
		}
		frame := c.Compress(body)
		got, err := c.Body(fileOf(t, body), frame, nil)
		if err != nil || !bytes.Equal(got, body) {
			t.Fatalf("%d bytes came back as %d: %v", len(body), len(got), err)
		}
		if _, err := c.Body(fileOf(t, body), append(frame, 0), nil); !errors.Is(err, events.ErrFrame) {
			t.Fatalf("with a byte more: %v", err)
		}
		if _, err := c.Body(fileOf(t, body), frame[:len(frame)-1], nil); !errors.Is(err, events.ErrFrame) {
			t.Fatalf("with a byte less: %v", err)
		}
	})
}
