package source

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

// cutBy returns the list that one chunker makes of body.
func cutBy(t testing.TB, body []byte, average uint32) events.ChunkList {
	t.Helper()
	c, err := events.NewChunker(bytes.NewReader(body), average)
	must(t, err)
	var list events.ChunkList
	for {
		b, err := c.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		must(t, err)
		list = append(list, events.Chunk{Digest: events.Sum(b), Size: int64(len(b))})
	}
}

// old makes the file's time one that no change can leave as it is.
func old(t testing.TB, name string) {
	t.Helper()
	must(t, os.Chtimes(name, time.Unix(1e9, 0), time.Unix(1e9, 0)))
}

// layout makes a file of holes (negative) and data, in KiB, and returns its
// bytes.
func layout(t testing.TB, name string, parts []int) []byte {
	t.Helper()
	must(t, os.RemoveAll(name))
	f, err := os.Create(name)
	must(t, err)
	var all []byte
	for i, kib := range parts {
		if kib < 0 {
			all = append(all, make([]byte, -kib<<10)...)
			continue
		}
		b := noise(kib<<10, byte(i))
		_, err := f.WriteAt(b, int64(len(all)))
		must(t, err)
		all = append(all, b...)
	}
	must(t, f.Truncate(int64(len(all))))
	must(t, f.Close())
	return all
}

// bytesRead returns how many bytes this process has read so far.
func bytesRead(t testing.TB) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/io")
	must(t, err)
	rest, _ := strings.CutPrefix(string(text), "rchar: ")
	line, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseInt(line, 10, 64)
	must(t, err)
	return n
}

func TestAverageIsThatOfTheCutter(t *testing.T) {
	tree, root := open(t, Options{})
	content := noise(12<<20, 1)
	write(t, root+"/f", string(content))
	for _, average := range []uint32{512 << 10, 1 << 20, 2 << 20} {
		m, body, err := tree.Chunk(t.Context(), pathOf(t, "f"), average, Body{}, func(context.Context, Piece) error { return nil })
		must(t, err)
		if m.Entry.Average != average || !slices.Equal(body.List, cutBy(t, content, average)) {
			t.Errorf("average %d: entry has %d, %d chunks", average, m.Entry.Average, len(body.List))
		}
		if again, err := events.ParseChunkList(body.List.AppendText(nil), m.Entry.Size); err != nil || !slices.Equal(again, body.List) {
			t.Errorf("average %d: the wire refuses the list: %v", average, err)
		}
	}
	layout(t, root+"/f", []int{-1024})
	if _, _, err := tree.Chunk(t.Context(), pathOf(t, "f"), 3<<18, Body{}, nil); !errors.Is(err, events.ErrChunks) {
		t.Errorf("an average that no chunker takes: %v", err)
	}
}

// The list is known exactly: holes from 128 KiB on, what is between cut by
// itself.
func TestListOfASparseFile(t *testing.T) {
	tree, root := open(t, Options{})
	layout(t, root+"/f", []int{-1024})
	f, err := os.Open(root + "/f")
	must(t, err)
	defer f.Close()
	if _, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA); err != unix.ENXIO {
		unable(t, "a file system that tells holes")
	}
	many := []int{}
	for range 100 {
		many = append(many, 64, -256)
	}
	for name, parts := range map[string][]int{
		"all hole": {-64 << 10},
		"front":    {-1024, 3072}, "middle": {2048, -1024, 2048}, "end": {3072, -1024},
		"the least hole": {1024, -128, 1024}, "a smaller one": {1024, -64, 1024},
		"small ones, to be added up never": {64, -64, 64, -64, 64, -64, 64, -64, 64, -64, 512},
		"small in front and at the end":    {-64, 1024, -64},
		"small beside large":               {512, -64, 64, -512, 64, -64, 512},
		"many":                             many,
	} {
		content := layout(t, root+"/f", parts)
		var want events.ChunkList
		var data []byte
		flush := func() {
			want, data = append(want, cutBy(t, data, average)...), nil
		}
		read := 0
		for i, at := 0, 0; i < len(parts); i++ {
			n := max(parts[i], -parts[i]) << 10
			if parts[i] <= -128 {
				flush()
				want = append(want, events.Chunk{Size: int64(n)})
			} else {
				data, read = append(data, content[at:at+n]...), read+n
			}
			at += n
		}
		flush()
		before := bytesRead(t)
		m, body, err := tree.Chunk(t.Context(), pathOf(t, "f"), average, Body{}, func(context.Context, Piece) error { return nil })
		after := bytesRead(t)
		must(t, err)
		if !slices.Equal(body.List, want) || m.Entry.Digest != events.Sum(content) {
			t.Errorf("%s: got\n%swant\n%s", name, body.List.AppendText(nil), want.AppendText(nil))
		}
		if got := after - before; got > int64(read)+64<<10 {
			t.Errorf("%s: %d bytes read, of %d of data", name, got, read)
		}
	}
}

