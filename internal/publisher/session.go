package publisher

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"treecast/internal/events"
	"treecast/internal/source"
	"treecast/internal/stream"
)

// A session is a publisher that holds the lease and knows what is published.
// All of it belongs to the goroutine that runs rounds, but for the channels.
type session struct {
	*Publisher
	lease      lease
	stream     history
	leaseRoot  string // which directory the lease says is published
	index      *index
	created    time.Time // of the stream
	reconnects uint64    // of the connection when the stream was last looked at
	refused    time.Time // when a refused publish was logged; zero: none is
	scanned    bool      // the whole tree was looked at in this session
	sealed     int       // version of the report that the root's entry tells of
	vouched    bool      // the root's entry is of this session, after it scanned
	told       int       // version of the report whose counts were logged
	unsent     map[events.Path]shape
	uploads    *uploads
	collection *collection
	audit      *audit
	server     string // which one answered when the stream was last looked at
	calls      chan barrierCall
	barriers   chan barrier
	waiting    []barrier
	lastScan   time.Time
	facts      atomic.Pointer[facts]
}

// begin makes a missing stream, takes the lease and reads the snapshot, in
// this order: what another publisher sent before it was fenced is in the snapshot.
func (p *Publisher) begin(ctx context.Context) (*session, error) {
	reconnects, server := p.conn.Reconnects(), p.conn.Server()
	if _, err := p.conn.StreamInfo(ctx, p.Site); errors.Is(err, stream.ErrNoStream) {
		if _, err := p.conn.EnsureStream(ctx, p.Site, p.Stream); err != nil {
			return nil, p.transient(ctx, err)
		}
	} else if err != nil {
		return nil, p.transient(ctx, err)
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	me := stream.Holder{Host: host, PID: os.Getpid(), Instance: rand.Text(), Since: time.Now().UTC(), Root: p.root.String()}
	// What another directory lacks proves less, also after a restart: the lease
	// says what was published until a scan of this one has passed the guard.
	last, err := p.conn.LastHolder(ctx, p.Site)
	if err != nil {
		return nil, p.transient(ctx, err)
	}
	if last.Root != "" && last.Root != me.Root {
		p.floor, me.Root = 0, last.Root
	}
	lease, err := p.conn.Acquire(ctx, p.Site, me, p.Takeover)
	if err != nil {
		return nil, p.transient(ctx, err)
	}
	s := &session{Publisher: p, lease: lease, stream: p.conn, leaseRoot: me.Root, index: newIndex(), reconnects: reconnects, server: server, unsent: make(map[events.Path]shape),
		calls: make(chan barrierCall, barrierCalls), barriers: make(chan barrier)}
	if err := s.learn(ctx); err != nil {
		s.end()
		return nil, p.transient(ctx, err)
	}
	return s, nil
}

// learn brings the stream's configuration up to date, which only the holder
// of the lease may, and reads what is published.
func (s *session) learn(ctx context.Context) error {
	info, err := s.conn.EnsureStream(ctx, s.Site, s.Stream)
	if err != nil {
		return err
	}
	s.created = info.Created
	if err := s.conn.AddNodes(ctx, s.Site, s.Nodes, stream.NodeConfig{}); err != nil {
		return err
	}
	start := time.Now()
	refused, err := s.read(ctx, s.conn, s.index)
	if err != nil {
		return err
	}
	s.Log.Info("publishing", "site", s.Site, "path", strconv.Quote(s.Root), "epoch", s.lease.Epoch(),
		"published", s.index.Len(), "refused", refused, "elapsed", time.Since(start))
	return nil
}

// snapshots is where the headers of live entries come from, see
// [stream.Conn.Snapshot].
type snapshots interface {
	Snapshot(ctx context.Context, site events.Site, fn func(seq uint64, subject, header string) error) (stream.Info, error)
}

// read fills x from the stream's snapshot.
func (p *Publisher) read(ctx context.Context, from snapshots, x *index) (refused int, err error) {
	_, err = from.Snapshot(ctx, p.Site, func(seq uint64, subject, header string) error {
		e, err := events.Decode(p.Site, subject, header)
		if err != nil {
			refused++
			p.Log.Warn("an entry in the stream is not a publisher's, or of a newer version: nodes park it", "seq", seq, "subject", strconv.Quote(subject), "err", err)
			return nil
		}
		x.Put(&e)
		return nil
	})
	return refused, err
}

// transient tells what a new reign may mend from what only an operator can.
func (p *Publisher) transient(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, stream.ErrHeld), errors.Is(err, stream.ErrFenced), errors.Is(err, stream.ErrConfig),
		errors.Is(err, stream.ErrAuth), errors.Is(err, stream.ErrServer), errors.Is(err, stream.ErrDenied),
		errors.Is(err, events.ErrSite):
		return err
	}
	return fmt.Errorf("%w: %w", errAgain, err)
}

