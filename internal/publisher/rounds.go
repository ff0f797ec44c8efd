package publisher

import (
	"context"

	"treecast/internal/events"
	"treecast/internal/source"
	"treecast/internal/stream"
)

// What a round needs of the world. [source.Tree], [stream.Lease] and
// [stream.Conn] say what each method promises; the tests have models of them.
type (
	// disk is the source tree.
	disk interface {
		looker
		reader
	}

	looker interface {
		Check() error
		Lstat(p events.Path) (source.Meta, error)
		List(dir events.Path) (source.Listing, error)
		Racy(m source.Meta) bool
	}

	reader interface {
		Settled(p events.Path) (settled, known bool, err error)
		Read(p events.Path, buf []byte) (source.Meta, []byte, error)
		Chunk(ctx context.Context, p events.Path, average uint32, was source.Body, put func(context.Context, source.Piece) error) (source.Meta, source.Body, error)
	}

	// history tells whether the stream still is the one that the index is of.
	history interface {
		Reconnects() uint64
		Server() string
		StreamInfo(ctx context.Context, site events.Site) (stream.Info, error)
	}

	// lease is the right to publish.
	lease interface {
		publication
		office
	}

	publication interface {
		Epoch() uint64
		LastSeq() uint64
		SetRoot(ctx context.Context, root string) error
		Publish(ctx context.Context, messages []stream.Message) []error
		Settle(ctx context.Context) error
	}

	office interface {
		OpenBucket(ctx context.Context, cfg stream.Config) (*stream.Bucket, error)
		Wants(fn func(stream.Want)) (stop func(), err error)
		LendConsumers() (stop func(), err error)
		Barriers(fn func(stream.BarrierRequest, func(stream.BarrierState))) (stop func(), err error)
		AnswerAsSource(fn func() any) (stop func(), err error)
		Release(ctx context.Context) error
	}
)
