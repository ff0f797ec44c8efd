package subscriber

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestPace: many small reads and a few large ones take as long, and what was
// not used is not saved up.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pacer{rate: 1 << 20}
		for _, size := range []int{1 << 10, 128 << 10} {
			time.Sleep(time.Hour)
			start := time.Now()
			for range (8 << 20) / size {
				if err := p.take(t.Context(), size); err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(start); took > 8*time.Second || took < 8*time.Second-pacerSlack {
				t.Errorf("reads of %d: %s", size, took)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if p.take(ctx, 0) == nil {
			t.Error("goes on for ever")
		}
	})
}
