package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"treecast/internal/events"
)

// Info is the state of a site's stream.
//
// Sequences grow for as long as the stream lives; Created tells one stream
// from another of the same name (but not from its own restored backup).
type Info struct {
	Created         time.Time
	Now             time.Time // by the server's clock, as are the others
	LastSeq         uint64    // of the newest message ever stored
	LastTime        time.Time // when that was stored
	FirstSeq        uint64    // of the oldest message that lives
	Msgs, Bytes     uint64
	Replicas        int
	TombstoneTTL    time.Duration // a node away for longer must reconcile; 0: unknown
	MaxMessageBytes int64         // -1: no limit but the broker's
}

func infoOf(si *jetstream.StreamInfo) Info {
	ttl, err := time.ParseDuration(si.Config.Metadata[tombstoneTTLKey])
	if err != nil {
		ttl = 0 // none was written, or not by us
	}
	return Info{
		Created:         si.Created,
		Now:             si.TimeStamp,
		LastSeq:         si.State.LastSeq,
		LastTime:        si.State.LastTime,
		FirstSeq:        si.State.FirstSeq,
		Msgs:            si.State.Msgs,
		Bytes:           si.State.Bytes,
		Replicas:        si.Config.Replicas,
		TombstoneTTL:    ttl,
		MaxMessageBytes: int64(si.Config.MaxMsgSize),
	}
}

// StreamInfo returns the state of site's stream, as its leader has it. Errors
// are *[OpError] with [ErrNoStream], [ErrDenied], [ErrDisconnected],
// [ErrUnavailable] or ctx's own.
func (c *Conn) StreamInfo(ctx context.Context, site events.Site) (Info, error) {
	si, err := c.lookUpStream(ctx, streamName(site))
	if err != nil {
		return Info{}, failed("stream info", site, err)
	}
	return infoOf(si), nil
}

func (c *Conn) lookUpStream(ctx context.Context, name string) (*jetstream.StreamInfo, error) {
	ctx, done := c.guard(ctx, apiTimeout, exactly(apiPrefix+"STREAM.INFO."+name))
	defer done()
	s, err := c.js.Stream(ctx, name)
	if err != nil {
		return nil, translate(ctx, err)
	}
	return s.CachedInfo(), nil
}

// MayHave reports whether an entry of path may be in site's stream, read or
// not: the server passes over a message that its disk has altered, but counts
// it; or it knows that it has lost some. Errors are those of [Conn.StreamInfo].
func (c *Conn) MayHave(ctx context.Context, site events.Site, path events.Path) (bool, error) {
	var info jetstream.StreamInfo
	subject := site.Subject(path)
	err := c.api(ctx, "STREAM.INFO."+streamName(site), map[string]any{"subjects_filter": subject}, &info)
	if err != nil {
		return false, failed("look for an entry", site, err)
	}
	return info.State.Subjects[subject] > 0 || info.State.Lost != nil, nil
}

// EnsureStream makes sure that site has its stream and its bucket for the
// nodes' status, and returns the stream's state. It is the publisher's alone:
// a node that created what it does not find would hide that it was lost.
//
// A stream that exists is changed where that is safe: no message is dropped
// and no operator's limit lifted. Errors are *[OpError] with [ErrConfig] for
// what is not safe (nothing was changed then), [ErrServer] for a broker that
// cannot hold such a stream, [ErrDenied], [ErrDisconnected], [ErrUnavailable]
// or ctx's own. Calling it again is harmless.
func (c *Conn) EnsureStream(ctx context.Context, site events.Site, cfg Config) (Info, error) {
	info, err := c.ensureStream(ctx, site, cfg)
	if err != nil {
		return Info{}, failed("ensure stream", site, err)
	}
	if err := c.ensureBucket(ctx, site, cfg); err != nil {
		return Info{}, failed("ensure bucket of nodes", site, err)
	}
	return info, nil
}

func (c *Conn) ensureStream(ctx context.Context, site events.Site, cfg Config) (Info, error) {
	si, err := c.ensure(ctx, streamConfig(site, cfg, c.nc.MaxPayload()), cfg, mergeStream)
	if err != nil {
		return Info{}, err
	}
	return infoOf(si), nil
}

// merge is mergeStream or mergeBucket.
type merge func(have, want jetstream.StreamConfig, cfg Config, used uint64) (jetstream.StreamConfig, []string, error)

// ensure creates a stream, or changes what is safe to change of one that
// exists.
func (c *Conn) ensure(ctx context.Context, want jetstream.StreamConfig, cfg Config, merge merge) (*jetstream.StreamInfo, error) {
	for range 2 { // a second time if another publisher was faster
		si, err := c.lookUpStream(ctx, want.Name)
		if err == nil {
			return c.adjust(ctx, si, want, cfg, merge)
		}
		if !errors.Is(err, ErrNoStream) {
			return nil, err
		}
		si, err = c.putStream(ctx, want, true)
		if err == nil {
			c.log.Info("stream created", "stream", want.Name, "replicas", want.Replicas)
			return si, nil
		}
		if !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: it comes and goes", ErrNoStream)
}

func (c *Conn) adjust(ctx context.Context, si *jetstream.StreamInfo, want jetstream.StreamConfig, cfg Config, merge merge) (*jetstream.StreamInfo, error) {
	merged, changed, err := merge(si.Config, want, cfg, si.State.Bytes)
	if err != nil || len(changed) == 0 {
		return si, err
	}
	updated, err := c.putStream(ctx, merged, false)
	if err != nil {
		return nil, fmt.Errorf("update of %v: %w", changed, err)
	}
	c.log.Info("stream updated", "stream", want.Name, "fields", changed)
	return updated, nil
}

func (c *Conn) putStream(ctx context.Context, sc jetstream.StreamConfig, create bool) (*jetstream.StreamInfo, error) {
	verb, put := "UPDATE", c.js.UpdateStream
	if create {
		verb, put = "CREATE", c.js.CreateStream
	}
	ctx, done := c.guard(ctx, apiTimeout, exactly(apiPrefix+"STREAM."+verb+"."+sc.Name))
	defer done()
	s, err := put(ctx, sc)
	if err != nil {
		return nil, translate(ctx, err)
	}
	return s.CachedInfo(), nil
}

func (c *Conn) ensureBucket(ctx context.Context, site events.Site, cfg Config) error {
	si, err := c.lookUpStream(ctx, statusStream(site))
	if err == nil {
		if si.Config.MaxMsgsPerSubject < 1 || !si.Config.AllowDirect {
			return configErr("bucket", statusBucket(site), "allow_direct", si.Config.AllowDirect, true)
		}
		return nil
	}
	if !errors.Is(err, ErrNoStream) {
		return err
	}
	ctx, done := c.guard(ctx, apiTimeout, exactly(apiPrefix+"STREAM.CREATE."+statusStream(site)))
	defer done()
	_, err = c.js.CreateKeyValue(ctx, nodesConfig(site, cfg))
	if errors.Is(err, jetstream.ErrBucketExists) {
		return nil
	}
	return translate(ctx, err)
}
