package rig

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
)

// TestContent shows that a kind and a seed are always the same bytes, however
// they are read, and that text compresses as text does, and random bytes not.
func TestContent(t *testing.T) {
	const size = 1<<20 + 1
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	for _, c := range []struct {
		kind   string
		lo, hi int // of the compressed size, in percent
	}{{"random", 99, 101}, {"text", 20, 50}} {
		all, err := io.ReadAll(Content(c.kind, 1, size))
		if err != nil || len(all) != size {
			t.Fatalf("%s: %d bytes, %v", c.kind, len(all), err)
		}
		again, err := io.ReadAll(iotest.HalfReader(Content(c.kind, 1, size)))
		if err != nil || !bytes.Equal(all, again) {
			t.Errorf("%s: other bytes the second time, or %v", c.kind, err)
		}
		other, err := io.ReadAll(Content(c.kind, 2, size))
		if err != nil || bytes.Equal(all, other) {
			t.Errorf("%s: the same bytes from another seed, or %v", c.kind, err)
		}
		if percent := 100 * len(enc.EncodeAll(all, nil)) / size; percent < c.lo || percent > c.hi {
			t.Errorf("%s: compresses to %d %%", c.kind, percent)
		}
	}
}