// end lets another publisher take the lease without waiting.
func (s *session) end() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := s.lease.Release(ctx); err != nil {
		s.Log.Warn("lease not released, the next publisher waits for an answer", "err", err)
	}
}

// run does a round whenever something has settled. While the broker is away it
// only collects hints.
func (s *session) run(ctx context.Context) error {
	bucket, err := s.lease.OpenBucket(ctx, s.Stream)
	if err != nil {
		return s.transient(ctx, err)
	}
	g, ctx := errgroup.WithContext(ctx)
	s.collection = newCollection(s, bucket)
	s.uploads = newUploads(ctx, s, bucket, g)
	s.audit = newAudit(s)
	stop, err := s.lease.Wants(func(w stream.Want) {
		select {
		case s.uploads.wants <- w:
		default: // the node asks again
		}
	})
	if err != nil {
		return s.transient(ctx, err)
	}
	defer stop()
	stopLending, err := s.lease.LendConsumers()
	switch {
	case errors.Is(err, stream.ErrDenied):
		s.Log.Warn("nodes that may create no consumer compare their trees by reading all small files", "err", err)
	case err != nil:
		return s.transient(ctx, err)
	default:
		defer stopLending()
	}
	stopBarriers, err := s.lease.Barriers(func(r stream.BarrierRequest, answer func(stream.BarrierState)) {
		select {
		case s.calls <- barrierCall{r, answer}:
		default: // it is asked again
		}
	})
	if err != nil {
		return s.transient(ctx, err)
	}
	defer stopBarriers()
	s.remember()
	stopStatus, err := s.lease.AnswerAsSource(func() any { return s.status() })
	if err != nil {
		return s.transient(ctx, err)
	}
	defer stopStatus()
	g.Go(func() error { return s.answerBarriers(ctx) })
	g.Go(func() error { return s.rounds(ctx) })
	g.Go(func() error { return s.collection.run(ctx) })
	g.Go(func() error { return s.audit.run(ctx) })
	return g.Wait()
}

func (s *session) rounds(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select { // also while there is always something to look at
		case j := <-s.uploads.done:
			if err := s.uploaded(ctx, j); err != nil {
				return err
			}
		case b := <-s.barriers:
			s.waiting = append(s.waiting, b)
		default:
		}
		s.remember()
		s.passBarriers()
		wait := time.Duration(-1)
		if s.conn.Connected() {
			if err := s.sameStream(ctx); err != nil {
				return err
			}
			var tasks []task
			if tasks, wait = s.dirty.Take(time.Now()); len(tasks) > 0 {
				if err := s.round(ctx, tasks); err != nil {
					return err
				}
				continue
			}
		}
		if wait >= 0 {
			timer.Reset(wait)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.dirty.wake:
		case <-s.conn.Changed():
		case <-timer.C:
		case j := <-s.uploads.done:
			if err := s.uploaded(ctx, j); err != nil {
				return err
			}
		case w := <-s.uploads.wants:
			s.mend(w)
		case b := <-s.barriers:
			s.waiting = append(s.waiting, b)
		case there := <-s.audit.read:
			if err := s.audit.compare(ctx, there); err != nil {
				return err
			}
		}
	}
}

