// Package publisher keeps a site's stream equal to a source tree.
//
// It promises: whatever stands at a path when the source is quiet is what the
// stream's entry of that path says; nothing is deleted in the stream unless
// its absence was proven at the source (P4); kill -9 at any line loses
// nothing, since the stream is the only state that it has.
//
// # The way of a change
//
//	hint -> dirty set -> settled -> round { examine -> order -> read -> publish -> index }
//
// A hint only says "look at this path". A round takes what has settled, looks
// at the disk, compares with the index of what is published, and sends the
// differences: directories first, then files, then pages, then symlinks, then
// tombstones deepest first, so that on a node nothing is named before it is
// there, and a renamed file is never gone under both names. What could not be
// read or published goes back into the dirty set: memory is bounded by paths,
// not by events.
//
// A large file is not read in its round: it is uploaded in chunks beside the
// rounds, and its entry is published when all of them are acked. A renamed one
// is published at once, by its inode, and read afterwards. What no entry names any more leaves the bucket after a grace.
//
// # Invariants
//
//   - Every chunk that an entry names was acked before the entry was sent.
//   - The index changes on an ack only. After an unknown outcome the path's
//     record is uncertain and equal to nothing, so that it is sent again.
//   - Only the goroutine that runs rounds touches the index.
//   - A path leaves the dirty set before it is examined, so that a hint that
//     comes meanwhile is a new one.
//   - The root's entry comes last in a round, and says that the stream is whole
//     only when every path that is known to be at the source is in it.
//   - Tombstones come from [source.ErrAbsent] or from a complete listing; and
//     listings may not remove most of the tree without the operator's word.
//   - Nothing leaves the bucket that an entry names, or may come to: see
//     collection.
//
// Floor F2: it imports internal/source, internal/stream, internal/transfer and
// internal/events.
package publisher
