package subscriber

import (
	"context"

	"treecast/internal/apply"
	"treecast/internal/events"
	"treecast/internal/stream"
)

// An item is one delivery on its way to the tree, or what a scrub doubts.
type item struct {
	delivery stream.Delivery
	again    bool          // delivered before: nothing to stage
	large    bool          // its body is in chunks: staged by fetches
	doubt    *doubt        // the path was found to differ; nil: it was not
	ready    chan struct{} // closed when the rest is set

	entry   events.Entry
	staged  *apply.Staged // nil: nothing to apply, or err
	fetched int64         // bytes that came from the bucket
	err     error
}

// stage decodes and stages an item, but for a large body. What is not a path's
// message, the lease for one, has nothing to apply.
func (it *item) stage(ctx context.Context, site events.Site, tree *apply.Tree) {
	defer close(it.ready)
	d := &it.delivery
	if it.again || !site.IsFile(d.Subject) {
		return
	}
	if it.entry, it.err = events.Decode(site, d.Subject, d.Header); it.err != nil {
		return
	}
	if it.large = it.entry.Body == events.ChunksBody; !it.large {
		it.staged, it.err = tree.Stage(ctx, &it.entry, d.Payload)
	}
}

// bytes is an item's share of a pipeline's memory. A staged item may keep its
// payload, to be staged again.
func (it *item) bytes() int64 {
	return min(int64(len(it.delivery.Header)+len(it.delivery.Payload))+512, memoryBytes)
}

func (it *item) discard() {
	if it.staged != nil {
		it.staged.Discard()
		it.staged = nil
	}
}
