package subscriber

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"treecast/internal/apply"
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
	slots   *semaphore.Weighted
	jobs    map[events.Path]*fetchJob
	arrived chan *fetchJob // those that ended
}

// A fetchJob is one body on its way.
type fetchJob struct {
	item   item // staged and err are set when it has ended
	cancel context.CancelFunc
	ended  chan struct{}
}

// fetchSlots is how many large bodies are on their way at once.
const fetchSlots = 4

// fetchProgress is how often the broker is told that an entry is at work.
const fetchProgress = 20 * time.Second

func newFetches(ctx context.Context, s *subscriber, g *errgroup.Group) *fetches {
	return &fetches{
		s: s, g: g, ctx: ctx, slots: semaphore.NewWeighted(fetchSlots),
		jobs: make(map[events.Path]*fetchJob), arrived: make(chan *fetchJob, 1),
	}
}

// Start begins to fetch an item's body, unless that is under way. An older one
// of the same path is given up first.
func (f *fetches) Start(it *item) {
	before := f.jobs[it.entry.Path]
	if before != nil {
		if before.item.delivery.Seq == it.delivery.Seq {
			return
		}
		before.cancel()
	}
	ctx, cancel := context.WithCancel(f.ctx)
	j := &fetchJob{item: item{delivery: it.delivery, entry: it.entry}, cancel: cancel, ended: make(chan struct{})}
	f.jobs[it.entry.Path] = j
	f.g.Go(func() error {
		defer cancel()
		defer close(j.ended)
		if before != nil {
			<-before.ended
		}
		j.item.staged, j.item.err = f.fetch(ctx, &j.item)
		select {
		case f.arrived <- j:
			return nil
		case <-f.ctx.Done():
			j.item.discard()
			return f.ctx.Err()
		}
	})
}

func (f *fetches) fetch(ctx context.Context, it *item) (*apply.Staged, error) {
	if err := f.slots.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer f.slots.Release(1)
	stop := make(chan struct{})
	defer close(stop)
	go tellProgress(it.delivery, stop)
	return f.s.stageLarge(ctx, &it.entry, it.delivery.Payload)
}

// tellProgress keeps the broker from sending the message again.
func tellProgress(d stream.Delivery, stop <-chan struct{}) {
	tick := time.NewTicker(fetchProgress)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			_ = d.InProgress() // without a connection it comes again, and is held already
		}
	}
}

// Supersede gives up what is under way for path from before the message seq.
func (f *fetches) Supersede(seq uint64, path events.Path) {
	if j := f.jobs[path]; j != nil && j.item.delivery.Seq < seq {
		j.cancel()
	}
}

// Running reports whether the body of the message seq of path is on its way.
func (f *fetches) Running(seq uint64, path events.Path) bool {
	j := f.jobs[path]
	return j != nil && j.item.delivery.Seq == seq
}

// Done forgets a job that has arrived.
func (f *fetches) Done(j *fetchJob) {
	if f.jobs[j.item.entry.Path] == j {
		delete(f.jobs, j.item.entry.Path)
	}
}
