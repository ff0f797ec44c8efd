package subscriber

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"treecast/internal/apply"
	"treecast/internal/stream"
	"treecast/internal/transfer"
)

// A follower applies the stream to the tree: by a reconcile, and by a consumer's
// deliveries. All but seen belongs to the goroutine that commits.
type follower struct {
	*subscriber
	pipeline *pipeline
	seen     atomic.Uint64 // the newest message that was put
	mark     apply.Watermark
	last     uint64    // the newest message that was committed, parked or held
	lastTime time.Time // when it was stored
	base     uint64    // what was last at a reconcile, or while an empty tree caught up
	ahead    uint64    // what an empty tree is still to get, as far as was known; 0: it has caught up
	got      int       // what it got
	holdings holdings
	fetches  *fetches
	had      uint64    // what is at or before it and differs has drifted: it was applied once
	retryAt  time.Time // when what is held is tried next; zero: nothing is
	told     time.Time // when the broker heard last that what is held is at work
}

func newFollower(s *subscriber, mark apply.Watermark) *follower {
	return &follower{subscriber: s, pipeline: newPipeline(s), mark: mark, last: mark.Seq, lastTime: mark.Time}
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
			f.fetches.Fill(&f.holdings)
			// Whatever comes meanwhile does not put the next try off.
			if len(f.holdings.list) > 0 && f.retryAt.IsZero() {
				f.retryAt = time.Now().Add(f.holdings.Wait())
			}
			if !f.retryAt.IsZero() {
				retry.Reset(max(0, time.Until(f.retryAt)))
			}
			var body *fetchJob
			if group, body, err = f.pipeline.next(ctx, retry.C, f.fetches.arrived); err != nil {
				return err
			}
			switch {
			case body != nil:
				err = f.arrive(ctx, body)
			case len(group) > 0:
				err = f.take(ctx, group)
				f.pipeline.release(group)
				group = nil
			}
			if err == nil && !f.retryAt.IsZero() && !time.Now().Before(f.retryAt) {
				f.retryAt = time.Time{}
				err = f.retry(ctx)
			}
			if err == nil {
				err = f.tryFreed(ctx)
			}
			if err != nil {
				return err
			}
		}
	})
	err := g.Wait()
	f.pipeline.drain(group)
	f.fetches.drain()
	return err
}

// finish fetches, once, the large bodies that a reconcile left, for who does
// not follow.
func (f *follower) finish(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	f.fetches = newFetches(ctx, f.subscriber, g)
	g.Go(func() error {
		for f.fetches.Fill(&f.holdings) {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case body := <-f.fetches.arrived:
				if err := f.arrive(ctx, body); err != nil {
					return err
				}
				if err := f.tryFreed(ctx); err != nil {
					return err
				}
			}
		}
		return nil
	})
	err := g.Wait()
	f.fetches.drain()
	return err
}

// arrive commits large bodies that were fetched.
func (f *follower) arrive(ctx context.Context, bodies *fetchJob) error {
	start := time.Now()
	var group []*item
	var acks []stream.Delivery
	for _, it := range f.fetches.Take(bodies) {
		if errors.Is(it.err, errSuperseded) {
			f.holdings.Release(it.delivery.Seq)
			acks = append(acks, it.delivery)
			continue
		}
		defer it.discard()
		group = append(group, it)
	}
	slices.SortFunc(group, func(a, b *item) int { return cmp.Compare(a.delivery.Seq, b.delivery.Seq) })
	n, err := f.apply(ctx, group, acks)
	if err == nil && n > 0 {
		f.Log.Info("bodies applied", "entries", n, "path", strconv.Quote(group[0].entry.Path.String()),
			"held", len(f.holdings.list), "elapsed", time.Since(start))
	}
	return err
}

// take applies a group that the consumer delivered, and looks at what the
// scrub doubts.
func (f *follower) take(ctx context.Context, group []*item) error {
	delivered, doubted := make([]*item, 0, len(group)), []*item(nil)
	for _, it := range group {
		if it.doubt != nil {
			doubted = append(doubted, it)
		} else {
			delivered = append(delivered, it)
		}
	}
	if len(delivered) > 0 {
		if err := f.deliver(ctx, delivered); err != nil {
			return err
		}
	}
	return f.recheck(ctx, doubted)
}

// deliver applies a group that the consumer delivered.
func (f *follower) deliver(ctx context.Context, group []*item) error {
	fresh := make([]*item, 0, len(group))
	var acks []stream.Delivery
	for _, it := range group {
		d := &it.delivery
		if d.Seq <= f.last { // its ack was lost, or it is held and not acked
			if !f.holdings.Unacked(d.Seq) {
				acks = append(acks, *d)
			}
			continue
		}
		f.last, f.lastTime = d.Seq, d.Time.UTC()
		f.knows(d.Time)
		if d.Subject == f.Site.LeaseSubject() {
			f.mark.Epoch = max(f.mark.Epoch, d.Seq)
		}
		fresh = append(fresh, it)
	}
	start, pending := time.Now(), group[len(group)-1].delivery.Pending
	if f.ahead > 0 {
		f.ahead, f.got, f.base = pending, f.got+len(group), max(f.base, f.last)
		if f.Progress != nil {
			defer func() { f.Progress(f.got, f.got+int(pending)) }() //nolint:gosec // messages
		}
	}
	n, err := f.apply(ctx, fresh, acks)
	if err != nil {
		return err
	}
	f.Log.Info("applied", "entries", n, "seq", f.last, "pending", pending,
		"held", len(f.holdings.list), "elapsed", time.Since(start))
	return nil
}

