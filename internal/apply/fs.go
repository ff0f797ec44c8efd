package apply

import (
	"io"

	"treecast/internal/events"
)

// fileSystem is where everything on disk starts. The real one is [kernel];
// tests put one around it that breaks at any call and loses what was not made
// durable.
type fileSystem interface {
	// open holds the directory at a path that an operator named. This is the
	// only call that follows symlinks.
	open(path string) (directory, error)
}

// directory is a held directory. A rel is a path below it that is resolved
// without leaving it, without following any symlink and without crossing a
// mount; a name is a single segment; "" is the directory itself. Errors are
// plain errnos. Nothing is durable before sync or syncFS.
//
// Calls may come from many goroutines at once, but for close.
type directory interface {
	reader
	namer
	attributes
	syncer
	openDir(rel string) (directory, error)
	openFile(rel string) (file, error)    // to read; EINVAL if it is not a regular file
	create(name string) (file, error)     // new, mode 0600, to write; EEXIST
	openRecord(name string) (file, error) // to read and write in place, made if missing
}

// reader looks and changes nothing.
type reader interface {
	stat() (stat, error)
	lstat(rel string) (stat, error)
	readlink(rel string) (string, error)
	names() ([]string, error)         // in no order, without "." and ".."
	mounts(name string) (bool, error) // something is mounted at or under it
}

// namer changes the names in a directory.
type namer interface {
	mkdir(name string) error // mode 0700 less the umask
	symlink(target, name string) error
	mknod(name string, e *events.Entry) error
	remove(name string, dir bool) error // unlink, or rmdir
	rename(name string, to directory, toName string, how renaming) error
	link(name string, to directory, toName string) error // a second name of a file; not of what a symlink names
}

type renaming int

const (
	replacing  renaming = iota // what is there goes, atomically
	exchanging                 // the two swap, atomically; of any kinds
)

// attributes changes what lstat shows of a name, never through a symlink, or
// of the directory itself.
type attributes interface {
	chown(name string, uid, gid uint32) error
	chmod(name string, mode uint16) error // not of a symlink
	chtimes(name string, mtime events.Time) error
}

// syncer makes things durable and lets go of them.
type syncer interface {
	sync() error   // this directory: its names and its own attributes
	syncFS() error // everything on its file system
	close()
}

// file is an open regular file.
type file interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.WriterAt
	readCold(p []byte, off int64) (int, error) // ReadAt that brings nothing into the page cache, and puts nothing out
	stat() (stat, error)
	chown(uid, gid uint32) error
	chmod(mode uint16) error
	chtimes(mtime events.Time) error
	allocate(off, n int64) error // takes the room of n bytes from off on; the file is that long then, or longer
	truncate(size int64) error
	free() (int64, error)                       // bytes that its file system has room for, what is reserved included
	copyFrom(src file, from, to, n int64) error // n bytes at from in src to to in this one; EIO if src is shorter
	link(to directory, name string) error       // another name of it; ENOENT if it has none any more
	sync() error                                // bytes and attributes
	datasync() error                            // bytes
	lock() error                                // exclusive, until close; EWOULDBLOCK if another holds it
	close()
}

// stat is what the kernel knows of a path.
type stat struct {
	kind         events.Kind // 0 if it is none of ours
	mode         uint16
	uid, gid     uint32
	major, minor uint32 // of a device
	size         int64
	mtime, ctime events.Time
	dev, ino     uint64
}

// same reports whether nothing has happened to the inode between s and o.
// Only the kernel sets ctime, so that touch -r and cp -p are seen too.
func (s stat) same(o stat) bool { return s == o }
