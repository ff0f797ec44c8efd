// Package stream is everything that treecast says to JetStream: names and
// configurations, the connection, the lease that fences publishers, publishing,
// the durable consumer of a node, snapshots, the bucket of large bodies, and the
// status of nodes.
//
// It promises:
//
//   - A nil from [Lease.Publish] means stored and acknowledged by the server
//     under our lease. What may or may not be stored is [ErrUnknown], never nil,
//     and after it nothing that is still on the way can land on top of a later
//     publish: the lease is renewed first, and the server refuses what carries
//     the old one.
//   - A second publisher is refused while the first one answers; one that does
//     not answer is fenced by the server, not by a clock.
//   - [Conn.Snapshot] returns nil only if every path that lives in the stream
//     was seen in some version. A reply that was cut short is an error.
//   - [Consumer.Run] hands over messages in the order of the stream, each at
//     least once until it is acknowledged, and holds at most the bytes that it
//     was allowed to.
//   - A nil from [Bucket.Put] means that the object and its name are stored and
//     acknowledged. No object that the newest publisher has looked up, or put, is
//     changed or removed by an earlier one, however late.
//   - What is small does not wait behind the data of large bodies: that has a
//     connection of its own.
//   - Nothing here deletes a stream, a bucket, an entry or a node's consumer.
//
// # Names
//
// A site "web" has the stream "web" with the subjects treecast.web.file.> and
// treecast.web.lease, the key-value bucket "web-nodes", the object store "web",
// and one durable consumer a node, named after it. Core subjects, not stored,
// are treecast.web.holder, where the holder of the lease answers,
// treecast.web.barrier, where it is asked whether all is published,
// treecast.web.source, where it is asked how the source is,
// treecast.web.want, where nodes ask for objects, treecast.web.snapshot, where
// they ask to be lent a consumer of headers, "<node>+snapshot", and
// treecast.web.node.<name>, where a node answers how it is.
//
// The object store is stream "OBJ_web", as nats.go lays it out. An object's
// data is on $O.web.C.<NUID>, where a NUID is used once and never again; its
// meta, on $O.web.M.<name in base64>, names the NUID and takes the place of the
// meta before it. What is an object is what a meta that lives says is one.
// Metadata "treecast-encoding" says "zstd" of data that is one frame, and
// "treecast-unnamed" since when no entry names the object. A message of data has
// its object's name in the header Treecast-Object.
//
// # The bucket's fence
//
// A purge cannot be conditional, a publish can. So data is only ever purged
// under a NUID that, by an acknowledged publish under a fence, no meta names any
// more, or that none can come to name; it stays unnamed for ever, and the purge
// may come as late as it likes.
//
// The fence is the last sequence of $O.web.C.lease, the bucket's lease: every
// meta expects it, so the server refuses metas under an earlier one. It is moved
// in three steps (refence), in this order: read the bucket's lease; prove that
// the site's lease is ours by renewing it, a write that the server makes
// conditional; write the bucket's lease, expecting what was read.
//
// Once a holder B has written the bucket's lease, no earlier holder A writes it
// any more. Suppose A did. The server accepted it, so A had read the sequence
// that B wrote, or a later one: A read after B had written. Then A renewed the
// site's lease. But B had renewed it before it wrote, and A's renewal expects a
// sequence from before B: the server refuses it, and A does not write. Reads may
// be out of date here, and messages late: a read cannot be from the future, and
// the rest is the server's comparing. (With the first two steps exchanged a
// holder that stalls between them wins the bucket back.)
//
// Hence, when B has opened the bucket, no meta of A is accepted any more. What A
// deleted before, B sees as deleted: B looks up afterwards, and takes an answer
// only from a server that has the stream up to B's own last write (each look-up
// asks for the bucket's lease too, so that there is an answer, and with it how
// far the server has got). What B sees as there, A cannot delete.
//
// An upload is data without a meta until its end. It is an orphan only if it was
// there before the fence was moved, is not of this Bucket's own uploads under way,
// and if the object whose name it has, looked up after that, is another one: what
// was on its way is refused, and later holders begin with new NUIDs. That is what
// DeleteOrphan relies on.
//
// After an unknown outcome of a meta, a deletion say, the fence is moved before
// anything else is looked up or written, so that it cannot land later. None of
// this holds in a bucket that lost what it had acknowledged; there nodes find
// chunks missing and want them ([Bodies.Want]).
//
// # Rights
//
// Every reply comes to _INBOX_<connection name>.>, so rights can be narrow;
// deploy/nats-example.conf has them for each role. The second connection of a
// process has the same name, user and inbox. A refusal by the server's
// permissions is an error at once ([ErrDenied]), not a timeout.
//
// # Invariants
//
//   - Compaction: MaxMsgsPerSubject is 1, so the stream holds one message a
//     path. Consumers are AckExplicit, never AckAll: the server treats a
//     delivered message that is then compacted as acknowledged, and AckAll would
//     acknowledge everything before it too.
//   - Everything published carries the lease's sequence as the expected last
//     sequence of the lease's subject; only the server compares.
//   - Sequences of acknowledgements grow. One that does not means that the
//     stream went back in time ([ErrWentBack]).
//   - A consumer's count of what is pending is no proof of the end: it may be 0
//     in the midst of a rewrite. Only the store itself, asked directly, is.
//   - Requests that must see what the stream's leader has (the lease, the end
//     of a snapshot) go to the leader; Direct Get may be answered by a replica
//     that lags.
//
// Floor F1: imports internal/events and NATS clients. No disk but for the
// files that hold credentials.
package stream
