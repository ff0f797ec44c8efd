package subscriber

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	"treecast/internal/events"
	"treecast/internal/stream"
)

// errFetching holds a path whose large body is on its way.
var errFetching = errors.New("its body is being fetched")

// fetches stages large bodies beside the stream of small changes, which do not
// wait for them: meanwhile their entries are held. All but arrived belongs to
// the goroutine that commits.
type fetches struct {
	s       *subscriber
	g       *errgroup.Group
	ctx     context.Context
	running map[*fetchJob]bool
	busy    map[events.Path]bool // paths that running jobs stage
	arrived chan *fetchJob       // those that ended; there is room for all
}

// A fetchJob is a body on its way, or several small ones, which share a
// request and a commit.
type fetchJob struct {
	holds  []*hold
	items  []*item // of each, when the job has ended
	cancel context.CancelFunc
}

// errSuperseded is what became of an entry that the stream no longer has: the
// newer one comes, or came.
var errSuperseded = errors.New("superseded")

const (
	fetchSlots = 4       // jobs at once
	fetchBytes = 8 << 20 // of bodies in a job of several
)

func newFetches(ctx context.Context, s *subscriber, g *errgroup.Group) *fetches {
	return &fetches{
		s: s, g: g, ctx: ctx, running: make(map[*fetchJob]bool), busy: make(map[events.Path]bool),
		arrived: make(chan *fetchJob, fetchSlots),
	}
}

// Fill gives up what is not held any more, begins with the next bodies if there
// is a slot for them, and reports whether any is on its way.
func (f *fetches) Fill(h *holdings) bool {
	for j := range f.running {
		if !slices.ContainsFunc(j.holds, func(x *hold) bool { return !x.gone }) {
			j.cancel()
		}
	}
	for len(f.running) < fetchSlots {
		holds := f.next(h)
		if len(holds) == 0 {
			break
		}
		f.start(holds)
	}
	return len(f.running) > 0
}

// next takes the bodies of a job from the queue. Calls of StageChunks for one
// path must not overlap: one that is busy with an older body waits.
func (f *fetches) next(h *holdings) (holds []*hold) {
	size := int64(0)
	for i := 0; i < len(h.bodies); {
		x := h.bodies[i]
		if !x.gone {
			if f.busy[x.entry.Path] {
				i++
				continue
			}
			if size += x.entry.Size; len(holds) > 0 && size > fetchBytes {
				break
			}
			f.busy[x.entry.Path] = true
			holds = append(holds, x)
		}
		h.bodies = slices.Delete(h.bodies, i, i+1)
	}
	return holds
}

func (f *fetches) start(holds []*hold) {
	ctx, cancel := context.WithCancel(f.ctx)
	j := &fetchJob{holds: holds, cancel: cancel}
	f.running[j] = true
	f.g.Go(func() error {
		defer cancel()
		j.run(ctx, f.s)
		f.arrived <- j
		return nil
	})
}

// run gets the messages of the held entries, which have the lists of chunks,
// and stages the bodies.
func (j *fetchJob) run(ctx context.Context, s *subscriber) {
	bySeq := make(map[uint64]*item, len(j.holds))
	wanted := make([]stream.Wanted, len(j.holds))
	for i, x := range j.holds {
		it := &item{delivery: x.delivery, entry: x.entry, doubt: x.doubt, err: errSuperseded}
		wanted[i], bySeq[x.delivery.Seq] = stream.Wanted{Seq: x.delivery.Seq, Bytes: x.entry.PayloadLimit()}, it
		j.items = append(j.items, it)
	}
	err := s.stream.Fetch(ctx, s.Site, wanted, func(d stream.Delivery) error {
		bySeq[d.Seq].delivery.Payload, bySeq[d.Seq].err = d.Payload, nil
		return nil
	})
	for _, it := range j.items {
		switch {
		case it.err == nil:
			it.stageLarge(ctx, s)
		case err != nil: // it was not asked for
			it.err = err
		}
	}
}

// Take frees the slot of a job that has arrived, and of those that have
// besides, and returns the items whose entries are still held.
func (f *fetches) Take(j *fetchJob) (items []*item) {
	for {
		delete(f.running, j)
		for i, x := range j.holds {
			delete(f.busy, x.entry.Path)
			x.fetching = false
			if x.gone {
				j.items[i].discard()
			} else {
				items = append(items, j.items[i])
			}
		}
		select {
		case j = <-f.arrived:
		default:
			return items
		}
	}
}

// drain frees what arrived and was not taken. No job may be running.
func (f *fetches) drain() {
	for {
		select {
		case j := <-f.arrived:
			j.discard()
		default:
			return
		}
	}
}

func (j *fetchJob) discard() {
	for _, it := range j.items {
		it.discard()
	}
}
