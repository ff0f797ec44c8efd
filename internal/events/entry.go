package events

import (
	"errors"
	"fmt"
	"strings"
	"unique"
)

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
// Average, of a file in chunks, is what [NewChunker] cut it with. List, if not
// nil, is the digest of its chunk list's text: the list was too long for the
// message and is an object of its own.
//
// Whole, of the root's entry alone, says that the stream has an entry of every
// path that its publisher found and did not exclude: only then is what a node
// has besides foreign.
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
	Average      uint32
	List         *Digest
	Target       string // of a Symlink, any bytes but NUL
	From         *Path
	Whole        bool
	Epoch        uint64
}

// Intern has the names of e's owner share their memory with those of all entries
// that do so: there are few names and many entries to keep.
func (e *Entry) Intern() {
	e.Owner, e.Group = unique.Make(e.Owner).Value(), unique.Make(e.Group).Value()
}

// noID is what chown(2) reads as "leave as it is".
const noID = 1<<32 - 1

// check says with [ErrEntry] what no entry may have. Both ends ask it, so that
// a publisher hears of what every node would refuse.
func (e *Entry) check() error {
	switch {
	case e.Kind < File || e.Kind > BlockDevice:
		return fmt.Errorf("%w: no kind", ErrEntry)
	case e.Path.IsRoot() && e.Kind != Dir:
		return fmt.Errorf("%w: the root as a %s", ErrEntry, e.Kind)
	case e.Whole && !e.Path.IsRoot():
		return fmt.Errorf("%w: whole, and not the root", ErrEntry)
	case e.Kind == Tombstone:
		return nil
	case e.Mode > 0o7777:
		return fmt.Errorf("%w: mode %o", ErrEntry, e.Mode)
	case e.UID == noID || e.GID == noID:
		return fmt.Errorf("%w: no owner", ErrEntry)
	case !e.Mtime.valid():
		return fmt.Errorf("%w: mtime out of range", ErrEntry)
	case !e.Ctime.valid():
		return fmt.Errorf("%w: ctime out of range", ErrEntry)
	}
	switch e.Kind {
	case File:
		return e.checkBody()
	case Symlink:
		if e.Target == "" || len(e.Target) > MaxTargetBytes || strings.IndexByte(e.Target, 0) >= 0 {
			return fmt.Errorf("%w: target %q", ErrEntry, clip(e.Target))
		}
	}
	return nil
}

func (e *Entry) checkBody() error {
	good := false
	switch e.Body {
	case NoBody:
		if e.Size == 0 && e.Digest != Sum(nil) {
			return fmt.Errorf("%w: an empty file's digest", ErrEntry)
		}
		good = e.Size == 0
	case InlineBody:
		good = 0 < e.Size && e.Size <= MaxDecodedBytes
	case ChunksBody:
		good = 0 < e.Size && e.Size <= MaxBodyBytes && validAverage(e.Average)
	}
	if e.Body != ChunksBody && (e.Average != 0 || e.List != nil) {
		good = false
	}
	if !good {
		return fmt.Errorf("%w: %d bytes in body form %d", ErrEntry, e.Size, e.Body)
	}
	return nil
}

// PayloadLimit is the most bytes that the payload of e's message may have; of an
// entry that says nothing, of any.
func (e *Entry) PayloadLimit() int64 {
	const frame = 64 // what zstd adds to what does not shrink
	switch {
	case e.Kind == 0, e.Body == ChunksBody:
		return MaxInlineBytes + frame
	case e.Body == InlineBody:
		return min(e.Size, MaxInlineBytes) + frame
	}
	return 0
}

// Same reports whether e and o want the same state of the same path: all but
// Ctime, From, Epoch and the way of the body are equal.
func (e *Entry) Same(o *Entry) bool {
	return e.Path == o.Path && e.Kind == o.Kind && e.Mode == o.Mode &&
		e.UID == o.UID && e.GID == o.GID && e.Owner == o.Owner && e.Group == o.Group &&
		e.Major == o.Major && e.Minor == o.Minor &&
		e.Mtime == o.Mtime && e.Size == o.Size && e.Digest == o.Digest && e.Target == o.Target && e.Whole == o.Whole
}

// Ordered reports whether two entries must be applied in their order: those of
// one path, and those of a path and an ancestor of it, unless the ancestor is
// wanted as a directory, which all orders lead to.
func Ordered(a, b *Entry) bool {
	switch {
	case a.Path == b.Path:
		return true
	case a.Path.Within(b.Path):
		return b.Kind != Dir
	case b.Path.Within(a.Path):
		return a.Kind != Dir
	}
	return false
}
