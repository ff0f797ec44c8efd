package subscriber

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"treecast/internal/apply"
	"treecast/internal/stream"
)

// A follower applies a consumer's deliveries. All but seen belongs to the
// goroutine that commits.
type follower struct {
	*subscriber
	pipeline *pipeline
	seen     atomic.Uint64 // the newest message that was put
	mark     apply.Watermark
	retryAt  time.Time // when what is held is tried next; zero: nothing is
	last     uint64    // the newest message that was committed, parked or held
	holdings holdings
	fetches  *fetches
}

func newFollower(s *subscriber, mark apply.Watermark) *follower {
	return &follower{subscriber: s, pipeline: newPipeline(s), mark: mark, last: mark.Seq}
}

// put adds a delivery; it blocks while there is too much to do.
func (f *follower) put(ctx context.Context, d stream.Delivery) {
	it := &item{delivery: d}
	if before := f.seen.Load(); d.Seq <= before {
		it.again = true
	} else {
		f.seen.Store(d.Seq) // put has one caller
	}
	_ = f.pipeline.put(ctx, it) // ends with ctx, and so does our caller
}

// run commits until ctx ends or the tree's own state cannot be written.
func (f *follower) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	f.fetches = newFetches(ctx, f.subscriber, g)
	for range stageWorkers {
		g.Go(func() error { return f.pipeline.stage(ctx) })
	}
	var group []*item
	g.Go(func() (err error) {
		retry := time.NewTimer(longestHold)
		defer retry.Stop()
		for {
			var body *fetchJob
			if group, body, err = f.pipeline.next(ctx, retry.C, f.fetches.arrived); err != nil {
				return err
			}
			if body != nil {
				if err = f.arrive(ctx, body); err != nil {
					return err
				}
			}
			if len(group) > 0 {
				err = f.deliver(ctx, group)
				f.pipeline.release(group)
				group = nil
			}
			if err == nil && !f.retryAt.IsZero() && !time.Now().Before(f.retryAt) {
				f.retryAt = time.Time{}
				err = f.retry(ctx)
			}
			if err != nil {
				return err
			}
			// Whatever comes meanwhile does not put the next try off.
			if len(f.holdings.list) > 0 && f.retryAt.IsZero() {
				f.retryAt = time.Now().Add(f.holdings.Wait())
			}
			if !f.retryAt.IsZero() {
				retry.Reset(max(0, time.Until(f.retryAt)))
			}
		}
	})
	err := g.Wait()
	f.pipeline.drain(group)
	select {
	case body := <-f.fetches.arrived:
		body.item.discard()
	default:
	}
	return err
}

// arrive commits a large body that was fetched, if its entry is still wanted.
func (f *follower) arrive(ctx context.Context, j *fetchJob) error {
	f.fetches.Done(j)
	it := &j.item
	defer it.discard()
	if !f.holdings.Release(it.delivery.Seq) {
		return nil // superseded; it was acked then
	}
	start := time.Now()
	n, err := f.apply(ctx, []*item{it}, nil)
	if err == nil && n > 0 {
		f.retryAt = time.Now() // something may be held behind it
		f.Log.Info("body applied", "path", strconv.Quote(it.entry.Path.String()), "seq", it.delivery.Seq, "bytes", it.entry.Size,
			"elapsed", time.Since(start))
	}
	return err
}

// deliver applies a group that the consumer delivered.
func (f *follower) deliver(ctx context.Context, group []*item) error {
	fresh := make([]*item, 0, len(group))
	var acks []stream.Delivery
	for _, it := range group {
		if it.delivery.Seq <= f.last { // its ack was lost, or it is held
			if !f.holdings.Holds(it.delivery.Seq) {
				acks = append(acks, it.delivery)
			}
			continue
		}
		f.last = it.delivery.Seq
		fresh = append(fresh, it)
	}
	start := time.Now()
	n, err := f.apply(ctx, fresh, acks)
	if err != nil {
		return err
	}
	f.Log.Info("applied", "entries", n, "seq", f.last, "pending", group[len(group)-1].delivery.Pending,
		"held", len(f.holdings.list), "elapsed", time.Since(start))
	return nil
}

// retry tries what is held, in order and a part at a time. What the stream no
// longer has was superseded: the newer entry comes, or came.
func (f *follower) retry(ctx context.Context) error {
	applied := 0
	for at := 0; at < len(f.holdings.list); {
		before := len(f.holdings.list)
		n, err := f.retryPart(ctx, f.holdings.Take(at, heldAtOnce))
		if err != nil {
			return err
		}
		applied += n
		at += len(f.holdings.list) - (before - min(heldAtOnce, before-at)) // those that failed again
	}
	f.holdings.attempts++
	if applied > 0 {
		f.holdings.attempts = 0
		f.Log.Info("held entries applied", "entries", applied, "held", len(f.holdings.list))
	}
	return nil
}

// heldAtOnce bounds what a retry fetches and stages.
const heldAtOnce = 64

