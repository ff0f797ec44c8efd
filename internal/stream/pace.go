package stream

import (
	"context"
	"sync"
	"time"
)

// A pace keeps what is read in bulk at a rate, over all who read at once. There
// is no way to slow down an answer that is on its way: so requests wait, and ask
// for little.
type pace struct {
	rate int64 // bytes a second; 0: as fast as it goes

	mu   sync.Mutex
	free time.Time // when all that was asked for before has had its time
}

// most is how much to ask for at once, up to n bytes: half a second's, but not
// so little that the round trips count.
func (p *pace) most(n int) int {
	if p.rate == 0 {
		return n
	}
	return int(min(int64(n), max(p.rate/2, 64<<10)))
}

// wait returns when n more bytes may be asked for, or ctx's error.
func (p *pace) wait(ctx context.Context, n int64) error {
	if p.rate == 0 {
		return nil
	}
	p.mu.Lock()
	now := time.Now()
	at := now
	if p.free.After(now) {
		at = p.free
	}
	p.free = at.Add(p.time(n))
	p.mu.Unlock()
	err := sleep(ctx, at.Sub(now))
	if err != nil {
		p.got(n, 0)
	}
	return err
}

// got corrects a wait for wanted bytes when it is known how many they were.
func (p *pace) got(wanted, n int64) {
	if p.rate == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = p.free.Add(p.time(n - wanted))
}

func (p *pace) time(n int64) time.Duration {
	return time.Duration(float64(n) / float64(p.rate) * float64(time.Second))
}