// round looks at what has settled and publishes what differs. It returns an
// error only where the session must end.
func (s *session) round(ctx context.Context, tasks []task) error {
	if s.report.Halted() != "" {
		// Only a scan of the whole tree ends it; not as often as hints come.
		tasks = append(tasks, task{deep: true})
		if err := pause(ctx, haltPause); err != nil {
			return err
		}
	}
	pl, err := s.examine(ctx, s.index, tasks, s.publishPart)
	if err != nil {
		return err
	}
	if pl.scanned {
		if err := s.checkStream(ctx); err != nil {
			return err
		}
	}
	for _, t := range pl.failed {
		s.dirty.Retry(t, longestRetry)
	}
	switch err := pl.check(s.index.Files(), s.floor); {
	case err != nil && s.ConfirmDelete:
		s.Log.Warn("deleting as confirmed", "paths", len(pl.tombstones), "err", err)
	case err != nil:
		s.halt(err)
		for _, t := range tasks {
			s.dirty.Retry(t, longestRetry)
		}
		return nil
	}
	if pl.scanned {
		if err := s.passed(ctx); err != nil {
			return err
		}
	}
	sent, err := s.publish(ctx, pl)
	s.logPublished(sent, pl.seen)
	if version := s.report.Version(); pl.scanned && version != s.told {
		s.told = version
		s.Log.Info("scanned", "seen", pl.seen, "published", s.index.Len(), "not_published", s.report.Counts())
	}
	return err
}

func (s *session) logPublished(n sent, seen int) {
	if n.entries > 0 {
		s.Log.Info("published", "entries", n.entries, "tombstones", n.tombstones, "bytes", n.bytes,
			"seen", seen, "seq", s.lease.LastSeq(), "elapsed", time.Since(n.began))
	}
}

// passed notes that the whole tree was looked at and the guard had nothing
// against it. The operator's word is used up by that, needed or not.
func (s *session) passed(ctx context.Context) error {
	if root := s.root.String(); s.leaseRoot != root {
		if err := s.lease.SetRoot(ctx, root); err != nil {
			return s.transient(ctx, err)
		}
		s.leaseRoot = root
	}
	if s.report.Halt("") {
		s.Log.Info("no longer halted")
	}
	s.inodes.prune(func(p events.Path) bool { return s.index.Get(p) != nil })
	s.lastScan = time.Now().UTC()
	s.scanned, s.ConfirmDelete, s.floor = true, false, massDeleteFloor
	return nil
}

// haltPause is between two scans while the guard holds everything.
const haltPause = 500 * time.Millisecond

func (s *session) halt(err error) {
	if s.report.Halt(err.Error()) {
		s.Log.Error("halted: nothing is published or deleted; put the files back, or start with --confirm-delete", "path", strconv.Quote(s.Root), "err", err)
	}
}

// The longest wait between two looks at a path that cannot be published.
const (
	longestRetry = 5 * time.Second
	longestBusy  = time.Second      // a writer has it open
	longestFull  = 30 * time.Second // the bucket has no room; to find that out the file is read
)

// settleStep is the step that fails where a path moves under every read.
const settleStep = "settle"

// giveUp is the number of attempts after which a path that moves under every
// read is reported.
const giveUp = 10

// retryRead puts back a change whose file could not be read.
func (s *session) retryRead(c change, err error) {
	path := c.meta.Entry.Path
	var skip *source.SkipError
	switch {
	case errors.Is(err, errLarge):
		s.report.Late(path.String(), err)
		s.withhold(c)
		s.uploads.Start(c, nil)
	case errors.Is(err, source.ErrAbsent):
		s.dirty.Again(source.Hint{Path: path})
	case errors.As(err, &skip) && skip.Reason == source.TooLarge && c.meta.Entry.Size <= events.MaxInlineBytes:
		s.dirty.Again(source.Hint{Path: path}) // it grew since it was looked at
	case errors.As(err, &skip):
		s.report.Skipped(skip, unpublished)
	case errors.Is(err, source.ErrBusy), errors.Is(err, source.ErrUnstable):
		if c.task.attempts >= giveUp {
			s.report.Failed(settleStep, path.String(), err, unpublished)
		} else {
			s.report.Late(path.String(), err)
		}
		s.withhold(c)
		s.dirty.Retry(c.task, longestBusy)
	default:
		step, longest := "read", longestRetry
		if c.meta.Entry.Size > events.MaxInlineBytes {
			step = "upload"
		}
		if errors.Is(err, stream.ErrFull) {
			longest = longestFull
		}
		s.report.Failed(step, path.String(), err, unpublished)
		s.withhold(c)
		s.dirty.Retry(c.task, longest)
	}
}
