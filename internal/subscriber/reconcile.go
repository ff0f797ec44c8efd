package subscriber

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"treecast/internal/apply"
	"treecast/internal/events"
	"treecast/internal/stream"
	"treecast/internal/transfer"
)

// A survey is how a tree differs from a snapshot of its stream.
type survey struct {
	info    stream.Info
	lease   uint64 // the newest, before and after info
	want    snapshot
	live    int      // of want, without tombstones
	differs []*known // what to apply, by seq; an entry that cannot be decoded is empty
	foreign []events.Path
	kept    []events.Path // what stays though the stream lacks it
	sealed  bool          // the stream tells what is foreign
	blind   error         // something could not be looked at
}

// read reads the snapshot. It reads again if a publisher's reign has begun
// meanwhile: which leases are in the snapshot has to be known, for one that is
// found later among what was read tells that the stream went back.
func (s *subscriber) read(ctx context.Context) (*survey, error) {
	lease, err := s.stream.LeaseSeq(ctx, s.Site)
	for err == nil {
		v := &survey{lease: lease}
		if err = v.read(ctx, s); err != nil {
			break
		}
		if lease, err = s.stream.LeaseSeq(ctx, s.Site); lease == v.lease {
			return v, err
		}
	}
	return nil, err
}

func (v *survey) read(ctx context.Context, s *subscriber) (err error) {
	unreadable := false
	v.want, v.info, err = takeSnapshot(ctx, s.stream, s.Site, func(seq uint64, subject string) {
		// It is parked when it is fetched, and its path keeps what it has.
		v.differs = append(v.differs, &known{seq: seq})
		p, ok := s.Site.PathOf(subject)
		v.kept = append(v.kept, p)
		unreadable = unreadable || !ok
	})
	if err != nil {
		return err
	}
	for _, k := range v.want {
		if k.entry.Kind != events.Tombstone {
			v.live++
		}
	}
	root := len(v.want) > 0 && v.want[0].entry.Path.IsRoot()
	v.sealed = root && v.want[0].entry.Whole && !unreadable
	return nil
}

// look reads the snapshot and compares the tree with it; item, if not nil, is
// told of each difference. What could not be looked at does not hinder the
// rest.
func (s *subscriber) look(ctx context.Context, checksum bool, item func(apply.Difference)) (*survey, error) {
	v, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	err = s.tree.Compare(ctx, v.want.entries(), checksum, func(d apply.Difference) error {
		switch {
		case d.Want != nil:
			i, _ := v.want.find(d.Path)
			v.want[i].item = d.Itemized
			v.differs = append(v.differs, v.want[i])
		case s.Foreign == apply.KeepForeign, s.protected(d.Path):
			v.kept = append(v.kept, d.Path)
			return nil
		default:
			v.foreign = append(v.foreign, d.Path)
		}
		if item != nil {
			item(d)
		}
		return nil
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		var unseen *apply.UnseenError
		if !errors.As(err, &unseen) {
			return nil, err
		}
		// Applying it tells what is in the way, and holds it until that is gone.
		for _, k := range v.want {
			if slices.ContainsFunc(unseen.Paths, k.entry.Path.Within) {
				v.differs = append(v.differs, k)
			}
		}
		v.blind = err
		s.Log.Error("not all of the tree could be looked at, the rest is kept right; it is tried again at the next comparison", "err", err)
	}
	slices.SortFunc(v.differs, func(a, b *known) int { return cmp.Compare(a.seq, b.seq) })
	v.differs = slices.Compact(v.differs)
	if len(v.kept) > 0 {
		v.foreign = slices.DeleteFunc(v.foreign, func(f events.Path) bool {
			return slices.ContainsFunc(v.kept, func(k events.Path) bool { return k.Kin(f) })
		})
	}
	return v, nil
}

// protected reports whether a foreign path stays: what a publisher would not
// publish, a node does not take away.
func (s *subscriber) protected(p events.Path) bool {
	return s.Protect != nil && (s.Protect.Excluded(p, false) || s.Protect.Excluded(p, true))
}

// reconcile makes the tree equal to the stream's present snapshot, but for what
// it leaves in holdings: large bodies, which are fetched while the node follows
// already, and what could not be applied for now. It sets the place in the
// stream from which to follow, and the watermark, durable, below all that is
// held. That is unswept if the stream does not tell what is foreign. checksum
// reads every byte of what seems equal.
func (f *follower) reconcile(ctx context.Context, why string, checksum bool) error {
	start := time.Now()
	f.Log.Info("reconciling", "site", f.Site, "path", strconv.Quote(f.Root), "cause", why)
	v, err := f.look(ctx, checksum, nil)
	if err != nil {
		return err
	}
	if err := f.guard(v); err != nil {
		return err
	}
	if err := f.repair(ctx, v); err != nil {
		return err
	}
	was := f.mark
	f.mark = apply.Watermark{
		Site: f.Site, Stream: v.info.Created, Epoch: v.lease, Seq: f.holdings.Before(f.last), Known: v.info.LastSeq, Time: v.info.Now, Unswept: !v.sealed,
	}
	if f.mark.Stream.Equal(was.Stream) {
		f.knows(was.Last)
	}
	f.knows(v.info.LastTime)
	f.lastTime, f.base = f.mark.Time, f.last
	f.mark.Lacking = f.mark.Seq < f.base
	var removed []events.Path
	if f.Foreign == apply.TrashForeign && v.sealed {
		foreign, err := f.proven(ctx, v.foreign)
		if err != nil {
			return err
		}
		removing := time.Now()
		removed, err = f.tree.RemoveForeign(ctx, foreign)
		for _, p := range removed {
			f.Transfers.Add(transfer.Change{
				Operation: apply.Deleted.String(), Itemized: events.Itemize(nil, nil), Path: p.String(), Took: time.Since(removing),
			})
		}
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			f.Log.Error("not all foreign paths could be removed, the next reconcile tries again", "err", err)
		}
	}
	if err := f.tree.Mark(f.mark); err != nil {
		return err
	}
	if _, err := f.tree.ExpireTrash(ctx); err != nil {
		f.Log.Warn("old trash not removed", "err", err)
	}
	f.Log.Info("reconciled", "paths", v.live, "differed", len(v.differs), "foreign", len(v.foreign), "removed", len(removed),
		"protected", len(v.kept), "sealed", v.sealed, "held", len(f.holdings.list), "seq", f.last, "elapsed", time.Since(start))
	f.status.follow(f.mark, f.holdings.list)
	return nil
}

