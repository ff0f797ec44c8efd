package stream

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"treecast/internal/events"
)

// An Object is what the bucket says of one object: chunks of bodies, and lists
// of chunks.
type Object struct {
	Digest     events.Digest // its name
	Size       int64         // bytes as they are stored
	Compressed bool          // they are one zstd frame
	Stored     time.Time
	Unnamed    time.Time // since when no entry names it; zero: not marked

	nuid   string // of its data's subject
	chunks int    // messages that have its data
}

const (
	encodingKey  = "treecast-encoding"
	encodingZstd = "zstd"
	unnamedKey   = "treecast-unnamed"

	// objectHeader of a message of data has the name of its object, so that
	// data that no meta names tells where it would belong.
	objectHeader = "Treecast-Object"

	// maxObjectBytes is more than any chunk or list of chunks has.
	maxObjectBytes = events.MaxListBytes

	lookupNames = 1024 // subjects in one request, the bucket's lease included
)

func metaSubject(site events.Site, name string) string {
	return "$O." + string(site) + ".M." + base64.URLEncoding.EncodeToString([]byte(name))
}

// A meta is a stored meta message.
type meta struct {
	info jetstream.ObjectInfo
	time time.Time
}

// parseMeta reports false for what nats.go's object store would not have
// written.
func parseMeta(site events.Site, d *Delivery) (meta, bool) {
	m := meta{time: d.Time}
	err := json.Unmarshal(d.Payload, &m.info)
	return m, err == nil && metaSubject(site, m.info.Name) == d.Subject
}

// object returns m as an Object, and false if it is none of ours or deleted.
func (m *meta) object() (Object, bool) {
	digest, err := events.ParseDigest(m.info.Name)
	o := Object{
		Digest:     digest,
		Size:       int64(m.info.Size), //nolint:gosec // checked below
		Compressed: m.info.Metadata[encodingKey] == encodingZstd,
		Stored:     m.time,
		nuid:       m.info.NUID,
		chunks:     int(m.info.Chunks),
	}
	if !m.info.ModTime.IsZero() { // the meta was rewritten since
		o.Stored = m.info.ModTime
	}
	if since, err := time.Parse(time.RFC3339Nano, m.info.Metadata[unnamedKey]); err == nil {
		o.Unnamed = since
	}
	link := m.info.Opts != nil && m.info.Opts.Link != nil
	return o, err == nil && !m.info.Deleted && !link && o.nuid != "" && o.Size > 0
}

// Lookup returns those of digests that the bucket has. Under a lease none of
// them was deleted before, by anyone: a replica that lags is asked again.
// (That its data is there too is not looked at.) Deletions by this Bucket that
// run at the same time are for the caller to keep apart.
func (b *Bucket) Lookup(ctx context.Context, digests []events.Digest) (map[events.Digest]Object, error) {
	names := make([]string, 0, len(digests))
	asked := make(map[events.Digest]bool, len(digests))
	for _, d := range digests {
		if !asked[d] {
			asked[d] = true
			names = append(names, d.String())
		}
	}
	found := make(map[events.Digest]Object, len(names))
	err := b.current(ctx, names, func(m *meta) {
		if o, ok := m.object(); ok {
			found[o.Digest] = o
		}
	})
	if err != nil {
		return nil, failed("look up bodies", b.site, err)
	}
	return found, nil
}

// current calls fn with the metas of those names that have one. Under a lease
// they are what the bucket had at some instant after the call, our own writes
// before it included.
func (b *Bucket) current(ctx context.Context, names []string, fn func(*meta)) error {
	if len(names) == 0 {
		return nil
	}
	r, err := b.c.openDirect(ctx, bucketStream(b.site))
	if err != nil {
		return err
	}
	defer r.close()
	for len(names) > 0 {
		n := min(len(names), lookupNames-1)
		if err := b.currentPage(ctx, r, names[:n], fn); err != nil {
			return err
		}
		names = names[n:]
	}
	return nil
}

// currentPage asks for few enough names for one request. The bucket's lease is
// one of them, so that there is always something to answer, and with it up to
// where the answering server has the stream.
func (b *Bucket) currentPage(ctx context.Context, r *directReader, names []string, fn func(*meta)) error {
	subjects := make([]string, 1, len(names)+1)
	subjects[0] = dataSubject(b.site, bucketLease)
	for _, name := range names {
		subjects = append(subjects, metaSubject(b.site, name))
	}
	for attempt := 1; ; attempt++ {
		need := uint64(0)
		if b.l != nil {
			if err := b.settle(ctx); err != nil {
				return err
			}
			b.mu.Lock()
			need = b.acked
			b.mu.Unlock()
		}
		metas, err := lastMetas(r, b.site, subjects)
		if err != nil {
			return err
		}
		if r.upTo >= need {
			for i := range metas {
				fn(&metas[i])
			}
			return nil
		}
		if attempt == lagAttempts {
			return fmt.Errorf("%w: it has the bucket up to %d, not to %d", ErrUnavailable, r.upTo, need)
		}
		if !b.serial || attempt == lagAttempts/2 { // the bucket itself went back: what we know of it is void
			b.mu.Lock()
			b.unsure = true
			b.mu.Unlock()
		}
		if err := sleep(ctx, lagPause); err != nil {
			return err
		}
	}
}

