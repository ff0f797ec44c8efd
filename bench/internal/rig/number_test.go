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

func TestQuantile(t *testing.T) {
	all := make([]int, 100)
	for i := range all {
		all[i] = 100 - i
	}
	for share, want := range map[float64]int{0: 1, 0.5: 50, 0.99: 99, 0.991: 100, 1: 100} {
		if got := Quantile(all, share); got != want {
			t.Errorf("%v: got %d, want %d", share, got, want)
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
