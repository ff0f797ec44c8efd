package publisher

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"treecast/internal/events"
	"treecast/internal/source"
	"treecast/internal/stream"
	"treecast/internal/transfer"
)

// A block is as much of a plan as is read ahead and published at once.
const (
	blockEntries = 1000    // a server's limit on an atomic batch
	blockBytes   = 8 << 20 // of raw bodies
)

// partEntries is how much of a first scan is published before the rest is looked
// at: what stands in one directory is not parted.
const partEntries = 10 * blockEntries

// readers is how many files are read at once: more than a file system answers
// from two cores.
const readers = 4

// refusalPause is between two lines about refused publishes.
const refusalPause = 10 * time.Second

// sent counts what a round, or an upload, published.
type sent struct {
	began               time.Time
	uploaded            int64 // bytes that went to the bucket before
	entries, tombstones int
	refused             int   // not acked, to be tried again
	bytes               int64 // of payloads
}

// An outgoing is an entry ready to be published.
type outgoing struct {
	change  change
	entry   events.Entry
	message *stream.Message
	unread  bool  // its bytes are to be read afterwards, see renamed
	err     error // of reading it
}

// publish sends a plan.
func (s *session) publish(ctx context.Context, pl plan) (sent, error) {
	root := len(pl.changes) > 0 && pl.changes[len(pl.changes)-1].meta.Entry.Path.IsRoot()
	if root {
		pl.changes = pl.changes[:len(pl.changes)-1]
	}
	n, err := s.publishChanges(ctx, &pl)
	if err != nil {
		return n, err
	}
	if err := s.sendTombstones(ctx, pl.tombstones, &n); err != nil {
		return n, err
	}
	if n.refused == 0 && !s.refused.IsZero() && n.entries > 0 {
		s.refused = time.Time{}
		s.Log.Info("publishing again")
	}
	return n, s.seal(ctx, root, &n)
}

// publishPart publishes a part of a plan that is still being made.
func (s *session) publishPart(ctx context.Context, part plan) error {
	if err := s.sameStream(ctx); err != nil {
		return err // what is published now would hide that it went back
	}
	sent, err := s.publishChanges(ctx, &part)
	s.logPublished(sent, part.before+len(part.changes))
	return err
}

// publishChanges sends a plan's changes: while one block is published the next is
// read.
func (s *session) publishChanges(ctx context.Context, pl *plan) (sent, error) {
	n := sent{began: pl.began}
	blocks := make(chan []outgoing, 1)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(blocks)
		for rest := pl.changes; len(rest) > 0; {
			size, bytes := 0, int64(0)
			for size < len(rest) && size < blockEntries && bytes < blockBytes {
				bytes += min(rest[size].meta.Entry.Size, events.MaxInlineBytes)
				size++
			}
			block, err := s.prepare(gctx, pl, rest[:size])
			if err != nil {
				return err
			}
			rest = rest[size:]
			select {
			case blocks <- block:
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		return nil
	})
	g.Go(func() error {
		done := 0
		for block := range blocks {
			if err := s.sendBlock(gctx, block, &n); err != nil {
				return err
			}
			done += len(block)
			if s.Progress != nil && len(pl.changes) >= blockEntries {
				s.Progress(pl.before+done, pl.before+len(pl.changes))
			}
		}
		return nil
	})
	err := g.Wait()
	return n, err
}

// seal publishes the root's entry, which says whether the stream is whole: it
// comes last, when it is known what was stored. planned says that it is due;
// otherwise it is sent only if it would say something new. After its first scan,
// and not before, each reign says it anew, whatever the last one said: the stream
// may have lost what came after that, and nodes that are ahead of it wait for
// this word.
func (s *session) seal(ctx context.Context, planned bool, n *sent) error {
	version := s.report.Version()
	if !s.scanned || !planned && s.vouched && version == s.sealed {
		return nil
	}
	if err := s.sameStream(ctx); err != nil {
		return err
	}
	m, err := s.src.Lstat(events.Path{})
	if err != nil {
		s.dirty.Again(source.Hint{})
		return nil // the next round says why
	}
	e := m.Entry
	e.Epoch = s.lease.Epoch()
	r := s.index.Get(e.Path)
	e.Whole = s.report.Whole(s.index, r != nil && r.whole && !r.uncertain && s.vouched)
	s.sealed = version
	if s.index.Same(r, &e) && s.vouched {
		return nil
	}
	message, err := s.message(&e, nil)
	if err != nil {
		s.report.Failed("publish", e.Path.String(), err, below)
		return nil
	}
	refused := n.refused
	err = s.send(ctx, []stream.Message{*message}, n, func(int) (*events.Entry, task) { return &e, task{} })
	s.vouched = s.vouched || err == nil && n.refused == refused
	return err
}

// prepare reads and compresses a block's files, in parallel.
func (s *session) prepare(ctx context.Context, pl *plan, changes []change) ([]outgoing, error) {
	block := make([]outgoing, len(changes))
	if len(changes) == 1 {
		s.encode(pl, &block[0], changes[0])
		return block, ctx.Err()
	}
	var g sync.WaitGroup
	var next atomic.Int64
	for range readers {
		g.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(changes)) && ctx.Err() == nil; i = next.Add(1) - 1 {
				s.encode(pl, &block[i], changes[i])
			}
		})
	}
	g.Wait()
	return block, ctx.Err()
}

