package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"treecast/internal/events"
)

// ErrNoOrphan reports data that [Bucket.Orphans] has not found.
var ErrNoOrphan = errors.New("not an orphan")

// Orphans calls fn with each NUID under which there is data of ours that no
// object has: left by an upload, or a removal, that was cut short. bytes is the
// data's size, newest when the last of it was stored.
//
// Under a lease it is proven first that nobody will ever name that data, so
// that [Bucket.DeleteOrphan] is safe then, at any time. Without one an upload
// that is under way looks like an orphan.
//
// The server reads nearly all of the bucket from its disk for it, so that is
// done only if thorough, or where there is more data than there are names: for an
// hour after a deletion, of which the name is left, an orphan may be overlooked.
func (b *Bucket) Orphans(ctx context.Context, thorough bool, fn func(nuid string, bytes int64, newest time.Time) error) error {
	return failed("look for orphans", b.site, b.eachOrphan(ctx, thorough, fn))
}

// An upload is data without a meta.
type upload struct {
	name   string // of the object that it was meant for
	bytes  int64
	newest time.Time
}

func (b *Bucket) eachOrphan(ctx context.Context, thorough bool, fn func(nuid string, bytes int64, newest time.Time) error) error {
	// The order matters: data first, then who may still come to name it, then
	// the fence, which ends what is on its way, and last who does name it.
	if !thorough {
		if n, err := b.surplus(ctx); err != nil || n <= 0 {
			return err
		}
	}
	nuids, err := b.nuids(ctx)
	if err != nil {
		return err
	}
	b.mu.Lock()
	for nuid := range b.flying {
		delete(nuids, nuid)
	}
	b.mu.Unlock()
	if err := b.metas(ctx, func(m *meta) error {
		if !m.info.Deleted {
			delete(nuids, m.info.NUID)
		}
		return nil
	}); err != nil || len(nuids) == 0 {
		return err
	}
	if b.l != nil {
		if err := b.refence(ctx); err != nil {
			return err
		}
	}
	uploads, err := b.uploads(ctx, nuids)
	if err != nil {
		return err
	}
	// What the list above has left out, since a replica lags or the list is of
	// many pages, is found now: each name is looked up.
	var names []string
	asked := make(map[string]bool)
	for _, u := range uploads {
		if !asked[u.name] {
			asked[u.name] = true
			names = append(names, u.name)
		}
	}
	if err := b.current(ctx, names, func(m *meta) {
		if !m.info.Deleted {
			delete(uploads, m.info.NUID)
		}
	}); err != nil {
		return err
	}
	for nuid, u := range uploads {
		if b.l != nil {
			b.mu.Lock()
			b.orphans[nuid] = true
			b.mu.Unlock()
		}
		if err := fn(nuid, u.bytes, u.newest); err != nil {
			return err
		}
	}
	return nil
}

// surplus is by how much there is more data than names.
func (b *Bucket) surplus(ctx context.Context) (int, error) {
	data, err := b.countSubjects(ctx, dataSubject(b.site, ""))
	if err != nil {
		return 0, err
	}
	metas, err := b.countSubjects(ctx, metaSubject(b.site, ""))
	return data - 1 - metas, err // one is the bucket's lease
}

// nuids lists under what there is data.
func (b *Bucket) nuids(ctx context.Context) (map[string]bool, error) {
	nuids := make(map[string]bool)
	err := b.subjects(ctx, dataSubject(b.site, ""), func(nuid string) {
		if nuid != bucketLease {
			nuids[nuid] = true
		}
	})
	return nuids, err
}

// metas reads every meta. As in a snapshot, the end of a bucket with replicas
// is read from the leader.
func (b *Bucket) metas(ctx context.Context, fn func(*meta) error) error {
	if b.l != nil {
		if err := b.settle(ctx); err != nil {
			return err
		}
	}
	r, err := b.c.openDirect(ctx, bucketStream(b.site))
	if err != nil {
		return err
	}
	defer r.close()
	take := func(d *Delivery) error {
		m, ok := parseMeta(b.site, d)
		if !ok {
			b.c.logOnce("the bucket has what is no object", fmt.Errorf("%w: message %d", errNotStored, d.Seq))
			return nil
		}
		return fn(&m)
	}
	next := uint64(1)
	for more := true; more; {
		next, more, err = r.read(directRequest{Seq: next, Next: metaSubjects(b.site), Batch: directBatch, MaxBytes: directBytes}, take)
		if err != nil {
			return err
		}
	}
	for b.serial {
		d, err := b.c.leaderGet(ctx, bucketStream(b.site), map[string]any{"seq": next, "next_by_subj": metaSubjects(b.site)})
		if err != nil || d == nil {
			return err
		}
		next = d.Seq + 1
		if err := take(d); err != nil {
			return err
		}
	}
	return nil
}

// uploads reads what there is under nuids. Data that was not written by us is
// left out: nobody knows where its object would be.
func (b *Bucket) uploads(ctx context.Context, nuids map[string]bool) (map[string]upload, error) {
	r, err := b.c.openDirect(ctx, bucketStream(b.site))
	if err != nil {
		return nil, err
	}
	defer r.close()
	uploads := make(map[string]upload)
	for nuid := range nuids {
		var u upload
		for next, more := uint64(1), true; more; {
			next, more, err = r.read(directRequest{Seq: next, Next: dataSubject(b.site, nuid), Batch: directBatch, MaxBytes: directBytes},
				func(d *Delivery) error {
					u.name, u.newest = d.object, d.Time
					u.bytes += int64(len(d.Payload))
					return nil
				})
			if err != nil {
				return nil, err
			}
		}
		if _, err := events.ParseDigest(u.name); err == nil {
			uploads[nuid] = u
		}
	}
	return uploads, nil
}

// DeleteOrphan removes data that [Bucket.Orphans] of this Bucket has found;
// other data it refuses with [ErrNoOrphan].
func (b *Bucket) DeleteOrphan(ctx context.Context, nuid string) error {
	return failed("delete an orphan", b.site, b.deleteOrphan(ctx, nuid))
}

func (b *Bucket) deleteOrphan(ctx context.Context, nuid string) error {
	if err := b.writable(); err != nil {
		return err
	}
	b.mu.Lock()
	proven := b.orphans[nuid]
	b.mu.Unlock()
	if !proven {
		return fmt.Errorf("%w: %q", ErrNoOrphan, nuid)
	}
	if err := b.purge(ctx, nuid); err != nil {
		return err
	}
	b.mu.Lock()
	delete(b.orphans, nuid)
	b.mu.Unlock()
	return nil
}
