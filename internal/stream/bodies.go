package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"treecast/internal/events"
)

// ErrNoObject reports objects that the bucket does not have, or not all of. It
// may have them later. The error is a *[MissingError].
var ErrNoObject = errors.New("not in the bucket")

// A MissingError names the objects that could not be had; it is an
// [ErrNoObject].
type MissingError struct{ Digests []events.Digest }

func (e *MissingError) Error() string {
	if len(e.Digests) == 0 {
		return ErrNoObject.Error()
	}
	return fmt.Sprintf("%d objects are %v, the first is %s", len(e.Digests), ErrNoObject, e.Digests[0])
}

func (e *MissingError) Unwrap() error { return ErrNoObject }

// Bodies is a node's view of the site's bucket of large bodies. Its methods may
// be called from many goroutines at once.
type Bodies struct {
	c    *Conn
	site events.Site
}

// Bodies returns the bucket of site's large bodies. It asks the broker nothing.
func (c *Conn) Bodies(site events.Site) *Bodies { return &Bodies{c, site} }

const (
	getters  = 6        // requests for data at once
	getBytes = 16 << 20 // of objects that are on their way or with fn
	// How long a replica may lag, or an object be without its data while it is
	// replaced, before it counts as missing.
	missingPause = 100 * time.Millisecond
)

// Get fetches objects and calls fn with each one's place in digests, its data
// as it is stored, and whether that is compressed: from one goroutine at a time
// and in no particular order. data is fn's until it returns. At most about 16 MiB,
// or one object, wait for fn, which may block. Whether data is what its name says
// is for the caller to find out.
//
// What the bucket does not have, or not all of, is looked for once more and then
// left out; after all others Get returns a *[MissingError] for it. Other errors
// end it: *[OpError] with fn's own, [ErrNoStream], [ErrDenied],
// [ErrDisconnected], [ErrUnavailable] or ctx's own.
func (b *Bodies) Get(ctx context.Context, digests []events.Digest, fn func(i int, data []byte, compressed bool) error) error {
	if len(digests) == 0 {
		return nil
	}
	bulk, err := b.c.inBulk(ctx)
	if err != nil {
		return failed("get bodies", b.site, err)
	}
	g := &getting{
		b:      b,
		c:      bulk,
		places: make(map[events.Digest][]int, len(digests)),
		room:   semaphore.NewWeighted(getBytes),
		fn:     fn,
	}
	for i, d := range digests {
		g.places[d] = append(g.places[d], i)
	}
	return failed("get bodies", b.site, g.run(ctx, digests))
}

// A getting is one call of Get.
type getting struct {
	b      *Bodies
	c      *Conn
	places map[events.Digest][]int // in the caller's list, of those that are still to come
	room   *semaphore.Weighted

	mu sync.Mutex // guards places, and is held while fn runs
	fn func(i int, data []byte, compressed bool) error
}

func (g *getting) run(ctx context.Context, digests []events.Digest) error {
	for attempt := 1; ; attempt++ {
		if err := g.pass(ctx, digests); err != nil {
			return err
		}
		if len(g.places) == 0 {
			return nil
		}
		if attempt == 2 {
			break
		}
		if err := sleep(ctx, missingPause); err != nil {
			return err
		}
	}
	missing := make([]events.Digest, 0, len(g.places))
	for _, d := range digests {
		if g.places[d] != nil {
			delete(g.places, d)
			missing = append(missing, d)
		}
	}
	return &MissingError{missing}
}

// pass looks once for all of digests that are still to come.
func (g *getting) pass(ctx context.Context, digests []events.Digest) error {
	r, err := g.c.openDirect(ctx, bucketStream(g.b.site))
	if err != nil {
		return err
	}
	defer r.close()
	for page := range slices.Chunk(digests, lookupNames) {
		subjects := make([]string, 0, len(page))
		seen := make(map[events.Digest]bool, len(page))
		for _, d := range page {
			if g.places[d] != nil && !seen[d] {
				seen[d] = true
				subjects = append(subjects, metaSubject(g.b.site, d.String()))
			}
		}
		if len(subjects) == 0 {
			continue
		}
		metas, err := lastMetas(r, g.b.site, subjects)
		if err != nil {
			return err
		}
		if err := g.fetch(ctx, metas); err != nil {
			return err
		}
	}
	return nil
}

// fetch gets the data of these objects, a few at a time. They are in the
// stream's order, in which the server reads fastest.
func (g *getting) fetch(ctx context.Context, metas []meta) error {
	objects := make(chan Object)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(objects)
		for i := range metas {
			o, ok := metas[i].object()
			if !ok || o.Size > maxObjectBytes || int64(o.chunks) > o.Size {
				continue
			}
			select {
			case objects <- o:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range min(getters, len(metas)) {
		group.Go(func() error {
			r, err := g.c.openDirect(ctx, bucketStream(g.b.site))
			if err != nil {
				return err
			}
			defer r.close()
			var room []byte
			for o := range objects {
				if room, err = g.one(ctx, r, o, room); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// one gets one object and hands it over. It may put it into room, and returns
// what is room for the next.
func (g *getting) one(ctx context.Context, r *directReader, o Object, room []byte) ([]byte, error) {
	weight := min(o.Size, getBytes)
	if err := g.room.Acquire(ctx, weight); err != nil {
		return room, err
	}
	defer g.room.Release(weight)
	parts, err := g.b.data(ctx, r, o)
	if err != nil || parts == nil {
		return room, err
	}
	data := parts[0]
	if len(parts) > 1 {
		room = slices.Grow(room[:0], int(o.Size))
		for _, part := range parts {
			room = append(room, part...)
		}
		data = room
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	places := g.places[o.Digest]
	delete(g.places, o.Digest)
	for _, i := range places {
		if err := ctx.Err(); err != nil {
			return room, err
		}
		if err := g.fn(i, data, o.Compressed); err != nil {
			return room, err
		}
	}
	if cap(room) > 2*events.MaxChunkBytes { // a list's, or none of ours
		room = nil
	}
	return room, nil
}

// data reads the data of one object, nil if it is not all there. Whatever the
// meta claims, no more is allocated than what came.
func (b *Bodies) data(ctx context.Context, r *directReader, o Object) (parts [][]byte, err error) {
	left := o.Size
	for next, more := uint64(1), true; more && left > 0 && len(parts) < o.chunks; {
		next, more, err = r.readPaced(ctx, directRequest{
			Seq:      next,
			Next:     dataSubject(b.site, o.nuid),
			Batch:    min(o.chunks-len(parts), directBatch),
			MaxBytes: int(min(left, directBytes)),
		}, func(d *Delivery) error {
			parts = append(parts, d.Payload)
			left -= int64(len(d.Payload))
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if left != 0 || len(parts) != o.chunks {
		return nil, nil
	}
	return parts, nil
}
