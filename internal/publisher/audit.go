package publisher

import (
	"context"
	"hash/maphash"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"treecast/internal/events"
	"treecast/internal/source"
)

// An audit reads what the stream has and finds what it should have: the broker's
// disk may lose or alter a message, and the server passes over what it cannot
// read as if it had never been. What is missing is published again.
//
// It is made once a day, and when another server answers, or the same one after
// a restart.
type audit struct {
	s       *session
	seed    maphash.Seed
	suspect chan struct{} // cap 1: another server answers
	read    chan []uint64 // hashes of the subjects that were found, sorted
}

const (
	auditInterval = 24 * time.Hour
	auditRetry    = time.Minute
	auditAsks     = 64 // at once; an answer takes a round trip
)

func newAudit(s *session) *audit {
	return &audit{s: s, seed: maphash.MakeSeed(), suspect: make(chan struct{}, 1), read: make(chan []uint64)}
}

// run reads the stream beside the rounds, which then call compare.
func (a *audit) run(ctx context.Context) error {
	for wait := auditInterval; ; {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-a.suspect:
			timer.Stop()
		case <-timer.C:
		}
		var there []uint64
		_, err := a.s.conn.Snapshot(ctx, a.s.Site, func(_ uint64, subject, _ string) error {
			there = append(there, maphash.String(a.seed, subject))
			return nil
		})
		if wait = auditInterval; err != nil {
			a.s.Log.Debug("stream not audited, will try again", "err", err)
			wait = auditRetry
			continue
		}
		slices.Sort(there)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case a.read <- there:
		}
	}
}

// compare has what is published and was not read published again. It belongs to
// the rounds' goroutine. What was published meanwhile need not have been read:
// the stream is asked for it.
func (a *audit) compare(ctx context.Context, there []uint64) error {
	var missing []events.Path
	for p, r := range a.s.index.Subtree(events.Path{}) {
		if _, found := slices.BinarySearch(there, maphash.String(a.seed, a.s.Site.Subject(p))); !found && !r.uncertain {
			missing = append(missing, p)
		}
	}
	absent := make([]bool, len(missing))
	g, asking := errgroup.WithContext(ctx)
	g.SetLimit(auditAsks)
	for i, p := range missing {
		g.Go(func() error {
			d, err := a.s.conn.Entry(asking, a.s.Site, p)
			absent[i] = d == nil
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return a.s.transient(ctx, err)
	}
	var lost []events.Path
	for i, p := range missing {
		if absent[i] {
			lost = append(lost, p)
			a.s.index.Doubt(&events.Entry{Path: p})
			a.s.dirty.Hint([]source.Hint{{Path: p}})
		}
	}
	if len(lost) > 0 {
		a.s.Log.Error("the broker has lost entries, they are published again; check its disk",
			"entries", len(lost), "path", strconv.Quote(lost[0].String()))
	}
	return nil
}
