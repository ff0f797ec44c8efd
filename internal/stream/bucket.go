package stream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"treecast/internal/events"
)

// A Bucket is the publisher's view of the object store that has the chunks of
// large bodies, each an object named by its digest: immutable, and there once
// however many files have it. Its methods may be called from many goroutines at
// once.
type Bucket struct {
	c    *Conn
	site events.Site
}

// bucketConfig is the bucket's stream, as nats.go's object store makes it.
func bucketConfig(site events.Site, cfg Config) jetstream.StreamConfig {
	sc := jetstream.StreamConfig{
		Name:        bucketStream(site),
		Description: "treecast: chunks of the large bodies of site " + string(site),
		Subjects:    []string{dataSubject(site, ">"), "$O." + string(site) + ".M.>"},
		MaxBytes:    -1,
		Storage:     jetstream.FileStorage,
		Replicas:    max(cfg.Replicas, 1),
		Discard:     jetstream.DiscardNew,
		AllowRollup: true,
		AllowDirect: true,
	}
	if cfg.BucketBytes > 0 {
		sc.MaxBytes = cfg.BucketBytes
	}
	return sc
}

// OpenBucket makes sure that the site has its bucket. One that exists is changed
// only where cfg asks for another limit or more replicas.
//
// Errors are those of [Conn.EnsureStream].
func (c *Conn) OpenBucket(ctx context.Context, site events.Site, cfg Config) (*Bucket, error) {
	if err := c.ensureBodies(ctx, site, cfg); err != nil {
		return nil, failed("open the bucket of bodies", site, err)
	}
	return &Bucket{c, site}, nil
}

func (c *Conn) ensureBodies(ctx context.Context, site events.Site, cfg Config) error {
	want := bucketConfig(site, cfg)
	for range 2 { // a second time if another publisher was faster
		si, err := c.lookUpStream(ctx, want.Name)
		if errors.Is(err, ErrNoStream) {
			if _, err = c.putStream(ctx, want, true); !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		have := si.Config
		switch {
		case !sameSubjects(have.Subjects, want.Subjects):
			return configErr("bucket", string(site), "subjects", have.Subjects, want.Subjects)
		case have.MaxAge > 0:
			return configErr("bucket", string(site), "max_age", have.MaxAge, 0)
		}
		merged := have
		merged.AllowDirect, merged.AllowRollup, merged.Discard = true, true, jetstream.DiscardNew
		merged.Replicas = max(have.Replicas, cfg.Replicas)
		if cfg.BucketBytes > 0 {
			merged.MaxBytes = cfg.BucketBytes
		}
		if merged.AllowDirect != have.AllowDirect || merged.AllowRollup != have.AllowRollup || merged.Discard != have.Discard ||
			merged.Replicas != have.Replicas || merged.MaxBytes != have.MaxBytes {
			_, err = c.putStream(ctx, merged, false)
		}
		return err
	}
	return fmt.Errorf("%w: it comes and goes", ErrNoStream)
}

// Put stores data as the object of that name, and returns when all of it is
// stored and acknowledged: its meta, which makes it visible, is sent after the
// acks of its data. Putting it again is harmless: readers of the old data find
// the new.
//
// Errors are *[OpError] with [ErrFull], [ErrTooMany], [ErrNoStream],
// [ErrDenied], [ErrDisconnected], [ErrUnavailable], [ErrUnknown] or ctx's own.
func (b *Bucket) Put(ctx context.Context, name events.Digest, data []byte, compressed bool) error {
	old, err := b.c.lookUp(ctx, b.site, name)
	if err == nil {
		err = b.put(ctx, name, data, compressed)
	}
	if err == nil && old != nil {
		b.purge(ctx, old.nuid)
	}
	return failed("put a body", b.site, err)
}

// Ensure is Put, if the bucket does not have that name; only then is pack asked
// for the data.
func (b *Bucket) Ensure(ctx context.Context, name events.Digest, pack func() (data []byte, compressed bool)) error {
	old, err := b.c.lookUp(ctx, b.site, name)
	if err == nil && old == nil {
		data, compressed := pack()
		err = b.put(ctx, name, data, compressed)
	}
	return failed("put a body", b.site, err)
}

func (b *Bucket) put(ctx context.Context, name events.Digest, data []byte, compressed bool) error {
	nuid := randomToken()
	ctx, done := b.c.guard(ctx, 0, under("$O."+string(b.site)+"."))
	defer done()
	size := min(objectBytes, int(b.c.MaxPayload())-headerSlack)
	var acks []jetstream.PubAckFuture
	for piece := range slices.Chunk(data, size) {
		ack, err := b.c.js.PublishMsgAsync(&nats.Msg{Subject: dataSubject(b.site, nuid), Data: piece},
			jetstream.WithRetryAttempts(0), jetstream.WithStallWait(ackTimeout))
		if err != nil {
			return b.abandon(ctx, nuid, translate(ctx, err))
		}
		acks = append(acks, ack)
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			return b.abandon(ctx, nuid, putError(ctx, err))
		case <-ctx.Done():
			return b.abandon(ctx, nuid, context.Cause(ctx))
		}
	}
	sum := sha256.Sum256(data)
	info := jetstream.ObjectInfo{
		ObjectMeta: jetstream.ObjectMeta{Name: name.String(), Opts: &jetstream.ObjectMetaOptions{ChunkSize: uint32(size)}}, //nolint:gosec // small
		Bucket:     string(b.site), NUID: nuid, Size: uint64(len(data)), Chunks: uint32(len(acks)),                         //nolint:gosec // small
		Digest: "SHA-256=" + base64.URLEncoding.EncodeToString(sum[:]),
	}
	if compressed {
		info.Metadata = map[string]string{encodingKey: encodingZstd}
	}
	meta, err := json.Marshal(info)
	if err != nil {
		return err
	}
	mctx, mdone := b.c.guard(ctx, ackTimeout, exactly(metaSubject(b.site, name)))
	defer mdone()
	_, err = b.c.js.PublishMsg(mctx, &nats.Msg{
		Subject: metaSubject(b.site, name), Data: meta, Header: nats.Header{jetstream.MsgRollup: {jetstream.MsgRollupSubject}},
	}, jetstream.WithRetryAttempts(0))
	if err != nil {
		return putError(mctx, err)
	}
	return nil
}

