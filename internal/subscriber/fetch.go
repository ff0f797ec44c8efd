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
	running map[events.Path]*fetchJob
	arrived chan *fetchJob // those that ended; there is room for all
}

// A fetchJob is one body on its way.
type fetchJob struct {
	hold   *hold
	item   *item // when it has ended; nil: the stream has no such message any more
	cancel context.CancelFunc
}

// fetchSlots is how many large bodies are on their way at once.
const fetchSlots = 4

func newFetches(ctx context.Context, s *subscriber, g *errgroup.Group) *fetches {
	return &fetches{
		s: s, g: g, ctx: ctx,
		running: make(map[events.Path]*fetchJob), arrived: make(chan *fetchJob, fetchSlots),
	}
}

// Fill gives up what is not held any more, begins with the next bodies if there
// is a slot for them, and reports whether any is on its way.
func (f *fetches) Fill(h *holdings) bool {
	for _, j := range f.running {
		if j.hold.gone {
			j.cancel()
		}
	}
	for i := 0; i < len(h.bodies) && len(f.running) < fetchSlots; {
		x := h.bodies[i]
		if !x.gone && f.running[x.entry.Path] != nil { // an older one of this path, that ends now
			i++
			continue
		}
		h.bodies = slices.Delete(h.bodies, i, i+1)
		if !x.gone {
			f.start(x)
		}
	}
	return len(f.running) > 0
}

func (f *fetches) start(x *hold) {
	ctx, cancel := context.WithCancel(f.ctx)
	j := &fetchJob{hold: x, cancel: cancel}
	f.running[x.entry.Path] = j
	f.g.Go(func() error {
		defer cancel()
		j.item = f.s.fetch(ctx, x.delivery, x.entry)
		f.arrived <- j
		return nil
	})
}

// fetch gets the message of a held entry, which has the list of chunks, and
// stages its body; nil if the stream does not have it any more.
func (s *subscriber) fetch(ctx context.Context, d stream.Delivery, e events.Entry) *item {
	it := &item{delivery: d, entry: e}
	found := false
	it.err = s.conn.Fetch(ctx, s.Site, []uint64{d.Seq}, func(d stream.Delivery) error {
		it.delivery.Payload = d.Payload
		found = true
		return nil
	})
	if it.err == nil && !found {
		return nil
	}
	if it.err == nil {
		it.staged, it.err = s.stageLarge(ctx, &it.entry, it.delivery.Payload)
	}
	return it
}

// Take frees the slot of a job that has arrived, and of those that have
// besides, and returns the jobs whose entries are still held.
func (f *fetches) Take(j *fetchJob) (jobs []*fetchJob) {
	for {
		delete(f.running, j.hold.entry.Path)
		if j.hold.gone {
			j.discard()
		} else {
			j.hold.fetching = false
			jobs = append(jobs, j)
		}
		select {
		case j = <-f.arrived:
		default:
			return jobs
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
	if j.item != nil {
		j.item.discard()
	}
}
