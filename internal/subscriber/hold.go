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

// Blocks reports whether something held must be applied before e can be.
func (h *holdings) Blocks(e *events.Entry) bool {
	return slices.ContainsFunc(h.list, func(x hold) bool { return events.Ordered(&x.entry, e) })
}

// Supersede drops what is held of path, since a newer entry of it is here,
// and returns the deliveries to ack.
func (h *holdings) Supersede(path events.Path) (old []stream.Delivery) {
	h.list = slices.DeleteFunc(h.list, func(x hold) bool {
		if x.entry.Path == path {
			old = append(old, x.delivery)
		}
		return x.entry.Path == path
	})
	return old
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

// Take empties the holdings and returns them, in stream order.
func (h *holdings) Take() []hold {
	list := h.list
	h.list = nil
	return list
}

// Wait is how long to the next try.
func (h *holdings) Wait() time.Duration {
	return min(shortestHold<<min(h.attempts, 10), longestHold)
}
