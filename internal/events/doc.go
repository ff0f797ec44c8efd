// Package events is the wire contract: what one message says about one path.
//
// It promises that whatever [Decode] accepts is safe to act on: the path is
// canonical and inside the tree, the subject is the one that the path has, the
// kind and version are known, every number is in range; and that [Codec.Body]
// never allocates more than a small multiple of the compiled-in limits,
// whatever a frame claims. What it refuses it refuses whole, it never repairs:
// a repaired name is another name.
//
// The contract, readable with stock tools:
//
//	subject   treecast.<site>.file.<one token per path segment>
//	header    Treecast-Entry: {"v":1,"path":"img/logo.png","kind":"file",...}
//	payload   one zstd frame of the body, or nothing
//
// Bytes outside [A-Za-z0-9_-] are written =XX in a subject. The root of the
// tree is the path "." on the subject treecast.<site>.file._root. A subject
// over [MaxSubjectBytes] or [MaxSubjectTokens] is replaced by
// treecast.<site>.file._long.<32 base32 characters of the path's SHA-256>. A
// first segment that is itself "_root" or "_long" has its underscore escaped,
// so that no two paths share a subject.
//
// Floor F0: this package imports nothing of the project, no NATS, no disk.
package events
