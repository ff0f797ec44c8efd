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
//   - An object of the bucket is visible only when all of its data is
//     acknowledged: its meta comes last. [Bodies.Get] hands over whole objects,
//     and names those that it cannot have.
//   - Nothing here deletes a stream, a bucket, a message or a node's consumer.
//
// # Names
//
// A site "web" has the stream "web" with the subjects treecast.web.file.> and
// treecast.web.lease, the object store "web" (the stream "OBJ_web"), the
// key-value bucket "web-nodes", and one durable consumer a node, named after it.
// Core subject treecast.web.holder is where the holder of the lease answers, and
// treecast.web.want is where nodes ask for chunks; neither is stored.
//
// # Rights
//
// Every reply comes to _INBOX_<connection name>.>, so rights can be narrow;
// deploy/nats-example.conf has them for each role. A refusal by the server's
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
