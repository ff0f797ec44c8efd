package publisher

import (
	"context"
	"sync"
	"time"

	"treecast/internal/events"
)

// pins keep from the collection what no entry names yet. An upload pins an
// object before it asks whether the bucket has it, until it is known what became
// of its entry, and longer while the collection sweeps: see collection.
type pins struct {
	mu       sync.Mutex
	counts   map[events.Digest]int
	aside    map[events.Digest]chan struct{} // closed when the collection is done with the object
	moves    int
	sweeping bool
	ended    []*pinned
}

// A pinned is what one upload has pinned.
type pinned struct {
	path    events.Path
	digests map[events.Digest]bool
	until   time.Time
}

func newPins() *pins {
	return &pins{counts: make(map[events.Digest]int), aside: make(map[events.Digest]chan struct{})}
}

// Pin pins an object for an upload. It waits while the collection is at it.
func (p *pins) Pin(ctx context.Context, of *pinned, d events.Digest) error {
	for {
		p.mu.Lock()
		done := p.aside[d]
		if done == nil && !of.digests[d] {
			if of.digests == nil {
				of.digests = make(map[events.Digest]bool)
			}
			of.digests[d] = true
			p.counts[d]++
		}
		p.mu.Unlock()
		if done == nil {
			return nil
		}
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Release ends what an upload has pinned, after keep.
func (p *pins) Release(of *pinned, keep time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	of.until = time.Now().Add(keep)
	p.ended = append(p.ended, of)
	p.prune()
}

// Forget ends at once what was to be kept for those paths.
func (p *pins) Forget(of func(events.Path) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, kept := range p.ended {
		if of(kept.path) {
			kept.until = time.Time{}
		}
	}
	p.prune()
}

func (p *pins) prune() {
	if p.sweeping {
		return
	}
	now := time.Now()
	left := p.ended[:0]
	for _, of := range p.ended {
		if of.until.After(now) {
			left = append(left, of)
			continue
		}
		for d := range of.digests {
			if p.counts[d]--; p.counts[d] == 0 {
				delete(p.counts, d)
			}
		}
	}
	clear(p.ended[len(left):])
	p.ended = left
}

// Moved notes that an entry was published with the body of another one, which
// may go now.
func (p *pins) Moved() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moves++
}

// Moves counts the calls of Moved.
func (p *pins) Moves() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.moves
}

// Sweep begins a sweep: until its end nothing that is pinned ceases to be.
func (p *pins) Sweep() (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prune()
	p.sweeping = true
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.sweeping = false
		p.prune()
	}
}

// Aside calls fn unless the object is pinned, which it reports; meanwhile nobody
// can pin it.
func (p *pins) Aside(d events.Digest, fn func() error) (pinned bool, err error) {
	done := make(chan struct{})
	p.mu.Lock()
	if p.counts[d] > 0 {
		p.mu.Unlock()
		return true, nil
	}
	p.aside[d] = done
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.aside, d)
		p.mu.Unlock()
		close(done)
	}()
	return false, fn()
}
