// Package apply puts entries on a node's disk.
//
// It promises that a reader of the tree never sees a torn or mixed file, since
// content, owner, mode and mtime arrive in one rename (P1); that what
// [Tree.Commit] returned as done survives a power loss, and a kill at any
// instant loses nothing (P2); that the tree ends up equal to the source as
// rsync -anic --delete judges it, directory times included (P3); and that
// nothing is removed but by a tombstone, by an entry of another kind at the
// same path, or by [Tree.RemoveForeign], of which only the last two can meet
// what the source never had: that goes to the trash (P4).
//
// Floor F1: it imports internal/events, x/sys, x/sync and the standard
// library; no NATS. Linux 5.8 or later.
//
// # How
//
// [Tree.Stage] writes a temp in the staging directory, which is on the tree's
// file system but not served. [Tree.Commit] takes a group of them and makes
// them visible and durable. Every path is resolved by openat2(2) below the
// held root, without following a symlink or crossing a mount, and then worked
// on by name in its held parent: no path string is used after it was checked,
// and a symlink that someone puts in the way leads nowhere.
//
// # Staging
//
// <parent>/.<name>.treecast beside the root, or <root>/.treecast where that
// does not work, mode 0700:
//
//	lock                  flock of the process that holds the tree; its pid
//	watermark             two slots of text, each with counter and checksum
//	journal.0, journal.1  the same: directories with their mode and mtime
//	tmp/                  temps, by random names
//	parked.0, parked.1    entries that were refused for good
//	scrub.0, scrub.1      how far the scrub is
//	parts/                large bodies that are being put together, one a path
//	trash/<time>-<n>/     what was taken away, by its path in the tree
//
// A large body comes in chunks ([Tree.StageChunks]): what of it is here already
// is copied, the rest fetched, into a part, which a crash or an error leaves for
// the next try. A part becomes a temp when it is whole and durable. What is in
// the large files of the tree is remembered for as long as the kernel says that
// nothing happened to them, so that a renamed one is linked, not read.
//
// # Crash points
//
// A Commit goes through these steps, named so in [StepError]. After a crash at
// or after each of them, Open and the entries that were not acked, applied
// again, give the tree that was wanted:
//
//	stage    temps written. A crash leaves litter in tmp; Open removes it.
//	journal  the directories about to be disturbed are listed with the mode
//	         and mtime that they are to have in the end.
//	sync     one durability point for temps and journal: an fsync each, all at
//	         once, or one syncfs. Nothing is visible yet. A failed fsync drops
//	         its temp and closes the journal; the bytes are written anew.
//	commit   renames, exchanges, unlinks, in the group's order. A crash leaves
//	         each path old or new, and the mtimes of their directories wrong.
//	         Those whose own entry is in the group will get it again, since it
//	         was not acked. The others would stay wrong for ever, since a file
//	         that comes again is found right and not written: Open sets them
//	         from the journal.
//	settle   directories get their attributes, deepest first.
//	syncdir  one durability point for all directories. If it fails nothing may
//	         be acked, and the next group, which will find its paths right,
//	         ends with a syncfs.
//
// The journal is not cleared after a group, which would cost a sync of its
// own. It stays in force, since it is true: the invariant is that whatever
// gives a listed directory another state first replaces the list durably. A restore therefore repeats what is,
// or what the group under way was about to do. A group whose directories are
// listed already, as when files in one directory are overwritten again and
// again, or all of whose directories come with their own entries, writes no
// journal at all. Close clears it, so that what an operator does to a stopped
// node is not undone.
//
// What is found right was not necessarily made durable by whoever wrote it (a
// process of ours that was killed after its renames, an operator's rsync).
// Open therefore ends with a syncfs, and a group that finds something right
// that changed since the last one does so too.
//
// A directory with something in it that an entry of another kind replaces is
// exchanged with the temp and then moved from tmp to the trash. A crash
// between the two leaves it in tmp, where Open tells it from a temp by its not
// being empty.
//
// # Rights
//
// A process that is not root sets what it may. What it may not (owners,
// setgid of groups that it is not in, devices, attributes of other users'
// directories) is counted in [Denied], logged once a cause, and not seen as a
// difference by Compare. A directory of its own without write permission is
// made writable for the moment of a commit; its mode is in the journal before.
package apply
