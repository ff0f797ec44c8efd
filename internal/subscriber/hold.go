package subscriber

import (
	"cmp"
	"slices"
	"time"

	"treecast/internal/events"
	"treecast/internal/stream"
)

// A hold is an entry that could not be applied for now. Its message is not
// acked and not kept: it is fetched again for the next try.
type hold struct {
	delivery stream.Delivery // without its payload
	entry    events.Entry
	cause    string
}

// holdings are the held entries, by sequence. They belong to the goroutine
// that commits.
type holdings struct {
	list     []hold // in stream order
	attempts int    // tries without any success
}

const (
	shortestHold = 250 * time.Millisecond
	longestHold  = 10 * time.Second
)

// Add holds an entry; the first cause for a path stays until it is tried.
func (h *holdings) Add(d stream.Delivery, e events.Entry, cause error) {
	d.Payload = nil
	i, found := slices.BinarySearchFunc(h.list, d.Seq, func(x hold, seq uint64) int {
		return cmp.Compare(x.delivery.Seq, seq)
	})
	if !found {
		h.list = slices.Insert(h.list, i, hold{d, e, cause.Error()})
	}
}

// Blocks reports whether something held must be applied before e, of the
// message seq, can be: its kin, and what was renamed from where e would take the
// bytes away, so that a renamed file is never gone under both names.
func (h *holdings) Blocks(seq uint64, e *events.Entry) bool {
	return slices.ContainsFunc(h.list, func(x hold) bool {
		from := x.entry.From
		return x.delivery.Seq < seq && (events.Ordered(&x.entry, e) || from != nil && e.Kind != events.Dir && from.Within(e.Path))
	})
}

// Supersede drops what is held of path from before the message seq, since a
// newer entry of it is here, and returns the deliveries to ack.
func (h *holdings) Supersede(seq uint64, path events.Path) (old []stream.Delivery) {
	h.list = slices.DeleteFunc(h.list, func(x hold) bool {
		older := x.entry.Path == path && x.delivery.Seq < seq
		if older {
			old = append(old, x.delivery)
		}
		return older
	})
	return old
}

// Release takes the message seq out, and reports whether it was held.
func (h *holdings) Release(seq uint64) bool {
	before := len(h.list)
	h.list = slices.DeleteFunc(h.list, func(x hold) bool { return x.delivery.Seq == seq })
	return len(h.list) < before
}

// Holds reports whether the message seq is held.
func (h *holdings) Holds(seq uint64) bool {
	return slices.ContainsFunc(h.list, func(x hold) bool { return x.delivery.Seq == seq })
}

// Before returns the last sequence that is below every held one, at most last.
func (h *holdings) Before(last uint64) uint64 {
	if len(h.list) > 0 {
		return min(last, h.list[0].delivery.Seq-1)
	}
	return last
}

// Take removes up to n of the holdings from place at on, and returns them in
// stream order. The rest stays held.
func (h *holdings) Take(at, n int) []hold {
	n = min(n, len(h.list)-at)
	part := slices.Clone(h.list[at : at+n])
	h.list = slices.Delete(h.list, at, at+n)
	return part
}

// Wait is how long to the next try.
func (h *holdings) Wait() time.Duration {
	return min(shortestHold<<min(h.attempts, 10), longestHold)
}
