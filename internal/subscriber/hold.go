package subscriber

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"treecast/internal/events"
	"treecast/internal/stream"
)

// A hold is an entry that could not be applied for now. Its message is not
// kept: it is fetched again for the next try. It is not acked either, unless
// there are many. One that a reconcile holds was not delivered: to ack it does
// nothing.
type hold struct {
	delivery stream.Delivery // without its payload
	entry    events.Entry
	cause    string
	doubt    *doubt // the path was found to differ; nil: it was not
	fetching bool   // its body is on its way, or waits for its turn
	gone     bool   // it is not held any more
	acked    bool   // the broker does not wait for it any more
}

// blocks reports whether x must be applied before e, of the message seq, can
// be: kin, and what was renamed from where e would take the bytes away, so that
// a renamed file is never gone under both names.
func (x *hold) blocks(seq uint64, e *events.Entry) bool {
	from := x.entry.From
	return x.delivery.Seq < seq && (events.Ordered(&x.entry, e) || from != nil && e.Kind != events.Dir && from.Within(e.Path))
}

// holdings are the held entries, by sequence. They belong to the goroutine
// that commits. A reconcile may hold all large files of a site: what is done for
// each entry must not look at each hold.
type holdings struct {
	list     []*hold // in stream order
	bodies   []*hold // whose turn to be fetched is to come, or that are gone
	freed    []*hold // gone, and what waited behind them was not looked for yet
	attempts int     // tries without any success
	tried    uint64  // the last message of those that were tried last
	unacked  int     // how many of the list are

	at    map[events.Path][]*hold // those of a path, or renamed from it
	below map[events.Path]int     // how many are of, or from, a path under it
}

const (
	shortestHold = 250 * time.Millisecond
	longestHold  = 10 * time.Second
)

// Add holds an entry for cause; errFetching says that its body is to be
// fetched. One that is held already gets the new cause.
func (h *holdings) Add(d stream.Delivery, e events.Entry, cause error) *hold {
	i, found := h.find(d.Seq)
	if !found {
		d.Payload = nil
		h.list = slices.Insert(h.list, i, &hold{delivery: d, entry: e})
		h.index(h.list[i])
		h.unacked++
	}
	x := h.list[i]
	x.cause = cause.Error()
	if errors.Is(cause, errFetching) {
		h.Fetch(x)
	}
	return x
}

// Fetch has the body of x fetched, after those that it was called with before.
func (h *holdings) Fetch(x *hold) {
	if !x.fetching {
		x.fetching = true
		h.bodies = append(h.bodies, x)
	}
}

// find returns the place of the message seq, and whether it is held.
func (h *holdings) find(seq uint64) (int, bool) {
	return slices.BinarySearchFunc(h.list, seq, func(x *hold, seq uint64) int {
		return cmp.Compare(x.delivery.Seq, seq)
	})
}

// index makes x known by its paths.
func (h *holdings) index(x *hold) {
	if h.at == nil {
		h.at, h.below = make(map[events.Path][]*hold), make(map[events.Path]int)
	}
	for _, p := range x.paths() {
		h.at[p] = append(h.at[p], x)
		for !p.IsRoot() {
			p = p.Parent()
			h.below[p]++
		}
	}
}

// forget undoes index, and says that x is gone.
func (h *holdings) forget(x *hold) {
	x.gone = true
	if x.doubt != nil {
		x.doubt.settled.Store(true)
	}
	if !x.acked {
		h.unacked--
	}
	for _, p := range x.paths() {
		if h.at[p] = slices.DeleteFunc(h.at[p], func(y *hold) bool { return x == y }); len(h.at[p]) == 0 {
			delete(h.at, p)
		}
		for !p.IsRoot() {
			p = p.Parent()
			if h.below[p]--; h.below[p] == 0 {
				delete(h.below, p)
			}
		}
	}
}

func (x *hold) paths() []events.Path {
	if x.entry.From != nil {
		return []events.Path{x.entry.Path, *x.entry.From}
	}
	return []events.Path{x.entry.Path}
}

