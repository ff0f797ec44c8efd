package rig

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A Size is a number of bytes, written as 4096, 4KiB, 1MiB.
type Size int64

var units = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// UnmarshalText is for flags.
func (s *Size) UnmarshalText(text []byte) error {
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
	*s = Size(n * bytes)
	return nil
}

// String rounds to four digits or less.
func (s Size) String() string {
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
