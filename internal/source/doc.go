// Package source answers, from the disk, what stands at a path of the source
// tree now, and hints where to look again.
//
// It promises that
//   - absence is proven, never guessed: [ErrAbsent] means that the kernel said
//     so below the held root, and that the configured root still was that root
//     afterwards. Any other trouble proves nothing;
//   - nothing outside the tree is read: no symlink is followed, no other file
//     system is entered, whatever is swapped in while a path is looked at;
//   - bytes that [Tree.Read] returns stood in the file together: no change of
//     (device, inode, size, mtime, ctime) while they were read, and they are
//     the bytes that the digest is of. So did the chunks that [Tree.Chunk]
//     returns the list of;
//   - a file of any size is read in constant memory, and its holes are not read;
//   - a change in a watched directory is followed by a [Hint] at its path or
//     above it. Events are hints, lstat is the truth, and a periodic scan finds
//     what no event tells: a write through an outside hard link or a mapping.
//
// A [Tree] holds its root by a descriptor and reaches everything with
// openat2(2) below it. A [Watcher] has one goroutine that owns fsnotify and a
// tree of the directories that it watches. The invariants of that goroutine:
//
//  1. It alone adds and removes watches and takes events, and does nothing
//     slow: directories are added a few at a time between events. Only the
//     errors are taken off by another goroutine (see backend).
//  2. It has its own tree of directories, so that a subtree is known.
//  3. When a name was created, renamed or removed, the watches at and under it
//     are dropped before the next event is taken, and made anew if a directory
//     stands there. An inode is never watched under two names, for inotify
//     would report both under the first.
//  4. Whenever a directory is watched, it is listed afterwards; what its
//     listing adds is followed by a deep hint.
//  5. An event in a directory that is not known is a deep hint for the nearest
//     ancestor that is.
//  6. Any error of fsnotify replaces the watcher, with all its watches, and
//     ends in a deep hint for the root.
//  7. fs.inotify.max_queued_events is raised before, where we may.
//  8. [Watcher.Rewatch] compares the watches with the tree of directories and
//     both with the disk.
//  9. [Watcher.Sync] is a barrier: it returns when every change made before
//     the call has been handed on as a hint.
//  10. The old name of what was renamed is not handed on before the new one.
//
// Linux only: openat2 needs 5.6, and /proc must be mounted for the watcher.
//
// Known limits, all healed by a scan: a write through a mapping makes no event
// (but [Tree.Settled] says that the file is still mapped for writing); stores
// into a page that is dirty already do not move mtime until writeback; nothing
// tells of a mount or an unmount below the root.
//
// Floor F1: imports internal/events, no other package of the project, no NATS.
package source
