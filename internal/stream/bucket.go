package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/semaphore"

	"treecast/internal/events"
)

// ErrNoLease reports a write to a bucket that was opened for reading only.
var ErrNoLease = errors.New("opened without the lease")

// A Bucket is the publisher's view of the site's large bodies: objects in the
// form of nats.go's object store, each named by the digest of what it has.
// Its methods may be called from many goroutines at once; those that write
// one object wait for each other. The package's comment has the fence.
//
// Errors of its methods are *[OpError] with [ErrFenced], [ErrReleased] or
// [ErrWentBack], all of which end the lease; [ErrNoLease] and [ErrDenied], which
// are permanent, as is [ErrTooLarge] with this broker; and [ErrFull], [ErrTooMany],
// [ErrUnknown], [ErrNoStream], [ErrDisconnected], [ErrUnavailable] or ctx's
// own, which are worth another try. Trying again is always harmless.
type Bucket struct {
	c        *Conn
	site     events.Site
	l        *Lease // nil: for reading only
	serial   bool   // the bucket has replicas: a second conditional publish in flight is refused
	maxBytes int64  // of one message of the bucket; 0: as the broker takes
	room     *semaphore.Weighted

	// Held for reading by a publish of a meta, for writing by what moves the
	// fence, and by each publish of a meta if serial.
	fenceMu sync.RWMutex
	fence   uint64 // sequence of our bucket lease

	mu      sync.Mutex // guards what follows
	acked   uint64     // highest sequence of a meta or a bucket lease acknowledged to us
	unsure  bool       // a meta may still be on its way under fence
	writers map[string]*writer
	flying  map[string]bool // NUIDs of uploads under way
	orphans map[string]bool // NUIDs proven to be named by no meta, ever
}

// A writer is who writes one object now, and who waits for that.
type writer struct {
	turn  sync.Mutex
	count int
}

const (
	partBytes   = 512 << 10 // of an object's data in one message, as an inline body has at most
	roomBytes   = 8 << 20   // of data in flight
	lagAttempts = 50        // asking a replica that lags behind us, before it counts as unavailable
	lagPause    = firstBackoff / 2
)

func dataSubject(site events.Site, nuid string) string { return "$O." + string(site) + ".C." + nuid }
func metaSubjects(site events.Site) string             { return "$O." + string(site) + ".M.>" }

// bucketLease stands where a NUID does: among the bucket's own subjects, and
// no object to anyone who lists them.
const bucketLease = "lease"

// OpenBucket makes sure that the site has its bucket, as [Conn.EnsureStream]
// does for the stream, and fences every earlier holder of the lease out of it.
//
// Besides those of a [Bucket]'s methods the error may be an [ErrConfig].
func (l *Lease) OpenBucket(ctx context.Context, cfg Config) (*Bucket, error) {
	b, err := l.openBucket(ctx, cfg)
	if err != nil {
		return nil, failed("open bucket", l.site, err)
	}
	return b, nil
}

func (l *Lease) openBucket(ctx context.Context, cfg Config) (*Bucket, error) {
	if err := l.over(); err != nil {
		return nil, err
	}
	si, err := l.c.ensure(ctx, bucketConfig(l.site, cfg), cfg, mergeBucket)
	if err != nil {
		return nil, err
	}
	b := newBucket(l.c, l.site, l, si)
	return b, b.refence(ctx)
}

// ReadBucket returns site's bucket for reading: its other methods fail with
// [ErrNoLease]. What it reads of a bucket with replicas may be behind.
func (c *Conn) ReadBucket(ctx context.Context, site events.Site) (*Bucket, error) {
	si, err := c.lookUpStream(ctx, bucketStream(site))
	if err != nil {
		return nil, failed("open bucket for reading", site, err)
	}
	return newBucket(c, site, nil, si), nil
}

func newBucket(c *Conn, site events.Site, l *Lease, si *jetstream.StreamInfo) *Bucket {
	return &Bucket{
		c:        c,
		site:     site,
		l:        l,
		serial:   si.Config.Replicas > 1,
		maxBytes: max(int64(si.Config.MaxMsgSize), 0),
		room:     semaphore.NewWeighted(roomBytes),
		writers:  make(map[string]*writer),
		flying:   make(map[string]bool),
		orphans:  make(map[string]bool),
	}
}

