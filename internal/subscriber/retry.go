package subscriber

import (
	"context"
	"slices"
	"time"

	"treecast/internal/events"
	"treecast/internal/stream"
)

// holdProgress is how often the broker is told that what is held is at work,
// so that it does not send it again.
const holdProgress = 20 * time.Second

// retry tries what is held.
func (f *follower) retry(ctx context.Context) error {
	if time.Since(f.told) > holdProgress {
		f.told = time.Now()
		for _, x := range f.holdings.list {
			if x.acked {
				continue
			}
			if err := x.delivery.InProgress(); err != nil { // then it comes again, and is held already
				f.Log.Debug("in-progress not sent", "seq", x.delivery.Seq, "err", err)
			}
		}
	}
	due := f.holdings.Due(triedAtOnce)
	if len(due) == 0 {
		return nil
	}
	f.holdings.attempts++
	n, err := f.try(ctx, due)
	if n > 0 {
		f.holdings.attempts = 0
		f.Log.Info("held entries applied", "entries", n, "held", len(f.holdings.list))
	}
	return err
}

// tryFreed tries what was held behind what is not held any more.
func (f *follower) tryFreed(ctx context.Context) error {
	for due := f.holdings.Freed(); len(due) > 0; due = f.holdings.Freed() {
		if _, err := f.try(ctx, due); err != nil {
			return err
		}
	}
	return nil
}

// try tries held entries again, in order and a part at a time; large bodies
// are fetched. It returns how many were applied.
func (f *follower) try(ctx context.Context, due []*hold) (applied int, err error) {
	small := make([]*hold, 0, len(due))
	for _, x := range due {
		if x.entry.Body == events.ChunksBody {
			f.holdings.Fetch(x)
		} else {
			small = append(small, x)
		}
	}
	for part := range slices.Chunk(small, heldAtOnce) {
		n, err := f.tryPart(ctx, part)
		applied += n
		if err != nil {
			return applied, err
		}
	}
	return applied, nil
}

const (
	triedAtOnce = 1024 // of what is held, before others have their turn
	heldAtOnce  = 64   // of these, fetched and staged
)

// tryPart fetches the messages of held entries and applies them. What the
// stream no longer has was superseded: the newer entry comes, or came.
func (f *follower) tryPart(ctx context.Context, part []*hold) (int, error) {
	bySeq := make(map[uint64]*hold, len(part))
	wanted := make([]stream.Wanted, len(part))
	for i, x := range part {
		wanted[i] = stream.Wanted{Seq: x.delivery.Seq, Bytes: x.entry.PayloadLimit()}
		bySeq[x.delivery.Seq] = x
	}
	var items []*item
	defer func() {
		for _, it := range items {
			it.discard()
		}
	}()
	err := f.stream.Fetch(ctx, f.Site, wanted, func(d stream.Delivery) error {
		it := &item{delivery: d, doubt: bySeq[d.Seq].doubt, ready: make(chan struct{})}
		it.stage(ctx, f.Site, f.tree)
		it.delivery = bySeq[d.Seq].delivery // the one that can be acked
		it.delivery.Payload = d.Payload
		delete(bySeq, d.Seq)
		items = append(items, it)
		return nil
	})
	if err != nil {
		f.Log.Warn("held entries not fetched, will try again", "entries", len(part), "err", err)
		return 0, ctx.Err()
	}
	var acks []stream.Delivery
	for seq, x := range bySeq {
		f.holdings.Release(seq)
		acks = append(acks, x.delivery)
	}
	return f.apply(ctx, items, acks)
}
