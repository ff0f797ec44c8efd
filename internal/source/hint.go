package source

import "treecast/internal/events"

// A Hint says: look at Path again. Deep: and, if it is a directory, list it and
// everything under it; if it is none, nothing that was under it is there.
type Hint struct {
	Path events.Path
	Deep bool
}

// A burst collects hints, each path once, in the order of their first mention.
type burst struct {
	hints []Hint
	at    map[events.Path]int
}

func (b *burst) add(p events.Path, deep bool) {
	if i, ok := b.at[p]; ok {
		b.hints[i].Deep = b.hints[i].Deep || deep
		return
	}
	if b.at == nil {
		b.at = make(map[events.Path]int)
	}
	b.at[p] = len(b.hints)
	b.hints = append(b.hints, Hint{p, deep})
}

// take returns what was collected, for the caller to keep.
func (b *burst) take() []Hint {
	hints := b.hints
	b.hints = nil
	if len(b.at) > 1<<12 {
		b.at = nil // a map never shrinks
	}
	clear(b.at)
	return hints
}

func (b *burst) has(p events.Path) bool {
	_, ok := b.at[p]
	return ok
}

func (b *burst) empty() bool { return len(b.hints) == 0 }