// lastMetas returns the newest meta on each of at most lookupNames subjects,
// in the order of the stream.
func lastMetas(r *directReader, site events.Site, subjects []string) ([]meta, error) {
	var metas []meta
	req := directRequest{Last: subjects, Batch: lookupNames, MaxBytes: directBytes}
	for more := true; more; {
		var err error
		req.Seq, more, err = r.read(req, func(d *Delivery) error {
			if m, ok := parseMeta(site, d); ok {
				metas = append(metas, m)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return metas, nil
}

// Objects calls fn with the bucket's objects, but for those that skip, if not
// nil, reports true of; what is put or deleted while this runs may be left out,
// or be seen as it was. [Bucket.SetUnnamed] and [Bucket.Delete] look again, and
// whether to rely on an object is for [Bucket.Lookup] to say. After an error,
// fn's or the bucket's, what fn was told is not all.
//
// The names come from the server's memory; only of objects that are not skipped
// something is read from its disk.
func (b *Bucket) Objects(ctx context.Context, skip func(events.Digest) bool, fn func(Object) error) error {
	return failed("list bodies", b.site, b.objects(ctx, skip, fn))
}

func (b *Bucket) objects(ctx context.Context, skip func(events.Digest) bool, fn func(Object) error) error {
	var names []string
	if err := b.subjects(ctx, metaSubject(b.site, ""), func(encoded string) {
		name, err := base64.URLEncoding.DecodeString(encoded)
		if err != nil {
			return
		}
		if d, err := events.ParseDigest(string(name)); err == nil && (skip == nil || !skip(d)) {
			names = append(names, string(name))
		}
	}); err != nil {
		return err
	}
	for page := range slices.Chunk(names, lookupNames-1) {
		var objects []Object
		if err := b.current(ctx, page, func(m *meta) {
			if o, ok := m.object(); ok {
				objects = append(objects, o)
			}
		}); err != nil {
			return err
		}
		for _, o := range objects {
			if err := fn(o); err != nil {
				return err
			}
		}
	}
	return nil
}

// subjects calls fn with what follows prefix in each of the bucket's subjects.
// Of more than a page some may be left out while others come and go.
func (b *Bucket) subjects(ctx context.Context, prefix string, fn func(rest string)) error {
	for offset := 0; ; {
		page, err := b.subjectPage(ctx, prefix, offset)
		if err != nil {
			return err
		}
		for subject := range page.State.Subjects {
			fn(strings.TrimPrefix(subject, prefix))
		}
		offset += len(page.State.Subjects)
		if len(page.State.Subjects) == 0 || offset >= page.Total {
			return nil
		}
	}
}

// countSubjects counts what subjects lists.
func (b *Bucket) countSubjects(ctx context.Context, prefix string) (int, error) {
	page, err := b.subjectPage(ctx, prefix, math.MaxInt32) // beyond the last: the total alone
	return page.Total, err
}

type subjectPage struct {
	Total int `json:"total"`
	State struct {
		Subjects map[string]uint64 `json:"subjects"`
	} `json:"state"`
}

func (b *Bucket) subjectPage(ctx context.Context, prefix string, offset int) (page subjectPage, err error) {
	req := map[string]any{"subjects_filter": prefix + ">", "offset": offset}
	err = b.c.api(ctx, "STREAM.INFO."+bucketStream(b.site), req, &page)
	return page, err
}

// ErrChanged reports an object that is not any more what the caller has read:
// it was put again, marked, or deleted. Read it again.
var ErrChanged = errors.New("the object has changed")

// same returns the meta of o, if o is up to date. The caller has its turn.
func (b *Bucket) same(ctx context.Context, o Object) (*jetstream.ObjectInfo, error) {
	var info *jetstream.ObjectInfo
	err := b.current(ctx, []string{o.Digest.String()}, func(m *meta) {
		now, ok := m.object()
		if ok && now.nuid == o.nuid && now.Unnamed.Equal(o.Unnamed) {
			m.info.ModTime = now.Stored
			info = &m.info
		}
	})
	if err == nil && info == nil {
		err = ErrChanged
	}
	return info, err
}
