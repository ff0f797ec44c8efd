package source

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

type stretch struct {
	end  int64
	hole bool
}

func TestExtents(t *testing.T) {
	const size = 1 << 20
	type answer struct {
		off int64
		err error
	}
	for name, c := range map[string]struct {
		answers []answer
		want    []stretch
		err     error
	}{
		"EINVAL":               {[]answer{{0, unix.EINVAL}, {0, unix.EINVAL}}, []stretch{{size, false}}, nil},
		"ENOTSUP":              {[]answer{{0, unix.ENOTSUP}, {0, unix.ENOTSUP}}, []stretch{{size, false}}, nil},
		"all data":             {[]answer{{0, nil}, {size, nil}}, []stretch{{size, false}}, nil},
		"all hole":             {[]answer{{0, unix.ENXIO}}, []stretch{{size, true}}, nil},
		"it grew":              {[]answer{{0, nil}, {size + 5, nil}}, []stretch{{size, false}}, nil},
		"grew behind its hole": {[]answer{{size + 5, nil}}, []stretch{{size, true}}, nil},
		"a hole between": {[]answer{{0, nil}, {4096, nil}, {4096 + minHole, nil}, {4096 + minHole, nil}, {4096 + minHole, nil}, {size, nil}},
			[]stretch{{4096, false}, {4096 + minHole, true}, {size, false}}, nil},
		"data gone between the questions": {[]answer{{0, nil}, {0, nil}}, nil, ErrUnstable},
		"the file gone between":           {[]answer{{0, nil}, {0, unix.ENXIO}}, nil, ErrUnstable},
		"backwards":                       {[]answer{{0, nil}, {4096, nil}, {4000, nil}}, nil, ErrUnstable},
		"a broken disk":                   {[]answer{{0, unix.EIO}}, nil, unix.EIO},
	} {
		answers := c.answers
		e := extents{size: size, seek: func(int64, int) (int64, error) {
			if len(answers) == 0 {
				t.Fatalf("%s: asked too often", name)
			}
			a := answers[0]
			answers = answers[1:]
			return a.off, a.err
		}}
		var got []stretch
		var err error
		for at := int64(0); at < size && err == nil; {
			var s stretch
			if s.end, s.hole, err = e.next(at); err == nil {
				got, at = append(got, s), s.end
			}
		}
		if !slices.Equal(got, c.want) || !errors.Is(err, c.err) {
			t.Errorf("%s: %v, %v, want %v, %v", name, got, err, c.want, c.err)
		}
	}
}

// A list that would be too long is found by the holes before anything is put,
// else where it ends.
func TestListsThatAreTooLong(t *testing.T) {
	tree, root := open(t, Options{})
	var many []int
	for range 8 {
		many = append(many, 64, -256)
	}
	for _, c := range []struct {
		name  string
		parts []int
		most  int
		puts  int32
	}{
		{"holes", many, 15, 0}, {"no data at all", []int{64, -4096, 64, -4096}, 3, 0},
		{"dense, of more than the largest chunks", []int{8 << 10}, 7, 0},
	} {
		layoutOnly(t, root+"/f", c.parts)
		var puts atomic.Int32
		_, _, err := tree.chunk(t.Context(), pathOf(t, "f"), average, Body{}, c.most, func(context.Context, Piece) error { puts.Add(1); return nil })
		skipped(t, err, TooLarge)
		if puts.Load() != c.puts {
			t.Errorf("%s: %d chunks put", c.name, puts.Load())
		}
	}
	content := noise(8<<20, 1)
	write(t, root+"/f", string(content))
	chunks := len(cutBy(t, content, average))
	put := func(context.Context, Piece) error { return nil }
	if _, _, err := tree.chunk(t.Context(), pathOf(t, "f"), average, Body{}, chunks, put); err != nil {
		t.Errorf("as many as may be: %v", err)
	}
	_, _, err := tree.chunk(t.Context(), pathOf(t, "f"), average, Body{}, chunks-1, put)
	skipped(t, err, TooLarge)
	layoutOnly(t, root+"/f", many)
	if _, _, err := tree.chunk(t.Context(), pathOf(t, "f"), average, Body{}, 16, put); err != nil {
		t.Errorf("as many as may be, with holes: %v", err)
	}
	must(t, os.Remove(root+"/f"))
}
