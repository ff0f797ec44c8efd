package stream

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"treecast/internal/events"
)

// landPatience is how long the outcome of what was sent is awaited after it is of
// no more use.
const landPatience = 2 * time.Second

// deletedTTL is how long the bucket says that an object was deleted.
const deletedTTL = time.Hour

// Put stores data, not empty, as the object of that name, and returns once all
// of it is acknowledged: nobody sees the object before. If there is one of that
// name, its data is removed then; who reads it meanwhile finds it missing, and
// the new one when it looks again. data is not kept or changed.
//
// After an error there is no new object, but after [ErrUnknown] there may be.
func (b *Bucket) Put(ctx context.Context, digest events.Digest, data []byte, compressed bool) error {
	return failed("put a body", b.site, b.put(ctx, digest, data, compressed))
}

func (b *Bucket) put(ctx context.Context, digest events.Digest, data []byte, compressed bool) error {
	if err := b.writable(); err != nil {
		return err
	}
	if len(data) == 0 || len(data) > maxObjectBytes {
		return fmt.Errorf("%w: an object of %d bytes, 1 to %d are allowed", ErrTooLarge, len(data), maxObjectBytes)
	}
	name, nuid := digest.String(), randomToken()
	defer b.turn(name)()
	defer b.fly(nuid)()
	parts, err := b.upload(ctx, name, nuid, data)
	if err != nil {
		if b.c.Connected() {
			b.purgeLater(ctx, nuid)
		}
		return err
	}
	info := jetstream.ObjectInfo{
		ObjectMeta: jetstream.ObjectMeta{Name: name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: uint32(b.partBytes(b.c))}}, //nolint:gosec // 512 KiB
		Bucket:     string(b.site),
		NUID:       nuid,
		Size:       uint64(len(data)),
		Chunks:     uint32(parts), //nolint:gosec // of at most maxObjectBytes
	}
	sum := [sha256.Size]byte(digest)
	if compressed {
		info.Metadata = map[string]string{encodingKey: encodingZstd}
		sum = sha256.Sum256(data)
	}
	info.Digest = "SHA-256=" + base64.URLEncoding.EncodeToString(sum[:])
	old := ""
	err = b.current(ctx, []string{name}, func(m *meta) {
		if o, ok := m.object(); ok {
			old = o.nuid
		}
	})
	if err == nil {
		err = b.publishMeta(ctx, &info, 0)
	}
	switch {
	case err == nil && old != "":
		b.purgeLater(ctx, old)
	case err != nil && !errors.Is(err, ErrUnknown) && b.c.Connected():
		b.purgeLater(ctx, nuid)
	}
	return err
}

// fly notes an upload, whose data no meta names yet, until its end.
func (b *Bucket) fly(nuid string) (landed func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flying[nuid] = true
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.flying, nuid)
	}
}

// upload stores data under nuid and returns the number of its messages once
// all are acknowledged.
func (b *Bucket) upload(ctx context.Context, name, nuid string, data []byte) (parts int, err error) {
	weight := min(int64(len(data)), roomBytes)
	if err := b.room.Acquire(ctx, weight); err != nil {
		return 0, err
	}
	defer b.room.Release(weight)
	bulk, err := b.c.inBulk(ctx)
	if err != nil {
		return 0, err
	}
	subject := dataSubject(b.site, nuid)
	header := nats.Header{objectHeader: {name}}
	ctx, done := bulk.guard(ctx, 0, exactly(subject))
	defer done()
	// What lands after a purge would stay: also where ctx ends, the outcome of
	// what was sent is awaited for a while.
	landing, land := context.WithCancelCause(context.WithoutCancel(ctx))
	defer land(nil)
	defer context.AfterFunc(ctx, func() {
		if bulk.Connected() {
			_ = sleep(landing, landPatience) // or until all is known
		}
		land(context.Cause(ctx))
	})()
	var acks []jetstream.PubAckFuture
	await := func(n int) error {
		var first error
		for _, ack := range acks[:n] {
			if _, err := landed(landing, ack); err != nil && first == nil {
				first = b.because(landing, err)
			}
		}
		acks = acks[n:]
		return first
	}
	partBytes := b.partBytes(bulk)
	for part := range slices.Chunk(data, partBytes) {
		if len(acks)*partBytes >= roomBytes {
			if err := await(1); err != nil {
				_ = await(len(acks))
				return 0, err
			}
		}
		ack, err := bulk.js.PublishMsgAsync(&nats.Msg{Subject: subject, Header: header, Data: part},
			jetstream.WithRetryAttempts(0), jetstream.WithStallWait(ackTimeout))
		if err != nil {
			_ = await(len(acks))
			return 0, translate(ctx, err)
		}
		acks = append(acks, ack)
		parts++
	}
	return parts, await(len(acks))
}

// SetUnnamed notes in the bucket since when no entry names o; a zero time takes
// that back. [ErrChanged] means that o is not the object that is there now.
func (b *Bucket) SetUnnamed(ctx context.Context, o Object, since time.Time) error {
	return failed("mark a body", b.site, b.setUnnamed(ctx, o, since))
}

func (b *Bucket) setUnnamed(ctx context.Context, o Object, since time.Time) error {
	return b.rewrite(ctx, o, 0, func(info *jetstream.ObjectInfo) {
		metadata := maps.Clone(info.Metadata)
		if metadata == nil {
			metadata = make(map[string]string)
		}
		metadata[unnamedKey] = since.UTC().Format(time.RFC3339Nano)
		if since.IsZero() {
			delete(metadata, unnamedKey)
		}
		info.Metadata = metadata
	})
}

// rewrite makes the meta of o, if that is up to date, what change makes of it.
func (b *Bucket) rewrite(ctx context.Context, o Object, ttl time.Duration, change func(*jetstream.ObjectInfo)) error {
	if err := b.writable(); err != nil {
		return err
	}
	defer b.turn(o.Digest.String())()
	info, err := b.same(ctx, o)
	if err != nil {
		return err
	}
	change(info)
	return b.publishMeta(ctx, info, ttl)
}

// Delete removes o. [ErrChanged] means that o is not the object that is there
// now, if any, and that nothing was removed. After other errors its meta may be
// gone and its data left; that is an orphan then.
func (b *Bucket) Delete(ctx context.Context, o Object) error {
	return failed("delete a body", b.site, b.delete(ctx, o))
}

func (b *Bucket) delete(ctx context.Context, o Object) error {
	err := b.rewrite(ctx, o, deletedTTL, func(info *jetstream.ObjectInfo) {
		info.Deleted, info.ModTime = true, time.Time{}
		info.Size, info.Chunks, info.Digest = 0, 0, ""
	})
	if err != nil {
		return err
	}
	return b.purge(ctx, o.nuid)
}
