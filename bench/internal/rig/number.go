package rig

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Median returns the middle one of all, or the lower one of the two in the
// middle: a value that was measured.
func Median[T cmp.Ordered](all []T) T { return Quantile(all, 0.5) }

// Quantile returns the smallest of all that a share of them does not exceed; one
// that was measured too.
func Quantile[T cmp.Ordered](all []T, share float64) T {
	rank := int(math.Ceil(share * float64(len(all))))
	return slices.Sorted(slices.Values(all))[max(rank, 1)-1]
}

// Short writes three digits or so.
func Short(d time.Duration) string {
	switch {
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}
