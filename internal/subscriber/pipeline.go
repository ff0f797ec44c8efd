package subscriber

import (
	"context"
	"io"
	"time"

	"golang.org/x/sync/semaphore"

	"treecast/internal/apply"
	"treecast/internal/events"
)

// A pipeline stages items in parallel and gives them out in their order, in
// groups. It holds at most memoryBytes of messages and queueItems items.
type pipeline struct {
	site   events.Site
	tree   *apply.Tree
	memory *semaphore.Weighted
	queue  chan *item // in order
	work   chan *item // the same, to be staged
}

const (
	memoryBytes  = 64 << 20
	queueItems   = 2000
	stageWorkers = 4 // a stage waits for the disk more than for a core
)

func newPipeline(s *subscriber) *pipeline {
	return &pipeline{
		site: s.Site, tree: s.tree, memory: semaphore.NewWeighted(memoryBytes),
		queue: make(chan *item, queueItems), work: make(chan *item, queueItems),
	}
}

// put adds an item behind the others; it blocks while the pipeline is full.
func (p *pipeline) put(ctx context.Context, it *item) error {
	it.ready = make(chan struct{})
	if err := p.memory.Acquire(ctx, it.bytes()); err != nil {
		return err
	}
	for _, c := range []chan *item{p.work, p.queue} {
		select {
		case c <- it:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// finish says that nothing more will be put; next gives io.EOF at the end.
func (p *pipeline) finish() {
	close(p.work)
	close(p.queue)
}

// stage is one of the workers; it returns after finish or when ctx ends.
func (p *pipeline) stage(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case it, ok := <-p.work:
			if !ok {
				return nil
			}
			it.stage(ctx, p.site, p.tree)
		}
	}
}

// next waits for staged items and returns as many as are waiting, within a
// group's limits; none, or a body that has arrived, when tick or arrived comes
// first. What it returns with an error is to be freed by drain.
func (p *pipeline) next(ctx context.Context, tick <-chan time.Time, arrived <-chan *fetchJob) (group []*item, body *fetchJob, err error) {
	var it *item
	var ok bool
	select {
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	case <-tick:
		return nil, nil, nil
	case body = <-arrived:
		return nil, body, nil
	case it, ok = <-p.queue:
	}
	for bytes := int64(0); ok; {
		select {
		case <-ctx.Done():
			return append(group, it), nil, ctx.Err()
		case <-it.ready:
		}
		group = append(group, it)
		bytes += it.bytes()
		if len(group) >= pullMessages || bytes >= pullBytes {
			return group, nil, nil
		}
		select {
		case it, ok = <-p.queue:
		default:
			return group, nil, nil
		}
	}
	if len(group) == 0 {
		return nil, nil, io.EOF
	}
	return group, nil, nil
}

// release frees a group's memory, and what of it is still staged.
func (p *pipeline) release(group []*item) {
	for _, it := range group {
		p.memory.Release(it.bytes())
		it.discard()
	}
}

// drain frees last, and what was never taken. No worker and no put may be
// running.
func (p *pipeline) drain(last []*item) {
	for _, it := range last {
		it.discard()
	}
	for {
		select {
		case it, ok := <-p.queue:
			if !ok {
				return
			}
			it.discard()
		case it, ok := <-p.work:
			if !ok {
				p.work = nil
				continue
			}
			it.discard()
		default:
			return
		}
	}
}