// knows notes that a message that was stored at t is known.
func (f *follower) knows(t time.Time) {
	if t.After(f.mark.Last) {
		f.mark.Last = t.UTC()
	}
}

// apply settles a group, moves the watermark, and acks what of the group need
// not come again, and acks. It returns how many entries were applied. An error
// ends the session, with nothing acked that is not durable.
func (f *follower) apply(ctx context.Context, group []*item, acks []stream.Delivery) (int, error) {
	done, settled, err := f.settle(ctx, group)
	if err != nil {
		return 0, err
	}
	n := len(done)
	at := f.holdings.Before(f.last)
	lacking := at < min(f.base, f.last)
	if moves := at > f.mark.Seq; moves || f.last > f.mark.Known || lacking != f.mark.Lacking {
		if moves {
			f.mark.Seq = at
			if f.lastTime.After(f.mark.Time) {
				f.mark.Time = f.lastTime
			}
		}
		f.mark.Known, f.mark.Lacking = max(f.mark.Known, f.last), lacking
		if err := f.tree.Mark(f.mark); err != nil {
			return n, err
		}
	}
	acks = slices.Concat(acks, settled, f.holdings.LetGo(mostUnacked))
	for i := range acks {
		if err := f.ack(&acks[i]); err != nil { // then it comes again
			f.Log.Debug("ack not sent", "seq", acks[i].Seq, "err", err)
		}
	}
	f.status.follow(f.mark, f.holdings.list)
	if f.mark.Unswept && slices.ContainsFunc(done, func(it *item) bool { return it.entry.Whole }) {
		return n, errSealed
	}
	return n, nil
}

// mostUnacked is how many held entries the broker is to know of: a quarter of
// what it lets be on its way.
const mostUnacked = 1024

// settle commits what of a group can be, parks what is refused for good, and
// holds the rest. It returns the items that the tree now has, durably, and the
// deliveries that need not come again.
func (f *follower) settle(ctx context.Context, group []*item) (done []*item, settled []stream.Delivery, err error) {
	applying := make([]*item, 0, len(group))
	for _, it := range group {
		switch {
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case it.err != nil && apply.Permanent(it.err):
			if err := f.park(it); err != nil {
				return nil, nil, err
			}
			settled = append(settled, it.delivery)
			continue
		case it.staged == nil && it.err == nil && !it.large:
			settled = append(settled, it.delivery)
			continue
		}
		settled = append(settled, f.holdings.Supersede(it.delivery.Seq, it.entry.Path)...)
		switch {
		case it.large:
			f.holdings.Add(it.delivery, it.entry, errFetching)
		case it.err != nil:
			f.hold(it, it.err)
		case f.holdings.Blocks(it.delivery.Seq, &it.entry):
			f.hold(it, apply.ErrBehind)
		default:
			applying = append(applying, it)
		}
	}
	if done, err = f.commit(ctx, applying); err != nil {
		return nil, nil, err
	}
	for _, it := range done {
		settled = append(settled, it.delivery)
	}
	for i := range settled {
		f.holdings.Release(settled[i].Seq)
	}
	return done, settled, nil
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
		if it.doubt != nil && it.doubt.item == apply.Decayed {
			it.staged.Keep()
		}
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
			f.applied(it, r)
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
	if it.doubt != nil {
		cause = fmt.Errorf("it has changed on this node (%s), and is not mended: %w", it.doubt.item, cause)
	}
	f.holdings.Add(it.delivery, it.entry, cause).doubt = it.doubt
	f.status.held(it.entry.Path, cause)
}

// applied notes an entry that the tree now has, durably.
func (s *subscriber) applied(it *item, r apply.Result) {
	path := it.entry.Path.String()
	s.status.applied(it.entry.Path)
	if it.doubt != nil && r.Outcome != apply.Unchanged && r.Outcome != apply.Skipped {
		s.status.drifted(it.entry.Path, it.doubt.item)
		s.Log.Warn("drift: the path had changed on this node, and is mended", "path", strconv.Quote(path),
			"difference", it.doubt.item, "seq", it.delivery.Seq)
	}
	if err := s.tree.Unpark(it.entry.Path); err != nil {
		s.Log.Warn("list of refused entries not updated", "path", strconv.Quote(path), "err", err)
	}
	s.Log.Debug("entry applied", "path", strconv.Quote(path), "seq", it.delivery.Seq, "outcome", r.Outcome, "bytes", it.entry.Size)
	switch r.Outcome {
	case apply.Created, apply.Updated, apply.Deleted:
		s.Transfers.Add(transfer.Change{
			Operation: r.Outcome.String(), Itemized: r.Itemized, Path: path, Size: it.entry.Size,
			Bytes: int64(len(it.delivery.Payload)) + it.fetched, Took: time.Since(it.delivery.Arrived),
		})
	}
}
