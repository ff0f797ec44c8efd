package stream

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Many readers at once get the rate together, whatever they asked for and did
// not get.
func TestPaceIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pace{rate: 1 << 20}
		begin := time.Now()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 10 {
					if err := p.wait(t.Context(), 256<<10); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Millisecond)
					p.got(256<<10, 64<<10)
				}
			})
		}
		wg.Wait()
		// 5 MiB, less what was asked for last, and more for what was asked for and
		// not got.
		if took := time.Since(begin); took < 4500*time.Millisecond || took > 7*time.Second {
			t.Errorf("5 MiB at 1 MiB/s took %v", took)
		}
		time.Sleep(time.Hour) // what was not used is not saved up
		begin = time.Now()
		for range 5 {
			_ = p.wait(t.Context(), 1<<20)
		}
		if took := time.Since(begin); took != 4*time.Second {
			t.Errorf("the fifth MiB after %v", took)
		}
	})
}

// Who does not wait to the end takes no time from the others.
func TestPaceOfWhoGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pace{rate: 1 << 20}
		begin := time.Now()
		_ = p.wait(t.Context(), 1<<20)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 10 {
			if err := p.wait(ctx, 1<<20); err == nil {
				t.Fatal("it did not wait")
			}
		}
		_ = p.wait(t.Context(), 1<<20)
		if took := time.Since(begin); took != time.Second {
			t.Errorf("the second MiB after %v", took)
		}
	})
}
