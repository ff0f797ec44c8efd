package publisher

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"treecast/internal/events"
	"treecast/internal/source"
	"treecast/internal/stream"
)

// A barrier waits until what was hinted up to a generation is published.
type barrier struct {
	generation uint64
	given      <-chan struct{} // closed when nobody waits any more
	passed     chan uint64     // cap 1: gets the sequence up to which it is in the stream
}

// A barrierCall is a request that came, and the way to answer it.
type barrierCall struct {
	request stream.BarrierRequest
	answer  func(stream.BarrierState)
}

// When a barrier that is not passed yet is answered so: well before the broker's
// permission to answer ends. The watcher is not asked from the start again as
// often as the rounds are.
const (
	hintPatience    = 2 * time.Second
	barrierPatience = 250 * time.Millisecond
)

// barrierCalls is how many requests may wait; who is not heard asks again.
const barrierCalls = 64

// answerBarriers runs beside the rounds, which may take long.
func (s *session) answerBarriers(ctx context.Context) error {
	var g errgroup.Group
	for {
		select {
		case <-ctx.Done():
			_ = g.Wait() // they end with ctx
			return ctx.Err()
		case call := <-s.calls:
			g.Go(func() error {
				call.answer(s.barrier(ctx, call.request))
				return nil
			})
		}
	}
}

// barrier answers one request. What was changed before it was made is a hint by
// the time that its generation closes: the watcher has handed on all events from
// before, and where there are none, a look at the whole is hinted. So nothing of
// that generation being left means that all of it is published, in the state
// that it had then or in a later one.
func (s *session) barrier(ctx context.Context, r stream.BarrierRequest) stream.BarrierState {
	state := stream.BarrierState{Stream: s.created, Generation: r.Generation}
	if state.Generation == 0 {
		if !s.hintAll(ctx, r.Scan) {
			state.Unpublished = []stream.Cause{{Path: `"."`, Reason: "is being watched anew"}}
			state.Count = 1
			return state
		}
		state.Generation = s.dirty.Close()
	}
	ctx, cancel := context.WithTimeout(ctx, barrierPatience)
	defer cancel()
	b := barrier{state.Generation, ctx.Done(), make(chan uint64, 1)}
	select {
	case s.barriers <- b:
		select {
		case state.Seq = <-b.passed:
		case <-ctx.Done():
		}
	case <-ctx.Done(): // a round takes long
	}
	state.Halted = s.report.Halted()
	state.Unpublished, state.Count = s.report.Causes(func(r reason) bool {
		return r.unknown != nothing && (r.final || state.Seq == 0) // what no node is to have lacks nowhere
	})
	return state
}

// hintAll returns true when all that was changed before is hinted.
func (s *session) hintAll(ctx context.Context, scan bool) bool {
	scan = scan || slices.Contains(s.watcher.State().Polled, events.Path{}.String())
	if scan {
		s.dirty.Hint([]source.Hint{{Deep: true}})
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, hintPatience)
	defer cancel()
	if s.watcher.Sync(ctx) != nil {
		return false
	}
	for _, name := range s.watcher.State().Polled {
		p, err := events.ParsePath(name)
		if err != nil {
			p = events.Path{}
		}
		s.dirty.Hint([]source.Hint{{Path: p, Deep: true}})
	}
	return true
}

// passBarriers answers those of which nothing is left. It is called between
// rounds, when no path is in anyone's hands but the uploads'.
func (s *session) passBarriers() {
	s.waiting = slices.DeleteFunc(s.waiting, func(b barrier) bool {
		select {
		case <-b.given:
			return true
		default:
		}
		if s.dirty.Left(b.generation) || s.uploads.Left(b.generation) {
			return false
		}
		b.passed <- s.lease.LastSeq()
		return true
	})
}