// partBytes is how much of an object's data goes into one message on c.
func (b *Bucket) partBytes(c *Conn) int {
	return int(max(min(partBytes, c.messageBytes(b.maxBytes)-headerSlack), 1))
}

// writable returns why this bucket may not be written.
func (b *Bucket) writable() error {
	if b.l == nil {
		return ErrNoLease
	}
	return b.l.over()
}

// refence makes the bucket's lease ours: the server refuses from then on every
// meta that was sent before, by anyone. The order of its three steps is what
// fences: see the package's comment.
func (b *Bucket) refence(ctx context.Context) error {
	b.fenceMu.Lock()
	defer b.fenceMu.Unlock()
	return b.refenceLocked(ctx)
}

func (b *Bucket) refenceLocked(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		last, err := b.c.leaderGet(ctx, bucketStream(b.site), map[string]any{"last_by_subj": dataSubject(b.site, bucketLease)})
		if err != nil {
			return err
		}
		if err := b.l.prove(ctx); err != nil {
			return err
		}
		expected := uint64(0)
		if last != nil {
			expected = last.Seq
		}
		err = b.writeLease(ctx, expected)
		if !errors.Is(err, errRefused) && !errors.Is(err, ErrTooMany) || attempt == lagAttempts {
			if errors.Is(err, errRefused) {
				err = fmt.Errorf("%w: the bucket's lease changes all the time", ErrTooMany)
			}
			return err
		}
		if err := sleep(ctx, lagPause); err != nil {
			return err
		}
	}
}

// writeLease writes the bucket's lease, if its last sequence is expected.
func (b *Bucket) writeLease(ctx context.Context, expected uint64) error {
	body, err := json.Marshal(b.l.holder())
	if err != nil {
		return err
	}
	subject := dataSubject(b.site, bucketLease)
	ctx, done := b.c.guard(ctx, ackTimeout, exactly(subject))
	defer done()
	ack, err := b.c.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: body, Header: nats.Header{
		jetstream.MsgRollup:                 {jetstream.MsgRollupSubject},
		jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(expected, 10)},
	}}, jetstream.WithRetryAttempts(0))
	switch {
	case err == nil:
		b.fence = ack.Sequence
		b.mu.Lock()
		b.acked, b.unsure = ack.Sequence, false
		b.mu.Unlock()
		return nil
	case apiCode(err) == codeWrongLast:
		return errRefused
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		return b.c.nobody(ctx, bucketStream(b.site))
	}
	return translate(ctx, err)
}

// prove returns nil if the lease was ours at an instant between its call and
// its return. It writes: what is read from a leader may be out of date, when
// that does not know yet that it leads no more, but no server that could not
// ask the others accepts a write.
func (l *Lease) prove(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.over(); err != nil {
		return err
	}
	err := l.renew(ctx)
	if err != nil {
		l.unsure = true // it may have been written
	}
	return err
}

// settle returns once nothing that was sent under our fence is on its way, but
// for what others send now.
func (b *Bucket) settle(ctx context.Context) error {
	if err := b.writable(); err != nil {
		return err
	}
	b.mu.Lock()
	unsure := b.unsure
	b.mu.Unlock()
	if !unsure {
		return nil
	}
	b.fenceMu.Lock()
	defer b.fenceMu.Unlock()
	b.mu.Lock()
	unsure = b.unsure
	b.mu.Unlock()
	if !unsure { // another one was faster
		return nil
	}
	return b.refenceLocked(ctx)
}

// publishMeta makes info what the bucket says of the object, under our fence.
// ttl is for how long, 0 for ever. The caller has the object's turn.
func (b *Bucket) publishMeta(ctx context.Context, info *jetstream.ObjectInfo, ttl time.Duration) error {
	body, err := json.Marshal(info)
	if err != nil {
		return err
	}
	refused := 0
	for attempt := 1; ; attempt++ {
		if err := b.settle(ctx); err != nil {
			return err
		}
		fence, err := b.fenced(ctx, metaSubject(b.site, info.Name), body, ttl)
		if errors.Is(err, ErrTooMany) && attempt < lagAttempts { // a replicated bucket is still at the one before
			if err := sleep(ctx, lagPause); err != nil {
				return err
			}
			continue
		}
		if !errors.Is(err, errRefused) {
			return err
		}
		if refused++; refused == 2 {
			return fmt.Errorf("%w: the bucket's lease is not as expected", ErrTooMany)
		}
		b.fenceMu.Lock()
		if b.fence == fence { // nobody has moved it on meanwhile
			err = b.refenceLocked(ctx)
		} else {
			err = nil
		}
		b.fenceMu.Unlock()
		if err != nil {
			return err
		}
	}
}

