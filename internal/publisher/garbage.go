package publisher

import (
	"context"
	"errors"
	"time"

	"treecast/internal/events"
	"treecast/internal/stream"
)

// A Garbage is what no entry names: an object of the bucket, or data that is
// none.
type Garbage struct {
	Name    string // the object's digest, or the orphan's NUID
	Bytes   int64
	Stored  time.Time
	Unnamed time.Time // since when that is known; zero: not yet
	Orphan  bool      // left by an upload that was cut short
}

// FindGarbage tells what the bucket has that no entry names, and changes
// nothing. What an upload under way has stored looks like that too: only the
// publisher that runs knows better.
func FindGarbage(ctx context.Context, conn *stream.Conn, site events.Site, fn func(Garbage)) error {
	codec, err := events.NewCodec(1)
	if err != nil {
		return err
	}
	defer codec.Close()
	bucket, err := conn.ReadBucket(ctx, site)
	if errors.Is(err, stream.ErrNoStream) {
		return nil // nor is there garbage
	}
	if err != nil {
		return err
	}
	c := catalog{conn, site, codec}
	names, err := c.named(ctx, func() int { return 0 }, func(context.Context) error { return nil })
	if err != nil {
		return err
	}
	if err := bucket.Objects(ctx, names.Has, func(o stream.Object) error {
		fn(Garbage{Name: o.Digest.String(), Bytes: o.Size, Stored: o.Stored, Unnamed: o.Unnamed})
		return nil
	}); err != nil {
		return err
	}
	return bucket.Orphans(ctx, true, func(nuid string, bytes int64, newest time.Time) error {
		fn(Garbage{Name: nuid, Bytes: bytes, Stored: newest, Orphan: true})
		return nil
	})
}
