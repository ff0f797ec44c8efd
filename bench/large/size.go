package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A byteSize is a number of bytes, written as 4096, 4KiB, 1MiB.
type byteSize int64

var units = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// UnmarshalText is for flags.
func (s *byteSize) UnmarshalText(text []byte) error {
	digits, bytes := string(text), int64(1)
	for _, u := range units {
		if d, ok := strings.CutSuffix(digits, u.name); ok {
			digits, bytes = d, u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/bytes {
		return fmt.Errorf("%q is no size as 256MiB is", text)
	}
	*s = byteSize(n * bytes)
	return nil
}

// String rounds to four digits or less.
func (s byteSize) String() string {
	for _, u := range units {
		if n := int64(s); n >= u.bytes || -n >= u.bytes {
			if n%u.bytes == 0 {
				return fmt.Sprintf("%d %s", n/u.bytes, u.name)
			}
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.bytes), u.name)
		}
	}
	return "0 B"
}

// A count is a number that not every system has.
type count struct {
	n     int64
	valid bool
}

func known(n int64) count { return count{n, true} }

func (c count) less(d count) count { return count{c.n - d.n, c.valid && d.valid} }

// text writes c as format does, or a dash.
func (c count) text(format func(int64) string) string {
	if !c.valid {
		return "–"
	}
	return format(c.n)
}
