package subscriber

import (
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
)

// A survey is how a tree differs from a snapshot of its stream.
type survey struct {
	info    stream.Info
	lease   uint64
	want    map[events.Path]*events.Entry // tombstones too
	live    int                           // of want, without them
	seqs    []uint64                      // of the entries to apply, ascending
	foreign []events.Path
	kept    []events.Path // what stays though the stream lacks it
	sealed  bool          // the stream tells what is foreign
	blind   error         // something could not be looked at
}

// look reads the snapshot and compares the tree with it; item, if not nil, is
// told of each difference. What could not be looked at does not hinder the
// rest.
func (s *subscriber) look(ctx context.Context, checksum bool, item func(apply.Difference)) (*survey, error) {
	v := &survey{want: make(map[events.Path]*events.Entry)}
	seqOf := make(map[events.Path]uint64)
	unreadable := false
	var err error
	if v.lease, err = s.conn.LeaseSeq(ctx, s.Site); err != nil {
		return nil, err
	}
	v.info, err = s.conn.Snapshot(ctx, s.Site, func(seq uint64, subject, header string) error {
		e, err := events.Decode(s.Site, subject, header)
		if err != nil {
			// It is parked when it is fetched, and its path keeps what it has.
			v.seqs = append(v.seqs, seq)
			p, ok := s.Site.PathOf(subject)
			v.kept = append(v.kept, p)
			unreadable = unreadable || !ok
			return nil
		}
		seqOf[e.Path] = seq
		v.want[e.Path] = &e
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, e := range v.want {
		if e.Kind != events.Tombstone {
			v.live++
		}
	}
	root := v.want[events.Path{}]
	v.sealed = root != nil && root.Whole && !unreadable
	err = s.tree.Compare(ctx, v.want, checksum, func(d apply.Difference) error {
		switch {
		case d.Want != nil:
			v.seqs = append(v.seqs, seqOf[d.Path])
		case s.protected(d.Path):
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
	var unseen *apply.UnseenError
	if errors.As(err, &unseen) {
		// Applying it tells what is in the way, and holds it until that is gone.
		for p := range v.want {
			if slices.ContainsFunc(unseen.Paths, p.Within) {
				v.seqs = append(v.seqs, seqOf[p])
			}
		}
	}
	if err != nil {
		v.blind = err
		s.Log.Error("not all of the tree could be looked at", "err", err)
	}
	slices.Sort(v.seqs)
	v.seqs = slices.Compact(v.seqs)
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

// reconcile makes the tree equal to the stream's present snapshot and returns
// the watermark, durable, from which to follow. It is unswept if the stream
// does not tell what is foreign, or if that could not be removed. checksum
// reads every byte of what seems equal.
func (s *subscriber) reconcile(ctx context.Context, why string, checksum bool) (mark apply.Watermark, err error) {
	start := time.Now()
	s.Log.Info("reconciling", "site", s.Site, "path", strconv.Quote(s.Root), "cause", why)
	v, err := s.look(ctx, checksum, nil)
	if err != nil {
		return mark, err
	}
	if err := s.guard(v); err != nil {
		return mark, err
	}
	failed, err := s.repair(ctx, v)
	if err != nil {
		return mark, err
	}
	mark = apply.Watermark{
		Site: s.Site, Stream: v.info.Created, Epoch: v.lease, Seq: v.info.LastSeq, Time: start.UTC(), Unswept: !v.sealed,
	}
	if failed > 0 {
		mark.Seq = min(mark.Seq, failed-1)
	}
	removed := 0
	if s.Foreign == apply.TrashForeign && v.sealed {
		if removed, err = s.tree.RemoveForeign(ctx, v.foreign); err != nil {
			if ctx.Err() != nil {
				return mark, ctx.Err()
			}
			s.Log.Error("not all foreign paths could be removed, the next reconcile tries again", "err", err)
		}
	}
	if err := s.tree.Mark(mark); err != nil {
		return mark, err
	}
	if _, err := s.tree.ExpireTrash(ctx); err != nil {
		s.Log.Warn("old trash not removed", "err", err)
	}
	s.Log.Info("reconciled", "paths", v.live, "differed", len(v.seqs), "foreign", len(v.foreign),
		"removed", removed, "protected", len(v.kept), "sealed", v.sealed, "seq", mark.Seq, "elapsed", time.Since(start))
	s.status.follow(mark, nil)
	return mark, nil
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

// repair fetches and applies what differs. It returns the lowest sequence that
// could not be applied for now, 0 if there is none.
func (s *subscriber) repair(ctx context.Context, v *survey) (failed uint64, err error) {
	p := newPipeline(s)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer p.finish()
		return s.conn.Fetch(ctx, s.Site, v.seqs, func(d stream.Delivery) error {
			return p.put(ctx, &item{delivery: d})
		})
	})
	for range stageWorkers {
		g.Go(func() error { return p.stage(ctx) })
	}
	var group []*item
	g.Go(func() error {
		done := 0
		for {
			if group, _, err = p.next(ctx, nil, nil); err != nil {
				if errors.Is(err, io.EOF) {
					return nil
				}
				return err
			}
			low, err := s.settle(ctx, group)
			if err != nil {
				return err
			}
			if low > 0 && (failed == 0 || low < failed) {
				failed = low
			}
			done += len(group)
			p.release(group)
			group = nil
			if s.Progress != nil {
				s.Progress(done, len(v.seqs))
			}
		}
	})
	err = g.Wait()
	p.drain(group)
	return failed, err
}

// settle commits a group of a reconcile: refused entries are parked, and the
// lowest sequence that must come again is returned, 0 if none.
func (s *subscriber) settle(ctx context.Context, group []*item) (low uint64, err error) {
	later := func(it *item, cause error) {
		s.status.held(it.entry.Path, cause)
		if low == 0 || it.delivery.Seq < low {
			low = it.delivery.Seq
		}
	}
	var staged []*apply.Staged
	var of []*item
	for _, it := range group {
		if it.large {
			it.staged, it.err = s.stageLarge(ctx, &it.entry, it.delivery.Payload)
		}
		switch {
		case it.staged != nil:
			staged, of = append(staged, it.staged), append(of, it)
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case it.err != nil && apply.Permanent(it.err):
			if err := s.park(it); err != nil {
				return 0, err
			}
		case it.err != nil:
			later(it, it.err)
		}
	}
	results, err := s.tree.Commit(ctx, staged)
	if err != nil {
		return 0, err
	}
	for i, r := range results {
		it := of[i]
		switch {
		case r.Err == nil:
			s.applied(it, r.Outcome)
		case apply.Permanent(r.Err):
			it.err = r.Err
			if err := s.park(it); err != nil {
				return 0, err
			}
		default:
			later(it, r.Err)
		}
	}
	return low, nil
}
