package publisher

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"treecast/internal/events"
	"treecast/internal/stream"
)

// named is what live entries name: chunks, and lists of chunks that are objects.
// Eight bytes of a digest do: an object that is taken for another one stays.
type named map[uint64]struct{}

func (n named) key(d events.Digest) uint64 { return binary.BigEndian.Uint64(d[:]) }

func (n named) add(d events.Digest) { n[n.key(d)] = struct{}{} }

func (n named) Has(d events.Digest) bool {
	_, has := n[n.key(d)]
	return has
}

// errUnread reports an entry that may name objects, we cannot tell which:
// nothing may be removed then.
var errUnread = errors.New("an entry whose chunks are not known")

// namedAttempts is how often the stream is read if bodies move meanwhile.
const namedAttempts = 5

// A catalog reads what the entries of a site name.
type catalog struct {
	conn  *stream.Conn
	site  events.Site
	codec *events.Codec
}

// named reads what all entries name that live when it returns, but for those
// that uploads published since it was called. moves counts how often an entry
// was published with another one's body: if that happened meanwhile the other
// one may be gone before it was read, and this one may be newer than what was
// read, so the stream is read again. settle returns once what was counted is in
// the stream, or never will be.
func (c *catalog) named(ctx context.Context, moves func() int, settle func(context.Context) error) (named, error) {
	names := make(named)
	read := make(map[uint64]bool)
	for range namedAttempts {
		before := moves()
		if err := settle(ctx); err != nil {
			return nil, err
		}
		var lists []stream.Wanted
		_, err := c.conn.Snapshot(ctx, c.site, func(seq uint64, subject, header string) error {
			e, err := events.Decode(c.site, subject, header)
			if err != nil {
				return fmt.Errorf("%w: message %d: %w", errUnread, seq, err)
			}
			if e.Body == events.ChunksBody && !read[seq] {
				lists = append(lists, stream.Wanted{Seq: seq, Bytes: e.PayloadLimit()})
				read[seq] = true
			}
			return nil
		})
		if err == nil {
			err = c.conn.Fetch(ctx, c.site, lists, func(d stream.Delivery) error { return c.add(ctx, names, &d) })
		}
		if err != nil {
			return nil, err
		}
		if moves() == before {
			return names, nil
		}
	}
	return nil, fmt.Errorf("%w: large files are renamed all the time", errUnread)
}

func (c *catalog) add(ctx context.Context, names named, d *stream.Delivery) error {
	e, err := events.Decode(c.site, d.Subject, d.Header)
	if err != nil {
		return fmt.Errorf("%w: message %d: %w", errUnread, d.Seq, err)
	}
	list, err := c.list(ctx, &e, d.Payload)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", errUnread, strconv.Quote(e.Path.String()), err)
	}
	if e.List != nil {
		names.add(*e.List)
	}
	for _, chunk := range list {
		if !chunk.Hole() {
			names.add(chunk.Digest)
		}
	}
	return nil
}

// chunked returns the entry of path as it is published, and its message; nil if
// it is not that of a file in chunks.
func (c *catalog) chunked(ctx context.Context, path events.Path) (events.Entry, *stream.Delivery, error) {
	d, err := c.conn.Entry(ctx, c.site, path)
	if err != nil || d == nil {
		return events.Entry{}, nil, err
	}
	e, err := events.Decode(c.site, d.Subject, d.Header)
	if err != nil || e.Kind != events.File || e.Body != events.ChunksBody {
		return events.Entry{}, nil, nil
	}
	return e, d, nil
}

// list opens an entry's chunk list, in its message or in the bucket.
func (c *catalog) list(ctx context.Context, e *events.Entry, payload []byte) (list events.ChunkList, err error) {
	if e.List == nil {
		return c.codec.List(e, payload)
	}
	err = c.conn.Bodies(c.site).Get(ctx, []events.Digest{*e.List}, func(_ int, data []byte, _ bool) (err error) {
		list, err = c.codec.ListObject(e, bytes.NewReader(data))
		return err
	})
	return list, err
}