// encode makes the message of one change. It runs beside the goroutine that
// owns the index, and leaves that alone.
func (s *session) encode(pl *plan, out *outgoing, c change) {
	out.change, out.entry = c, c.meta.Entry
	var payload []byte
	if c.meta.Entry.Kind == events.File && c.meta.Entry.Size > events.MaxInlineBytes {
		out.err = errLarge
		return
	}
	if c.meta.Entry.Kind == events.File {
		if out.err = s.settled(c); out.err != nil {
			return
		}
		room, ok := s.bodies.Get().(*[]byte)
		if !ok {
			room = new([]byte)
		}
		defer s.bodies.Put(room)
		m, body, err := s.src.Read(c.meta.Entry.Path, *room)
		if err != nil {
			out.err = err
			return
		}
		if cap(body) > cap(*room) {
			*room = body
		}
		out.entry = m.Entry
		if from, ok := pl.moved[m.Entry.Digest]; ok && c.isNew && m.Entry.Size > 0 {
			out.entry.From = &from
		}
		if len(body) > 0 {
			payload = s.codec.Compress(body)
		}
	}
	out.entry.Epoch = s.lease.Epoch()
	out.message, out.err = s.message(&out.entry, payload)
}

// settled gives source.ErrBusy for a file that was changed a moment ago and of
// which the kernel does not say whether someone still writes it.
func (s *session) settled(c change) error {
	ctime := time.Unix(c.meta.Entry.Ctime.Sec, int64(c.meta.Entry.Ctime.Nsec))
	if age := time.Since(ctime); age < 0 || age > settleUnasked || c.task.attempts > 6 {
		return nil // with a clock of its own it has had its time by then
	}
	if _, known, err := s.src.Settled(c.meta.Entry.Path); err != nil || known {
		return nil // reading says what is wrong
	}
	return source.ErrBusy
}

func (s *session) message(e *events.Entry, payload []byte) (*stream.Message, error) {
	header, err := e.MarshalHeader()
	if err != nil {
		return nil, err
	}
	m := &stream.Message{Path: e.Path, Subject: s.Site.Subject(e.Path), Header: header, Payload: payload}
	if e.Kind == events.Tombstone {
		m.TTL = s.Stream.TombstoneTTL
	}
	return m, nil
}

// sendBlock publishes what of a block differs, and records each ack.
func (s *session) sendBlock(ctx context.Context, block []outgoing, n *sent) error {
	messages := make([]stream.Message, 0, len(block))
	of := make([]*outgoing, 0, len(block))
	for i := range block {
		out := &block[i]
		path := out.entry.Path
		if errors.Is(out.err, errLarge) {
			s.renamed(ctx, out)
		}
		if out.err != nil {
			s.retryRead(out.change, out.err)
			continue
		}
		s.report.Cleared(&out.entry)
		delete(s.unsent, path)
		if s.index.Same(s.index.Get(path), &out.entry) {
			s.index.Put(&out.entry) // with the new ctime
			continue
		}
		messages = append(messages, *out.message)
		of = append(of, out)
	}
	err := s.send(ctx, messages, n, func(i int) (*events.Entry, task) { return &of[i].entry, of[i].change.task })
	for _, out := range of {
		if out.unread {
			s.collection.pins.Moved()
		}
		if out.unread && err == nil {
			s.uploads.Start(out.change, nil)
		}
	}
	return err
}

// send publishes messages; entry names the i-th one's entry and task. What is
// not acked is dirty again.
func (s *session) send(ctx context.Context, messages []stream.Message, n *sent, entry func(int) (*events.Entry, task)) error {
	if len(messages) == 0 {
		return ctx.Err()
	}
	var end error
	for i, err := range s.lease.Publish(ctx, messages) {
		e, t := entry(i)
		if err == nil {
			r := s.index.Get(e.Path)
			if r != nil && (r.average != 0 || r.uncertain) {
				s.collection.Stir()
			}
			s.transferred(r, e, n, int64(len(messages[i].Payload)))
			s.index.Put(e)
			n.entries++
			n.bytes += int64(len(messages[i].Payload))
			s.Log.Debug("entry published", "path", strconv.Quote(e.Path.String()), "kind", e.Kind, "bytes", e.Size)
			continue
		}
		isNew := !s.index.Has(e.Path)
		if errors.Is(err, stream.ErrUnknown) || ctx.Err() != nil {
			s.index.Doubt(e)
		}
		switch {
		case errors.Is(err, stream.ErrFenced):
			end = err
		case (errors.Is(err, stream.ErrWentBack) || errors.Is(err, stream.ErrNoStream)) && end == nil:
			end = fmt.Errorf("%w: %w", errAgain, err)
		}
		s.dirty.Retry(t, longestRetry)
		n.refused++
		if e.Kind != events.Tombstone {
			s.report.Late(e.Path.String(), err)
			if isNew && e.Kind == events.File {
				s.unsent[e.Path] = shapeOf(e)
			}
		}
		if time.Since(s.refused) > refusalPause && ctx.Err() == nil {
			s.refused = time.Now()
			s.Log.Error("not published, will try again", "path", strconv.Quote(e.Path.String()), "entries", len(messages), "err", err)
		}
	}
	if end == nil {
		end = ctx.Err()
	}
	return end
}

// transferred has a line written about e, which is published in r's place; nil:
// nothing was published of its path.
func (s *session) transferred(r *record, e *events.Entry, n *sent, bytes int64) {
	c := transfer.Change{
		Operation: "updated", Itemized: events.Itemize(s.index.entry(e.Path, r), e), Path: e.Path.String(), Size: fileSize(e),
		Bytes: bytes + n.uploaded, Took: time.Since(n.began),
	}
	switch {
	case e.Kind == events.Tombstone:
		c.Operation = "deleted"
	case r == nil:
		c.Operation = "created"
	case e.Path.IsRoot() && strings.Trim(c.Itemized[2:], ".") == "":
		return // nothing but what it tells of the stream
	}
	s.Transfers.Add(c)
}