// fenced publishes a meta, and returns the fence that it was published under.
func (b *Bucket) fenced(ctx context.Context, subject string, body []byte, ttl time.Duration) (fence uint64, err error) {
	if b.serial {
		b.fenceMu.Lock()
		defer b.fenceMu.Unlock()
	} else {
		b.fenceMu.RLock()
		defer b.fenceMu.RUnlock()
	}
	h := nats.Header{
		jetstream.MsgRollup:                     {jetstream.MsgRollupSubject},
		jetstream.ExpectedLastSubjSeqHeader:     {strconv.FormatUint(b.fence, 10)},
		jetstream.ExpectedLastSubjSeqSubjHeader: {dataSubject(b.site, bucketLease)},
	}
	if ttl > 0 {
		h[jetstream.MsgTTLHeader] = []string{ttl.String()}
	}
	caller := ctx
	ctx, done := b.c.guard(ctx, ackTimeout, exactly(subject))
	defer done()
	ack, err := b.c.js.PublishMsgAsync(&nats.Msg{Subject: subject, Header: h, Data: body},
		jetstream.WithRetryAttempts(0), jetstream.WithStallWait(ackTimeout))
	if err != nil {
		if brokenWire(err) { // some of it may have got through
			err = b.unknown(translate(ctx, err))
		}
		return b.fence, translate(ctx, err)
	}
	seq, err := b.acknowledged(ctx, ack)
	switch {
	case err == nil:
		b.mu.Lock()
		b.acked = max(b.acked, seq)
		b.mu.Unlock()
	case caller.Err() != nil: // then err may be what ended that: not about this message
		err = b.unknown(err)
	case apiCode(err) == codeWrongLast:
		err = errRefused
	case apiCode(err) != 0, errors.Is(err, ErrDenied), errors.Is(err, ErrNoStream):
	default:
		err = b.unknown(err)
	}
	return b.fence, err
}

// unknown notes that a meta may be on its way.
func (b *Bucket) unknown(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unsure = true
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}

// acknowledged waits for an acknowledgement and returns its sequence, or the
// error in this package's terms.
func (b *Bucket) acknowledged(ctx context.Context, ack jetstream.PubAckFuture) (uint64, error) {
	seq, err := landed(ctx, ack)
	if err != nil {
		err = b.because(ctx, err)
	}
	return seq, err
}

// landed is acknowledged with the error as it came.
func landed(ctx context.Context, ack jetstream.PubAckFuture) (uint64, error) {
	select {
	case a := <-ack.Ok():
		return a.Sequence, nil
	case err := <-ack.Err():
		return 0, err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// because is an error of landed in this package's terms.
func (b *Bucket) because(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
		return b.c.nobody(ctx, bucketStream(b.site))
	case errors.Is(err, jetstream.ErrAsyncPublishTimeout):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return translate(ctx, err)
}

// turn waits until nobody else writes the object, and returns what ends ours.
func (b *Bucket) turn(name string) (done func()) {
	b.mu.Lock()
	w := b.writers[name]
	if w == nil {
		w = new(writer)
		b.writers[name] = w
	}
	w.count++
	b.mu.Unlock()
	w.turn.Lock()
	return func() {
		w.turn.Unlock()
		b.mu.Lock()
		if w.count--; w.count == 0 {
			delete(b.writers, name)
		}
		b.mu.Unlock()
	}
}

// purge removes the data under a NUID. It cannot be fenced, and need not be:
// a NUID is never used again, so whatever names it no more never will.
func (b *Bucket) purge(ctx context.Context, nuid string) error {
	var resp struct{}
	req := map[string]string{"filter": dataSubject(b.site, nuid)}
	return b.c.api(ctx, "STREAM.PURGE."+bucketStream(b.site), req, &resp)
}

// purgeLater is purge where the caller has what it wanted already: what is
// left is an orphan.
func (b *Bucket) purgeLater(ctx context.Context, nuid string) {
	if err := b.purge(context.WithoutCancel(ctx), nuid); err != nil {
		b.c.logOnce("data in the bucket is left for the next cleaning", err)
	}
}
