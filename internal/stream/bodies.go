package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"treecast/internal/events"
)

// Bodies is a node's view of the bucket that has the chunks of large bodies.
type Bodies struct {
	c    *Conn
	site events.Site
}

// Bodies returns the bucket of site's large bodies. It asks the broker nothing.
func (c *Conn) Bodies(site events.Site) *Bodies { return &Bodies{c, site} }

// getters is how many objects are on their way at once: with chunks of 512 KiB
// and a few at work some MiB, with the largest 16.
const getters = 4

// Get fetches objects and calls fn with each one's place in digests and its
// data, from several goroutines at once and in no order; data is fn's. It is as
// it is stored: whether it is what its name says is for fn to find out.
//
// What cannot be had is left out; after all others Get returns a
// *[MissingError]. Other errors end it: fn's own, or *[OpError] with
// [ErrNoStream], [ErrDenied], [ErrDisconnected], [ErrUnavailable] or ctx's own.
func (b *Bodies) Get(ctx context.Context, digests []events.Digest, fn func(i int, data []byte, compressed bool) error) error {
	var mu sync.Mutex
	var missing []events.Digest
	next := make(chan int)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(next)
		for i := range digests {
			select {
			case next <- i:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range min(getters, len(digests)) {
		g.Go(func() error {
			r, err := b.c.openDirect(ctx, bucketStream(b.site))
			if err != nil {
				return failed("get bodies", b.site, err)
			}
			defer r.close()
			for i := range next {
				data, compressed, err := b.get(ctx, r, digests[i])
				if errors.Is(err, ErrNoObject) {
					mu.Lock()
					missing = append(missing, digests[i])
					mu.Unlock()
					continue
				}
				if err != nil {
					return failed("get bodies", b.site, err)
				}
				if err := fn(i, data, compressed); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if len(missing) > 0 {
		return failed("get bodies", b.site, &MissingError{missing})
	}
	return nil
}

// get reads one object. One that is replaced meanwhile is looked up once more.
func (b *Bodies) get(ctx context.Context, r *directReader, d events.Digest) (data []byte, compressed bool, err error) {
	for range 2 {
		o, err := b.c.lookUp(ctx, b.site, d)
		if err != nil {
			return nil, false, err
		}
		if o == nil {
			break
		}
		data, err := r.object(b.site, o)
		if err == nil || !errors.Is(err, ErrNoObject) {
			return data, o.compressed, err
		}
	}
	return nil, false, ErrNoObject
}

// object reads the data of one object, or says with ErrNoObject that it is not
// all there.
func (r *directReader) object(site events.Site, o *object) ([]byte, error) {
	if o.size <= 0 || o.size > maxObjectBytes || o.messages <= 0 || o.messages > maxObjectBytes {
		return nil, ErrNoObject
	}
	// No more is allocated than what comes, whatever the meta claims.
	data := make([]byte, 0, min(o.size, 2*events.MaxChunkBytes))
	seen := 0
	for seq, more := uint64(1), true; more && seen < o.messages; {
		var err error
		seq, more, err = r.read(directRequest{Seq: seq, Next: dataSubject(site, o.nuid), Batch: o.messages - seen, MaxBytes: directBytes},
			func(d *Delivery) error {
				seen++
				if int64(len(data)+len(d.Payload)) > o.size {
					return fmt.Errorf("%w: more than its %d bytes", ErrNoObject, o.size)
				}
				data = append(data, d.Payload...)
				return nil
			})
		if err != nil {
			return nil, err
		}
	}
	if int64(len(data)) != o.size {
		return nil, ErrNoObject
	}
	return data, nil
}

// A Want is what a node asks the publisher to look after: chunks of a path that
// are missing or altered. It is a hint; nodes are not trusted.
type Want struct {
	Node    string   `json:"node"`
	Path    string   `json:"path,omitempty"`
	Path64  []byte   `json:"path64,omitempty"` // in place of a Path that is not UTF-8
	Digests []string `json:"digests"`          // the first of them
}

// maxWanted bounds what one Want names; the publisher looks at all of the file.
const maxWanted = 100

// Want asks the publisher to look after chunks of path. Nobody may hear it: it
// is to be asked again.
func (b *Bodies) Want(ctx context.Context, node string, path events.Path, digests []events.Digest) error {
	w := Want{Node: node}
	w.Path, w.Path64 = events.SplitText(path.String())
	for _, d := range digests[:min(len(digests), maxWanted)] {
		w.Digests = append(w.Digests, d.String())
	}
	body, err := json.Marshal(w)
	if err == nil {
		err = translate(ctx, b.c.nc.Publish(b.site.WantSubject(), body))
	}
	return failed("ask for bodies", b.site, err)
}

// parse returns the path and the digests that a want names.
func (w *Want) parse() (events.Path, []events.Digest, error) {
	text, err := events.JoinText(w.Path, w.Path64)
	if err != nil {
		return events.Path{}, nil, err
	}
	p, err := events.ParsePath(text)
	if err != nil {
		return p, nil, err
	}
	var digests []events.Digest
	for _, s := range w.Digests[:min(len(w.Digests), maxWanted)] {
		d, err := events.ParseDigest(s)
		if err != nil {
			return p, nil, err
		}
		digests = append(digests, d)
	}
	return p, slices.Compact(digests), nil
}