// guard is the node's side of P4: a snapshot that lacks most of what stands
// here is more likely another site's, or one that is still being filled.
func (s *subscriber) guard(v *survey) error {
	if s.Foreign != apply.TrashForeign || !v.sealed || len(v.foreign) <= massDeleteFloor || len(v.foreign) <= v.live {
		return nil
	}
	err := fmt.Errorf("%w: site %s has %d paths, and %d others stand in %q; is it the right root? "+
		"If so, start with --confirm-delete, or keep them with --foreign keep", ErrMassDelete, s.Site, v.live, len(v.foreign), s.Root)
	if s.ConfirmDelete {
		s.Log.Warn("removing as confirmed", "err", err)
		return nil
	}
	return err
}

const massDeleteFloor = 100

// askers ask at once for what may be foreign; an answer takes a round trip.
const askers = 16

// proven returns those of the foreign paths that the stream surely has no entry
// of: what the broker cannot read any more is not in a snapshot either.
func (s *subscriber) proven(ctx context.Context, foreign []events.Path) ([]events.Path, error) {
	doubtful := make([]bool, len(foreign))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(askers)
	for i, p := range foreign {
		g.Go(func() (err error) {
			doubtful[i], err = s.stream.MayHave(ctx, s.Site, p)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	proven := make([]events.Path, 0, len(foreign))
	for i, p := range foreign {
		if !doubtful[i] {
			proven = append(proven, p)
		}
	}
	if n := len(foreign) - len(proven); n > 0 {
		s.Log.Error("the broker has lost entries: what may be of them is kept until the publisher has sent them again; check the broker's disk", "entries", n)
	}
	return proven, nil
}

// repair fetches and applies what differs, and sets last to the message after
// which the consumer has to go on: what was stored while the snapshot was read is
// left to that, which brings it anyway. What is in chunks is held, for others not
// to wait for it.
func (f *follower) repair(ctx context.Context, v *survey) error {
	f.last, f.holdings = v.info.LastSeq, holdings{}
	var small []stream.Wanted
	for _, k := range v.differs {
		if k.seq > f.last {
			break
		}
		if k.entry.Body == events.ChunksBody {
			x := f.holdings.Add(stream.Delivery{Seq: k.seq, Arrived: time.Now(), Subject: f.Site.Subject(k.entry.Path)}, k.entry, errFetching)
			x.doubt = f.drift(k)
		} else {
			small = append(small, stream.Wanted{Seq: k.seq, Bytes: k.entry.PayloadLimit()})
		}
	}
	p := newPipeline(f.subscriber)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer p.finish()
		return f.stream.Fetch(ctx, f.Site, small, func(d stream.Delivery) error {
			it := &item{delivery: d}
			if i, found := slices.BinarySearchFunc(v.differs, d.Seq, func(k *known, seq uint64) int { return cmp.Compare(k.seq, seq) }); found {
				it.doubt = f.drift(v.differs[i])
			}
			return p.put(ctx, it)
		})
	})
	for range stageWorkers {
		g.Go(func() error { return p.stage(ctx) })
	}
	var group []*item
	g.Go(func() (err error) {
		done := 0
		for {
			if group, _, err = p.next(ctx, nil, nil); err != nil {
				if errors.Is(err, io.EOF) {
					return nil
				}
				return err
			}
			if _, _, err := f.settle(ctx, group); err != nil {
				return err
			}
			f.last = f.holdings.Cut(f.last, mostFailed)
			done += len(group)
			p.release(group)
			group = nil
			if f.Progress != nil {
				f.Progress(done, len(small))
			}
		}
	})
	err := g.Wait()
	p.drain(group)
	f.last = f.holdings.Cut(f.last, mostFailed)
	return err
}

// drift returns the doubt of an entry that differs though it was applied once;
// nil if it was not.
func (f *follower) drift(k *known) *doubt {
	if k.item != "" && k.seq <= f.had {
		return &doubt{item: k.item}
	}
	return nil
}

// mostFailed bounds what a reconcile holds because it failed; the rest is left
// to the consumer.
const mostFailed = 4096
