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
	want    map[events.Path]*events.Entry
	seqs    []uint64 // of the entries to apply, ascending
	foreign []events.Path
	kept    int // foreign paths that are protected
	sealed  bool
}

// look reads the snapshot and compares the tree with it; item, if not nil, is
// told of each difference.
func (s *subscriber) look(ctx context.Context, checksum bool, item func(apply.Difference)) (*survey, error) {
	v := &survey{want: make(map[events.Path]*events.Entry)}
	seqOf := make(map[events.Path]uint64)
	info, err := s.conn.Snapshot(ctx, s.Site, func(seq uint64, subject, header string) error {
		e, err := events.Decode(s.Site, subject, header)
		if err != nil {
			// It is parked when it is delivered or fetched.
			v.seqs = append(v.seqs, seq)
			return nil
		}
		seqOf[e.Path] = seq
		if e.Kind == events.Tombstone {
			delete(v.want, e.Path)
		} else {
			v.want[e.Path] = &e
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	v.info = info
	_, v.sealed = v.want[events.Path{}]
	err = s.tree.Compare(ctx, v.want, checksum, func(d apply.Difference) error {
		switch {
		case d.Want != nil:
			v.seqs = append(v.seqs, seqOf[d.Path])
		case s.protected(d.Path):
			v.kept++
			return nil
		default:
			v.foreign = append(v.foreign, d.Path)
		}
		if item != nil {
			item(d)
		}
		return nil
	})
	slices.Sort(v.seqs)
	return v, err
}

// protected reports whether a foreign path stays: what a publisher would not
// publish, a node does not take away.
func (s *subscriber) protected(p events.Path) bool {
	return s.Protect != nil && (s.Protect.Excluded(p, false) || s.Protect.Excluded(p, true))
}

// reconcile makes the tree equal to the stream's present snapshot and returns
// the watermark from which to follow. It is durable if the stream is sealed;
// else foreign paths are not known yet, and the next start reconciles again.
// checksum reads every byte of what seems equal.
func (s *subscriber) reconcile(ctx context.Context, why string, checksum bool) (mark apply.Watermark, sealed bool, err error) {
	start := time.Now()
	s.Log.Info("reconciling", "site", s.Site, "path", strconv.Quote(s.Root), "cause", why)
	v, err := s.look(ctx, checksum, nil)
	if err != nil {
		return mark, false, err
	}
	if err := s.guard(v); err != nil {
		return mark, false, err
	}
	mark = apply.Watermark{Site: s.Site, Stream: v.info.Created, Seq: v.info.LastSeq}
	failed, err := s.repair(ctx, v, &mark)
	if err != nil {
		return mark, false, err
	}
	if failed > 0 {
		mark.Seq = min(mark.Seq, failed-1)
	}
	removed := 0
	if s.Foreign == apply.TrashForeign && v.sealed {
		if removed, err = s.tree.RemoveForeign(ctx, v.foreign); err != nil {
			return mark, false, err
		}
	}
	mark.Time = time.Now().UTC()
	if v.sealed {
		if err := s.tree.Mark(mark); err != nil {
			return mark, false, err
		}
	}
	s.Log.Info("reconciled", "paths", len(v.want), "differed", len(v.seqs), "foreign", len(v.foreign),
		"removed", removed, "protected", v.kept, "sealed", v.sealed, "seq", mark.Seq, "elapsed", time.Since(start))
	s.status.follow(mark, nil)
	return mark, v.sealed, nil
}

// guard is the node's side of P4: a snapshot that lacks most of what stands
// here is more likely another site's, or one that is still being filled.
func (s *subscriber) guard(v *survey) error {
	if s.Foreign != apply.TrashForeign || !v.sealed || len(v.foreign) <= massDeleteFloor || len(v.foreign) <= len(v.want) {
		return nil
	}
	err := fmt.Errorf("%w: site %s has %d paths, and %d others stand in %q; is it the right root? "+
		"If so, start with --confirm-delete, or keep them with --foreign keep", ErrMassDelete, s.Site, len(v.want), len(v.foreign), s.Root)
	if s.ConfirmDelete && !s.confirmed {
		s.confirmed = true
		s.Log.Warn("removing as confirmed", "err", err)
		return nil
	}
	return err
}

const massDeleteFloor = 100

// repair fetches and applies what differs. It returns the lowest sequence that
// could not be applied for now, 0 if there is none.
func (s *subscriber) repair(ctx context.Context, v *survey, mark *apply.Watermark) (failed uint64, err error) {
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
			if group, err = p.next(ctx, nil); err != nil {
				if errors.Is(err, io.EOF) {
					return nil
				}
				return err
			}
			for _, it := range group {
				mark.Epoch = max(mark.Epoch, it.entry.Epoch)
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
