package events

import "errors"

// ErrEntry reports an entry that breaks the contract. Permanent.
var ErrEntry = errors.New("malformed entry")

// ErrVersion reports an entry of a version, kind or body form that this
// program does not know. Permanent for this program; a newer one may know it.
var ErrVersion = errors.New("unknown entry version")

// Version is the version of the entries that this program writes and reads.
const Version = 1

// A Kind says what stands at a path.
type Kind uint8

// The kinds. Specials (FIFO and on) travel only where both ends enable them.
const (
	File Kind = iota + 1
	Dir
	Symlink
	Tombstone // nothing stands there
	FIFO
	Socket
	CharDevice
	BlockDevice
)

var kindNames = [...]string{File: "file", Dir: "dir", Symlink: "symlink", Tombstone: "tombstone",
	FIFO: "fifo", Socket: "socket", CharDevice: "char", BlockDevice: "block"}

// String returns the kind as the wire has it.
func (k Kind) String() string {
	if int(k) < len(kindNames) && k != 0 {
		return kindNames[k]
	}
	return "unknown"
}

// Special reports whether the kind needs --specials at both ends.
func (k Kind) Special() bool { return k >= FIFO }

// A Body says how a file's bytes travel.
type Body uint8

// The forms of a body.
const (
	NoBody     Body = iota // no bytes: an empty file, or not a file
	InlineBody             // one zstd frame in the entry's message
	ChunksBody             // the message has the list of chunks in the bucket
)

// An Entry is the wanted state of one path.
//
// Mode has the twelve permission bits (setuid, setgid, sticky and rwx) and no
// type. UID and GID are the source's numbers; Owner and Group its names,
// empty where it has none. Size and Digest are of a File's uncompressed bytes.
// Ctime is the source's own and tells its publisher, after a restart, that
// nothing changed; nodes do not use it. From, if not nil, is a path that had
// the same bytes when this entry was made. Epoch is the reign of the publisher
// that wrote it.
//
// A Tombstone has a Path and an Epoch only.
type Entry struct {
	Path         Path
	Kind         Kind
	Body         Body
	Mode         uint16
	UID, GID     uint32
	Major, Minor uint32 // of a device
	Owner, Group string
	Mtime, Ctime Time
	Size         int64
	Digest       Digest
	Target       string // of a Symlink, any bytes but NUL
	From         *Path
	Epoch        uint64
}

// Same reports whether e and o want the same state of the same path: all but
// Ctime, From, Epoch and the form of the body are equal.
func (e *Entry) Same(o *Entry) bool {
	return e.Path == o.Path && e.Kind == o.Kind && e.Mode == o.Mode &&
		e.UID == o.UID && e.GID == o.GID && e.Owner == o.Owner && e.Group == o.Group &&
		e.Major == o.Major && e.Minor == o.Minor &&
		e.Mtime == o.Mtime && e.Size == o.Size && e.Digest == o.Digest && e.Target == o.Target
}
