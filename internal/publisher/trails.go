package publisher

import (
	"sync"

	"treecast/internal/events"
)

// trails remembers of the bodies that were uploaded last how their digests were
// made: what is appended to one is then hashed on from there. One that is
// forgotten costs time, no more. It may be used from many goroutines.
type trails struct {
	mu sync.Mutex
	of map[events.Digest]events.Trail
}

// maxTrails bounds the memory: 3 KiB each.
const maxTrails = 1 << 10

func (t *trails) put(d events.Digest, trail events.Trail) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = make(map[events.Digest]events.Trail)
	}
	for old := range t.of { // any will do
		if len(t.of) < maxTrails {
			break
		}
		delete(t.of, old)
	}
	t.of[d] = trail
}

func (t *trails) get(d events.Digest) events.Trail {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.of[d]
}
