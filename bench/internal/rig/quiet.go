package rig

import (
	"context"
	"time"
)

// Quiet waits until the daemons have used next to no CPU for a second, or for
// the time that they are given: then it reports false.
func (d *Daemons) Quiet(ctx context.Context, patience time.Duration) (calm bool, err error) {
	const window, most = 250 * time.Millisecond, 5 * time.Millisecond // of CPU
	sum := func() (all time.Duration) {
		for _, used := range d.CPU() {
			all += used
		}
		return all
	}
	was := sum()
	for n, start := 0, time.Now(); n < 4; {
		if time.Since(start) > patience {
			return false, nil
		}
		if err := Sleep(ctx, window); err != nil {
			return false, err
		}
		now := sum()
		if n++; now-was > most {
			n = 0
		}
		was = now
	}
	return true, nil
}