// putError is what an error of a publish to the bucket means.
func putError(ctx context.Context, err error) error {
	if errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("%w: nobody takes the message", ErrNoStream)
	}
	if t := translate(ctx, err); t != nil {
		err = t
	}
	if apiCode(err) == 0 {
		err = fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return err
}

// abandon takes back the data of an object that will never have a meta, if that
// can be done now, and returns why.
func (b *Bucket) abandon(ctx context.Context, nuid string, why error) error {
	b.purge(context.WithoutCancel(ctx), nuid)
	return why
}

// purge removes data that no meta names any more, by a subject that is never
// used again. What it cannot remove takes room, and harms no one.
func (b *Bucket) purge(ctx context.Context, nuid string) {
	var resp struct{}
	req := map[string]string{"filter": dataSubject(b.site, nuid)}
	if err := b.c.api(ctx, "STREAM.PURGE."+bucketStream(b.site), req, &resp); err != nil {
		b.c.log.Debug("an old object's data is left", "err", err)
	}
}

// Check reads an object as a node does and reports whether it is there and, by
// good, what its name says.
//
// Errors are those of [Bodies.Get], but for [ErrNoObject].
func (b *Bucket) Check(ctx context.Context, name events.Digest, good func(data []byte, compressed bool) bool) (bool, error) {
	right := false
	err := b.c.Bodies(b.site).Get(ctx, []events.Digest{name}, func(_ int, data []byte, compressed bool) error {
		right = good(data, compressed)
		return nil
	})
	if errors.Is(err, ErrNoObject) {
		return false, nil
	}
	return right, err
}

// Wants calls fn with what nodes want of the publisher, from one goroutine,
// until stop is called. What is malformed is dropped.
func (l *Lease) Wants(fn func(path events.Path, digests []events.Digest)) (stop func(), err error) {
	sub, err := l.c.nc.Subscribe(l.site.WantSubject(), func(msg *nats.Msg) {
		var w Want
		if len(msg.Data) > maxStatusBytes || json.Unmarshal(bytes.TrimSpace(msg.Data), &w) != nil {
			return
		}
		if p, digests, err := w.parse(); err == nil && len(digests) > 0 {
			l.c.log.Info("a node wants chunks", "node", fmt.Sprintf("%q", w.Node), "path", fmt.Sprintf("%q", p), "chunks", len(digests))
			fn(p, digests)
		}
	})
	if err != nil {
		return nil, failed("listen for wants", l.site, translate(context.Background(), err))
	}
	return func() { _ = sub.Unsubscribe() }, nil // fails only without a connection, which forgets it too
}

// Entry returns the newest message of path, as the stream's leader has it; nil:
// there is none. Errors are those of [Conn.StreamInfo].
func (c *Conn) Entry(ctx context.Context, site events.Site, path events.Path) (*Delivery, error) {
	d, err := c.leaderGet(ctx, site, map[string]any{"last_by_subj": site.Subject(path)})
	return d, failed("read an entry", site, err)
}
