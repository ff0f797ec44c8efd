package subscriber

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"treecast/internal/apply"
	"treecast/internal/events"
	"treecast/internal/stream"
)

// A need says why a session begins with a reconcile though the watermark fits.
type need string

const (
	notNeeded   need = ""
	foreignOnly need = "the stream was sealed: what is foreign can be told now"
	unmended    need = "the last one left large files to be fetched, or what failed"
	expired     need = "it is as long ago as deletions are kept: some may have been missed"
	whole       need = "it is time to"
)

// begin finds out where in the stream the tree stands, reconciles if that cannot
// be told or is needed, and returns what follows after its last message.
func (s *subscriber) begin(ctx context.Context, info stream.Info) (*follower, error) {
	mark, ok := s.tree.Watermark()
	lease, newer, err := s.history(ctx, mark)
	if err != nil {
		return nil, err
	}
	if mark.Lacking && s.needed == notNeeded {
		s.needed = unmended
	}
	if err := s.believable(ctx, mark, info, lease, newer); err != nil {
		return nil, err
	}
	// What the consumer delivers is held to no rate.
	if !ok && (s.conn == nil || s.conn.BulkRate() == 0) {
		if bare, err := s.bare(ctx); err != nil {
			return nil, err
		} else if bare {
			return s.fromStart(info, lease)
		}
	}
	f := newFollower(s, mark)
	if why := unfit(mark, ok, s.Site, info, lease, newer); s.needed != notNeeded || why != "" {
		// What we applied ourselves is read by the scrub, which has time.
		if why == "" {
			f.had = mark.Seq
		}
		if err := f.reconcile(ctx, cmp.Or(why, string(s.needed)), why != ""); err != nil {
			return nil, err
		}
		s.needed, s.reconciled = notNeeded, time.Now()
	} else {
		s.status.follow(mark, nil)
	}
	s.ConfirmDelete = false // it was of the first time
	return f, nil
}

// errStands ends a walk of a tree that has something in it.
var errStands = errors.New("something stands in the root")

// bare reports whether nothing stands in the root.
func (s *subscriber) bare(ctx context.Context) (bool, error) {
	err := s.tree.Compare(ctx, nil, false, func(apply.Difference) error { return errStands })
	var unseen *apply.UnseenError
	if errors.Is(err, errStands) || errors.As(err, &unseen) {
		return false, nil
	}
	return err == nil, err
}

// fromStart returns a follower of a bare tree, which stands before the first
// message of any stream: nothing of it is foreign, and nothing is to be compared.
// The consumer delivers all that lives, while it is published, too. As after a
// comparison the watermark knows how far the stream goes: one that is shorter
// when the node begins again went back.
func (s *subscriber) fromStart(info stream.Info, lease uint64) (*follower, error) {
	s.Log.Info("the root is empty: it gets all of the stream", "site", s.Site, "path", strconv.Quote(s.Root), "seq", info.LastSeq)
	f := newFollower(s, apply.Watermark{Site: s.Site, Stream: info.Created, Epoch: lease, Known: info.LastSeq, Time: info.Now})
	f.knows(info.LastTime)
	f.base, f.ahead = info.LastSeq, info.Msgs
	if err := s.tree.Mark(f.mark); err != nil {
		return nil, err
	}
	s.needed, s.reconciled, s.ConfirmDelete = notNeeded, time.Now(), false
	s.status.follow(f.mark, nil)
	return f, nil
}

// tombstoneLife is how long a deletion is to be read in a stream that does
// not say it. A node that was away longer compares the whole tree.
const tombstoneLife = 30 * 24 * time.Hour

// knownFor is for how long a deletion is surely to be read in the stream.
func knownFor(info stream.Info) time.Duration {
	life := cmp.Or(info.TombstoneTTL, tombstoneLife)
	return life - life/16
}

// unfit says why the watermark does not tell where in the stream the tree
// stands; "" if it does.
func unfit(mark apply.Watermark, ok bool, site events.Site, info stream.Info, lease, newer uint64) string {
	switch {
	case !ok:
		return "the tree has no watermark"
	case mark.Site != site:
		return fmt.Sprintf("the tree was of site %s", mark.Site)
	case info.Now.Sub(mark.Time) > knownFor(info):
		return "the node was away longer than deletions are kept"
	}
	return moved(mark, info, lease, newer)
}

// moved says why the stream is not the one that the watermark is of; "" if it
// is.
func moved(mark apply.Watermark, info stream.Info, lease, newer uint64) string {
	if !mark.Stream.Equal(info.Created) {
		return "the stream is another one"
	}
	return wentBack(mark, info, lease, newer)
}

// wentBack says how the stream that the watermark is of lost what the node knew;
// "" if it did not, or is another one.
func wentBack(mark apply.Watermark, info stream.Info, lease, newer uint64) string {
	known := max(mark.Seq, mark.Known)
	switch {
	case !mark.Stream.Equal(info.Created):
		return ""
	case known > info.LastSeq:
		return fmt.Sprintf("the stream went back from %d to %d", known, info.LastSeq)
	case lease <= known && lease > mark.Epoch:
		return fmt.Sprintf("the stream went back, and on: the lease %d is new to us, who are at %d", lease, known)
	case newer != 0 && newer <= known:
		return fmt.Sprintf("the stream went back, and on: message %d came later than what we know, who are at %d", newer, known)
	}
	return ""
}

// history returns what tells whether the stream is still the one that the
// watermark is of: the newest lease, and the first message that was stored after
// all that the watermark knows of; 0 if there is none.
func (s *subscriber) history(ctx context.Context, mark apply.Watermark) (lease, newer uint64, err error) {
	if lease, err = s.stream.LeaseSeq(ctx, s.Site); err != nil || mark.Last.IsZero() {
		return lease, 0, err
	}
	newer, err = s.stream.FirstAfter(ctx, s.Site, mark.Last)
	return lease, newer, err
}

// believable returns ErrUnvouched if the stream went back and no publisher has
// scanned the source since. Until then it says what was true once: it lacks files
// that are here and at the source, and has their tombstones.
func (s *subscriber) believable(ctx context.Context, mark apply.Watermark, info stream.Info, lease, newer uint64) error {
	why := wentBack(mark, info, lease, newer)
	if why == "" {
		return nil
	}
	root, err := s.stream.Entry(ctx, s.Site, events.Path{})
	if err == nil && !vouches(root, mark) {
		err = fmt.Errorf("%s; %w", why, ErrUnvouched)
	}
	return err
}

// vouches reports whether the root's entry came after all that the node knew, and
// so from a publisher that has scanned the source since: by its time, or, for a
// server's clock may have been set back, by its number.
func vouches(root *stream.Delivery, mark apply.Watermark) bool {
	return root != nil && (root.Time.After(mark.Last) || root.Seq > max(mark.Seq, mark.Known))
}

// ErrUnvouched reports a stream that says what was true once.
var ErrUnvouched = errors.New("the tree stays as it is until a publisher has compared the stream with the source")
