package rig

import "testing"

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		all  []int
		want int
	}{
		{[]int{7}, 7},
		{[]int{9, 1}, 1},
		{[]int{9, 1, 5}, 5},
		{[]int{4, 3, 2, 1}, 2},
	} {
		if got := Median(c.all); got != c.want {
			t.Errorf("median of %v is %d, want %d", c.all, got, c.want)
		}
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]string{
		"256MiB": "256 MiB", "4096": "4 KiB", "1GiB": "1 GiB", "1536KiB": "1.5 MiB", "12 B": "12 B", "0": "0 B",
		"": "", "MiB": "", "1MB": "", "-1": "", "9999999999GiB": "",
	} {
		var s Size
		err := s.UnmarshalText([]byte(text))
		if (err == nil) != (want != "") || err == nil && s.String() != want {
			t.Errorf("%q: got %v, %v; want %q", text, s, err, want)
		}
	}
	if got := Size(-3 << 10).String(); got != "-3 KiB" {
		t.Errorf("got %q", got)
	}
}