func TestMoreChangesWhileItIsChunked(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(t *testing.T, root, file string)
		want error
	}{
		"written, and its time set back": {func(t *testing.T, _, file string) { overwrite(t, file); old(t, file) }, ErrUnstable},
		"truncated to nothing":           {func(t *testing.T, _, file string) { must(t, os.Truncate(file, 0)) }, ErrUnstable},
		"one byte appended":              {func(t *testing.T, _, file string) { must(t, os.Truncate(file, 10<<20+1)) }, ErrUnstable},
		"a directory now":                {func(t *testing.T, _, file string) { must(t, os.Remove(file)); mkdir(t, file) }, ErrUnstable},
		"a hole punched": {func(t *testing.T, _, file string) {
			f, err := os.OpenFile(file, os.O_RDWR, 0)
			must(t, err)
			must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1<<20, 8<<20))
			must(t, f.Close())
		}, ErrUnstable},
		"the root moved away": {func(t *testing.T, root, _ string) { must(t, os.Rename(root, root+"2")) }, ErrRootLost},
	} {
		t.Run(name, func(t *testing.T) {
			tree, root := open(t, Options{})
			file := root + "/f"
			write(t, file, string(noise(10<<20, 1)))
			old(t, file)
			var once sync.Once
			_, _, err := tree.Chunk(t.Context(), pathOf(t, "f"), average, Body{}, func(context.Context, Piece) error {
				once.Do(func() { c.do(t, root, file) })
				return nil
			})
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// A change is found long before the end, also in a file of many small pieces.
func TestChangedFileIsNotReadToItsEnd(t *testing.T) {
	tree, root := open(t, Options{})
	var parts []int
	for range 32 {
		parts = append(parts, 64, -48<<10)
	}
	for _, want := range []error{ErrUnstable, ErrAbsent} {
		layoutOnly(t, root+"/f", parts)
		old(t, root+"/f")
		var once sync.Once
		var puts atomic.Int32
		_, _, err := tree.Chunk(t.Context(), pathOf(t, "f"), average, Body{}, func(context.Context, Piece) error {
			puts.Add(1)
			once.Do(func() {
				if errors.Is(want, ErrAbsent) {
					must(t, os.Remove(root+"/f"))
				} else {
					overwrite(t, root+"/f")
				}
			})
			return nil
		})
		if !errors.Is(err, want) || puts.Load() > 16 {
			t.Errorf("%v after %d of 32 chunks, want %v", err, puts.Load(), want)
		}
	}
}

// layoutOnly is layout for what is too large to have in memory.
func layoutOnly(t testing.TB, name string, parts []int) {
	t.Helper()
	must(t, os.RemoveAll(name))
	f, err := os.Create(name)
	must(t, err)
	at := int64(0)
	for i, kib := range parts {
		if kib > 0 {
			_, err := f.WriteAt(noise(kib<<10, byte(i)), at)
			must(t, err)
		}
		at += int64(max(kib, -kib)) << 10
	}
	must(t, f.Truncate(at))
	must(t, f.Close())
}

func TestErrorsOfPutAreReturnedAsTheyAre(t *testing.T) {
	tree, root := open(t, Options{})
	write(t, root+"/f", string(noise(20<<20, 1)))
	broken := errors.New("broken")
	none := goleak.IgnoreCurrent()
	for _, at := range []int32{1, 3, 10} {
		var calls, running atomic.Int32
		_, _, err := tree.Chunk(t.Context(), pathOf(t, "f"), average, Body{}, func(ctx context.Context, _ Piece) error {
			running.Add(1)
			defer running.Add(-1)
			if calls.Add(1) == at {
				return broken
			}
			if at == 1 {
				<-ctx.Done() // the others are told
			}
			return nil
		})
		if err != broken || running.Load() != 0 { //nolint:errorlint // as it is
			t.Errorf("call %d: %v, %d calls running", at, err, running.Load())
		}
	}
	must(t, goleak.Find(none))
}

// Whichever call it was that ended the context, also the last.
func TestAnEndedContextIsNoSuccess(t *testing.T) {
	tree, root := open(t, Options{})
	write(t, root+"/f", string(noise(8<<20, 1)))
	chunks := len(cutBy(t, noise(8<<20, 1), average))
	for at := 1; at <= chunks; at++ {
		ctx, cancel := context.WithCancel(t.Context())
		var calls atomic.Int32
		_, _, err := tree.Chunk(ctx, pathOf(t, "f"), average, Body{}, func(context.Context, Piece) error {
			if int(calls.Add(1)) == at {
				cancel()
			}
			return nil
		})
		if err != context.Canceled { //nolint:errorlint // as it is
			t.Errorf("ended in call %d of %d: %v", at, chunks, err)
		}
		cancel()
	}
	layoutOnly(t, root+"/f", []int{64, -64 << 20}) // an hour of hashing
	must(t, os.Truncate(root+"/f", 4<<40))
	ctx, cancel := context.WithCancel(t.Context())
	start := time.Now()
	_, _, err := tree.Chunk(ctx, pathOf(t, "f"), average, Body{}, func(context.Context, Piece) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) || time.Since(start) > patience {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

func TestFourPutAtOnce(t *testing.T) {
	tree, root := open(t, Options{})
	write(t, root+"/f", string(noise(20<<20, 1)))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	all := make(chan struct{})
	var running, most atomic.Int32
	_, _, err := tree.Chunk(ctx, pathOf(t, "f"), average, Body{}, func(ctx context.Context, _ Piece) error {
		n := running.Add(1)
		defer running.Add(-1)
		for was := most.Load(); n > was && !most.CompareAndSwap(was, n); was = most.Load() {
		}
		if n == 4 {
			select {
			case <-all:
			default:
				close(all)
			}
		}
		select {
		case <-all:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if err != nil || most.Load() != 4 {
		t.Errorf("%v, %d at once", err, most.Load())
	}
}

// The zeros are written: those that fallocate makes are a hole.
func TestMemoryOfALargeFile(t *testing.T) {
	tree, root := open(t, Options{})
	f, err := os.Create(root + "/f")
	must(t, err)
	zeros := make([]byte, 1<<20)
	for range 256 {
		_, err := f.Write(zeros)
		must(t, err)
	}
	must(t, f.Close())
	for _, c := range []struct {
		average uint32
		size    int64
		limit   uint64
	}{{512 << 10, 256 << 20, 24 << 20}, {2 << 20, 96 << 20, 40 << 20}} {
		must(t, os.Truncate(root+"/f", c.size))
		var before, now runtime.MemStats
		runtime.GC()
		runtime.GC() // empties pools
		runtime.ReadMemStats(&before)
		var mu sync.Mutex
		var peak uint64
		read := bytesRead(t)
		_, _, err = tree.Chunk(t.Context(), pathOf(t, "f"), c.average, Body{}, func(context.Context, Piece) error {
			mu.Lock()
			defer mu.Unlock()
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapAlloc)
			return nil
		})
		must(t, err)
		runtime.ReadMemStats(&now)
		t.Logf("average %d: at most %.1f MiB more, %.1f MiB allocated", c.average,
			float64(int64(peak)-int64(before.HeapAlloc))/(1<<20), float64(now.TotalAlloc-before.TotalAlloc)/(1<<20))
		if peak > before.HeapAlloc+c.limit {
			t.Errorf("average %d: %d MiB more", c.average, (peak-before.HeapAlloc)>>20)
		}
		if bytesRead(t)-read < c.size {
			t.Error("it was not read")
		}
	}
}

func BenchmarkChunkSparse(b *testing.B) {
	tree, root := open(b, Options{})
	var parts []int
	for range 500 {
		parts = append(parts, 4, -252)
	}
	layoutOnly(b, root+"/f", parts)
	p := pathOf(b, "f")
	b.SetBytes(500 * 256 << 10)
	b.ReportAllocs()
	for b.Loop() {
		_, _, err := tree.Chunk(b.Context(), p, average, Body{}, func(context.Context, Piece) error { return nil })
		must(b, err)
	}
}
