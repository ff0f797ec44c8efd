// Package subscriber keeps one node's tree equal to a site's stream.
//
// It promises: an entry is acked only after it is durable in the tree (P2), or
// durably parked; an entry that cannot be applied now is held with its kin,
// and retried, while others go on; and the tree ends equal to the stream (P3)
// whatever was interrupted.
//
// # The way of an entry
//
//	delivery -> decode -> stage (parallel) -> commit (in order, in groups) -> watermark -> ack
//
// A large body is fetched from the bucket beside that way: its entry is held
// until the body is staged, and small ones go on. What the bucket lacks, or has
// altered, the publisher is asked for; the path keeps what it has meanwhile.
//
// The watermark, on the node's own disk, is the truth about where the node
// stands: at start the durable consumer is reset to the message after it, so
// that redelivery comes in order. Without a watermark that fits the stream the
// node reconciles first: it reads the snapshot, compares the tree, fetches
// what differs, and moves what the source does not have to the trash. Large
// bodies it leaves held, with what failed, and follows from the snapshot's end:
// it is current for all others while they arrive. After a crash it compares
// again, without reading the files, rather than have all of that delivered. An
// empty tree without a watermark stands before the first message, and is not
// compared, unless it is to come at a rate.
//
// Beside all that the tree is read, slowly, and compared with the snapshot: a
// scrub. What it doubts takes the way of an entry that was held, so that only
// what is wrong is mended, and nothing that is newer is undone.
//
// # Invariants
//
//   - One goroutine commits, in stream order. Staging alone is parallel.
//   - The watermark is below every held entry: after a crash they come again,
//     acked or not. The broker's acks are only how it knows what may come next.
//   - An entry whose kin is held waits behind it, for only order makes a path
//     and its ancestors agree.
//   - One subscriber a name: a second one waits until the broker sees no other
//     ask for messages.
//   - A tree is compared at least as often as deletions expire, so that one that
//     was out of reach meanwhile misses none.
//   - What the snapshot lacks is foreign only in a sealed stream: one whose
//     root's entry says that it is whole. Until then the watermark says that
//     the tree is unswept.
//
// Floor F2: it imports internal/apply, internal/stream, internal/transfer,
// internal/events, and of internal/source the filter.
package subscriber