// Blocks reports whether something held must be applied before e, of the
// message seq, can be.
func (h *holdings) Blocks(seq uint64, e *events.Entry) bool {
	blocks := func(x *hold) bool { return x.blocks(seq, e) }
	for p := e.Path; ; p = p.Parent() {
		if slices.ContainsFunc(h.at[p], blocks) {
			return true
		}
		if p.IsRoot() {
			break
		}
	}
	return e.Kind != events.Dir && h.below[e.Path] > 0 && slices.ContainsFunc(h.list, blocks)
}

// Supersede drops what is held of path from before the message seq, since a
// newer entry of it is here, and returns the deliveries to ack.
func (h *holdings) Supersede(seq uint64, path events.Path) (old []stream.Delivery) {
	for _, x := range slices.Clone(h.at[path]) {
		if x.entry.Path == path && x.delivery.Seq < seq {
			old = append(old, x.delivery)
			h.Release(x.delivery.Seq)
		}
	}
	return old
}

// Release takes the message seq out, and reports whether it was held.
func (h *holdings) Release(seq uint64) bool {
	i, found := h.find(seq)
	if found {
		x := h.list[i]
		h.list = slices.Delete(h.list, i, i+1)
		h.forget(x)
		h.freed = append(h.freed, x)
	}
	return found
}

// Holds reports whether the message seq is held.
func (h *holdings) Holds(seq uint64) bool {
	_, found := h.find(seq)
	return found
}

// Unacked reports whether the message seq is held and not acked.
func (h *holdings) Unacked(seq uint64) bool {
	i, found := h.find(seq)
	return found && !h.list[i].acked
}

// LetGo returns the deliveries of all that is held, to be acked, if more than
// n of them are not: a consumer delivers nothing new while it has too many on
// their way. They are held all the same. It is the watermark, which is below them, that
// brings them back after a crash: the consumer is reset to it, acked or not.
func (h *holdings) LetGo(n int) (acks []stream.Delivery) {
	if h.unacked <= n {
		return nil
	}
	for _, x := range slices.Backward(h.list) { // the newest are the ones
		if h.unacked == 0 {
			break
		}
		if !x.acked {
			x.acked = true
			h.unacked--
			acks = append(acks, x.delivery)
		}
	}
	return acks
}

// Before returns the last sequence that is below every held one, at most last.
func (h *holdings) Before(last uint64) uint64 {
	if len(h.list) > 0 {
		return min(last, h.list[0].delivery.Seq-1)
	}
	return last
}

// Due returns what a try may help: what is being fetched, or waits behind
// another, is not among it, so that the order does not matter. They are n at
// most, the next ones after those of the last call.
func (h *holdings) Due(n int) (due []*hold) {
	next, found := h.find(h.tried)
	if found {
		next++
	}
	for i := range h.list {
		x := h.list[(next+i)%len(h.list)]
		if len(due) == n {
			break
		}
		if !x.fetching && !h.Blocks(x.delivery.Seq, &x.entry) {
			due = append(due, x)
			h.tried = x.delivery.Seq
		}
	}
	return due
}

// Freed returns what of Due waited behind something that went since it was
// called last.
func (h *holdings) Freed() (due []*hold) {
	freed := h.freed
	h.freed = nil
	if len(freed) == 0 {
		return nil
	}
	before := holdings{list: freed}
	for _, x := range freed {
		before.index(x)
	}
	for _, x := range h.list {
		if !x.fetching && before.Blocks(x.delivery.Seq, &x.entry) && !h.Blocks(x.delivery.Seq, &x.entry) {
			due = append(due, x)
		}
	}
	return due
}

// Cut lets go of what is held after the message last, and of all after the
// first n that are not being fetched. It returns the message up to which
// nothing was let go of.
func (h *holdings) Cut(last uint64, n int) uint64 {
	for _, x := range h.list {
		if x.fetching {
			continue
		}
		if n--; n < 0 {
			last = min(last, x.delivery.Seq-1)
			break
		}
	}
	kept, _ := h.find(last + 1)
	for _, x := range h.list[kept:] {
		h.forget(x)
	}
	h.list = slices.Delete(h.list, kept, len(h.list))
	return last
}

// Wait is how long to the next try.
func (h *holdings) Wait() time.Duration {
	return min(shortestHold<<min(h.attempts, 10), longestHold)
}
