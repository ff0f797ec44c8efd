package stream

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"treecast/internal/events"
)

// ErrNoObject reports objects that the bucket does not have, or not whole. The
// error is a *[MissingError].
var ErrNoObject = errors.New("not in the bucket")

// A MissingError names the objects that could not be had; it is an
// [ErrNoObject].
type MissingError struct{ Digests []events.Digest }

func (e *MissingError) Error() string {
	return fmt.Sprintf("%d chunks are %v, %s is the first", len(e.Digests), ErrNoObject, e.Digests[0])
}

func (e *MissingError) Unwrap() error { return ErrNoObject }

// An object is what the bucket says of a chunk, in the form of nats.go's object
// store, so that `nats object ls` and get work.
type object struct {
	nuid       string // of its data's subject
	size       int64  // of its data
	messages   int    // that have its data
	compressed bool
}

const (
	encodingKey  = "treecast-encoding"
	encodingZstd = "zstd"

	// objectBytes is how much data is in one message.
	objectBytes = 512 << 10
	// maxObjectBytes is more than any chunk or list has, packed.
	maxObjectBytes = events.MaxListBytes
)

func bucketStream(site events.Site) string { return "OBJ_" + string(site) }

func dataSubject(site events.Site, nuid string) string { return "$O." + string(site) + ".C." + nuid }

func metaSubject(site events.Site, d events.Digest) string {
	return "$O." + string(site) + ".M." + base64.URLEncoding.EncodeToString([]byte(d.String()))
}

// objectOf reads a meta message, nil if it says that the object was deleted.
func objectOf(data []byte) (*object, error) {
	var info jetstream.ObjectInfo
	if err := json.Unmarshal(data, &info); err != nil {
		return nil, fmt.Errorf("%w: an object's meta: %w", ErrServer, err)
	}
	if info.Deleted || info.NUID == "" {
		return nil, nil
	}
	return &object{
		nuid: info.NUID, size: int64(info.Size), messages: int(info.Chunks), //nolint:gosec // checked where it is used
		compressed: info.Metadata[encodingKey] == encodingZstd,
	}, nil
}

// lookUp asks for one object's meta; nil: there is none.
func (c *Conn) lookUp(ctx context.Context, site events.Site, d events.Digest) (*object, error) {
	api := apiPrefix + "DIRECT.GET." + bucketStream(site)
	body, err := json.Marshal(map[string]string{"last_by_subj": metaSubject(site, d)})
	if err != nil {
		return nil, err
	}
	ctx, done := c.guard(ctx, apiTimeout, exactly(api))
	defer done()
	msg, err := c.nc.RequestWithContext(ctx, api, body)
	if errors.Is(err, nats.ErrNoResponders) {
		return nil, fmt.Errorf("%w: bucket %q", ErrNoStream, site)
	}
	if err != nil {
		return nil, translate(ctx, err)
	}
	switch code, text := status(msg); code {
	case "":
		return objectOf(msg.Data)
	case "404":
		return nil, nil
	default:
		return nil, fmt.Errorf("%w: direct get: %s %s", ErrServer, code, text)
	}
}