func (f *follower) retryPart(ctx context.Context, part []hold) (int, error) {
	bySeq := make(map[uint64]hold, len(part))
	seqs := make([]uint64, 0, len(part))
	waiting := part
	part = make([]hold, 0, len(waiting))
	for _, h := range waiting {
		if f.fetches.Running(h.delivery.Seq, h.entry.Path) {
			f.holdings.Add(h.delivery, h.entry, errFetching)
			continue
		}
		part = append(part, h)
		seqs = append(seqs, h.delivery.Seq)
		bySeq[h.delivery.Seq] = h
		if err := h.delivery.InProgress(); err != nil {
			f.Log.Debug("in-progress not sent", "seq", h.delivery.Seq, "err", err)
		}
	}
	if len(part) == 0 {
		return 0, nil
	}
	var items []*item
	defer func() {
		for _, it := range items {
			it.discard()
		}
	}()
	err := f.conn.Fetch(ctx, f.Site, seqs, func(d stream.Delivery) error {
		it := &item{delivery: d, ready: make(chan struct{})}
		it.stage(ctx, f.Site, f.tree)
		it.delivery = bySeq[d.Seq].delivery // the one that can be acked
		it.delivery.Payload = d.Payload
		delete(bySeq, d.Seq)
		items = append(items, it)
		return nil
	})
	if err != nil {
		for _, h := range part {
			f.holdings.Add(h.delivery, h.entry, errors.New(h.cause))
		}
		f.Log.Warn("held entries not fetched", "entries", len(part), "err", err)
		return 0, ctx.Err()
	}
	var acks []stream.Delivery
	for _, h := range part {
		if _, gone := bySeq[h.delivery.Seq]; gone {
			acks = append(acks, h.delivery)
		}
	}
	return f.apply(ctx, items, acks)
}

// apply commits a group, parks or holds what of it failed, moves the
// watermark, and acks the group and acks. It returns how many entries were
// applied. An error ends the session, with nothing acked that is not durable.
func (f *follower) apply(ctx context.Context, group []*item, acks []stream.Delivery) (int, error) {
	applying := make([]*item, 0, len(group))
	for _, it := range group {
		if it.delivery.Subject == f.Site.LeaseSubject() {
			f.mark.Epoch = max(f.mark.Epoch, it.delivery.Seq)
		}
		switch {
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case it.err != nil && apply.Permanent(it.err):
			if err := f.park(it); err != nil {
				return 0, err
			}
			acks = append(acks, it.delivery)
			continue
		case it.staged == nil && it.err == nil && !it.large:
			acks = append(acks, it.delivery)
			continue
		}
		acks = append(acks, f.holdings.Supersede(it.delivery.Seq, it.entry.Path)...)
		f.fetches.Supersede(it.delivery.Seq, it.entry.Path)
		switch {
		case it.large:
			f.holdings.Add(it.delivery, it.entry, errFetching)
			f.fetches.Start(it)
		case it.err != nil:
			f.hold(it, it.err)
		case f.holdings.Blocks(it.delivery.Seq, &it.entry):
			f.hold(it, apply.ErrBehind)
		default:
			applying = append(applying, it)
		}
	}
	done, err := f.commit(ctx, applying)
	if err != nil {
		return 0, err
	}
	n := len(done)
	for _, it := range done {
		acks = append(acks, it.delivery)
	}
	if at := f.holdings.Before(f.last); at > f.mark.Seq {
		f.mark.Seq = at
		if len(group) > 0 {
			f.mark.Time = group[len(group)-1].delivery.Time.UTC()
		}
		if err := f.tree.Mark(f.mark); err != nil {
			return n, err
		}
	}
	for i := range acks {
		if err := acks[i].Ack(); err != nil { // then it comes again
			f.Log.Debug("ack not sent", "seq", acks[i].Seq, "err", err)
		}
	}
	f.status.follow(f.mark, f.holdings.list)
	if f.mark.Unswept && slices.ContainsFunc(done, func(it *item) bool { return it.entry.Whole }) {
		return n, errSealed
	}
	return n, nil
}

// commit makes items visible and durable and returns those that are; the
// others are parked or held.
func (f *follower) commit(ctx context.Context, items []*item) (done []*item, err error) {
	if len(items) == 0 {
		return nil, nil
	}
	staged := make([]*apply.Staged, len(items))
	for i, it := range items {
		staged[i] = it.staged
	}
	results, err := f.tree.Commit(ctx, staged)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		for _, it := range items {
			f.hold(it, err)
		}
		return nil, nil
	}
	for i, r := range results {
		it := items[i]
		switch {
		case r.Err == nil:
			done = append(done, it)
			f.applied(it, r.Outcome)
		case apply.Permanent(r.Err):
			it.err = r.Err
			if err := f.park(it); err != nil {
				return nil, err
			}
			done = append(done, it)
		default:
			f.hold(it, r.Err)
		}
	}
	return done, nil
}

// errSealed ends a session: the stream now has all that a publisher found, so
// that what is foreign can be told.
var errSealed = errors.New("the stream was sealed")

// hold keeps an entry for another try.
func (f *follower) hold(it *item, cause error) {
	f.holdings.Add(it.delivery, it.entry, cause)
	f.status.held(it.entry.Path, cause)
}

// applied notes an entry that the tree now has.
func (s *subscriber) applied(it *item, outcome apply.Outcome) {
	path := it.entry.Path.String()
	s.status.applied(it.entry.Path)
	if err := s.tree.Unpark(it.entry.Path); err != nil {
		s.Log.Warn("list of refused entries not updated", "path", strconv.Quote(path), "err", err)
	}
	s.Log.Debug("entry applied", "path", strconv.Quote(path), "seq", it.delivery.Seq, "outcome", outcome, "bytes", it.entry.Size)
}
