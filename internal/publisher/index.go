package publisher

import (
	"fmt"
	"iter"
	"strings"

	"treecast/internal/events"
)

// An index is what is published: the live entries of the stream, as a tree, in
// at most 300 bytes a path at a million paths. Tombstones are not in it: a
// path without a record is absent. It is not safe for concurrent use.
type index struct {
	top    node
	len    int
	doubts int                           // uncertain records
	files  int                           // records that are not of directories
	bytes  int64                         // of files
	bodies map[events.Digest]events.Path // one path of each large body
	names  map[string]uint16             // owners' and groups' names, each once
	list   []string
}

// A node is one path. It may be there for its children alone: then its
// record's kind is zero.
type node struct {
	name     string
	parent   *node
	children map[string]*node
	record   record
}

// A record is what an entry says of a path, without the path. A device's
// numbers are in target.
type record struct {
	mtime, ctime events.Time
	size         int64
	digest       events.Digest
	target       string
	uid, gid     uint32
	owner, group uint16
	average      uint32 // of a body's chunks; 0: it is not in chunks
	mode         uint16
	kind         events.Kind
	whole        bool // of the root: the stream is sealed
	uncertain    bool // a publish of it ended without an answer
}

// averageFor is [events.AverageFor] for a new version of r, which is nil if there
// is none yet.
func (r *record) averageFor(size int64) uint32 {
	if r == nil {
		return events.AverageFor(size, 0)
	}
	return events.AverageFor(size, r.average)
}

func newIndex() *index {
	return &index{names: map[string]uint16{"": 0}, list: []string{""}, bodies: map[events.Digest]events.Path{}}
}

// Len counts the published paths.
func (x *index) Len() int { return x.len }

// Files counts those that are not directories.
func (x *index) Files() int { return x.files }

// Bytes is the size of all files.
func (x *index) Bytes() int64 { return x.bytes }

// Certain counts those whose last publish was answered.
func (x *index) Certain() int { return x.len - x.doubts }

func (x *index) find(p events.Path) *node {
	n := &x.top
	if p.IsRoot() {
		return n
	}
	for segment := range strings.SplitSeq(p.String(), "/") {
		if n = n.children[segment]; n == nil {
			return nil
		}
	}
	return n
}

// Get returns the record of p, nil if it is not published.
func (x *index) Get(p events.Path) *record {
	if n := x.find(p); n != nil && n.record.kind != 0 {
		return &n.record
	}
	return nil
}

// Has reports whether an entry of p is in the stream for sure.
func (x *index) Has(p events.Path) bool {
	r := x.Get(p)
	return r != nil && !r.uncertain
}

// Put records that e is published; a tombstone removes its path.
func (x *index) Put(e *events.Entry) {
	if e.Kind == events.Tombstone {
		x.remove(e.Path)
		return
	}
	n := &x.top
	if !e.Path.IsRoot() {
		for segment := range strings.SplitSeq(e.Path.String(), "/") {
			child := n.children[segment]
			if child == nil {
				child = &node{name: strings.Clone(segment), parent: n}
				if n.children == nil {
					n.children = make(map[string]*node)
				}
				n.children[child.name] = child
			}
			n = child
		}
	}
	if n.record.kind == 0 {
		x.len++
	}
	if n.record.uncertain {
		x.doubts--
	}
	x.count(&n.record, -1)
	n.record = x.record(e)
	x.count(&n.record, 1)
	if e.Average != 0 {
		x.bodies[e.Digest] = e.Path
	}
}

// WithBody returns a path that is published with a large body of that digest.
func (x *index) WithBody(d events.Digest) (events.Path, bool) {
	p, ok := x.bodies[d]
	if r := x.Get(p); ok && (r == nil || r.digest != d || r.average == 0) {
		delete(x.bodies, d)
		return events.Path{}, false
	}
	return p, ok
}

func (x *index) count(r *record, by int) {
	if r.kind != 0 && r.kind != events.Dir {
		x.files += by
		x.bytes += r.size * int64(by)
	}
}

func (x *index) record(e *events.Entry) record {
	return record{
		mtime: e.Mtime, ctime: e.Ctime, size: fileSize(e), digest: e.Digest, target: recordTarget(e),
		uid: e.UID, gid: e.GID, owner: x.intern(e.Owner), group: x.intern(e.Group),
		average: e.Average, mode: e.Mode, kind: e.Kind, whole: e.Whole,
	}
}

func fileSize(e *events.Entry) int64 {
	if e.Kind != events.File {
		return 0
	}
	return e.Size
}

func recordTarget(e *events.Entry) string {
	if e.Kind == events.CharDevice || e.Kind == events.BlockDevice {
		return fmt.Sprintf("%d:%d", e.Major, e.Minor)
	}
	return strings.Clone(e.Target)
}

// intern returns the number of a name; past 65,535 names they count as none,
// and the numbers of the accounts decide.
func (x *index) intern(name string) uint16 {
	if i, ok := x.names[name]; ok {
		return i
	}
	if len(x.list) > 1<<16-1 {
		return 0
	}
	name = strings.Clone(name)
	i := uint16(len(x.list)) // checked above
	x.names[name] = i
	x.list = append(x.list, name)
	return i
}

// Doubt marks p's record, if there is one, as equal to nothing. A path that is
// not published gets an empty record: an entry of it may be in the stream.
func (x *index) Doubt(e *events.Entry) {
	r := x.Get(e.Path)
	if r == nil {
		if e.Kind == events.Tombstone {
			return
		}
		x.Put(e)
		r = x.Get(e.Path)
	}
	if !r.uncertain {
		x.doubts++
		r.uncertain = true
	}
}

func (x *index) remove(p events.Path) {
	n := x.find(p)
	if n == nil || n.record.kind == 0 {
		return
	}
	if n.record.uncertain {
		x.doubts--
	}
	x.count(&n.record, -1)
	n.record = record{}
	x.len--
	for n.parent != nil && n.record.kind == 0 && len(n.children) == 0 {
		delete(n.parent.children, n.name)
		n = n.parent
	}
}

// Matches reports whether e, as lstat gave it, is what r was made from: then
// nothing changed, and the file need not be read.
func (x *index) Matches(r *record, e *events.Entry) bool {
	if r == nil || r.uncertain || r.kind != e.Kind || r.mode != e.Mode || r.uid != e.UID || r.gid != e.GID ||
		r.mtime != e.Mtime || x.list[r.owner] != e.Owner || x.list[r.group] != e.Group {
		return false
	}
	switch e.Kind {
	case events.File:
		return r.size == e.Size && r.ctime == e.Ctime
	case events.Symlink, events.CharDevice, events.BlockDevice:
		return r.target == recordTarget(e)
	}
	return true
}

// Same reports whether e, with its digest, is already published, whatever its
// ctime.
func (x *index) Same(r *record, e *events.Entry) bool {
	if r == nil {
		return false
	}
	if e.Kind != events.File {
		return x.Matches(r, e) && r.whole == e.Whole
	}
	at := *e
	at.Ctime = r.ctime
	return x.Matches(r, &at) && r.digest == e.Digest
}

// Children yields the names in p that are published or have something
// published under them.
func (x *index) Children(p events.Path) iter.Seq[string] {
	return func(yield func(string) bool) {
		n := x.find(p)
		if n == nil {
			return
		}
		for name := range n.children {
			if !yield(name) {
				return
			}
		}
	}
}

// Subtree yields every published path at or under p, in no order.
func (x *index) Subtree(p events.Path) iter.Seq2[events.Path, *record] {
	return func(yield func(events.Path, *record) bool) {
		if n := x.find(p); n != nil {
			n.walk(p, yield)
		}
	}
}

func (n *node) walk(p events.Path, yield func(events.Path, *record) bool) bool {
	if n.record.kind != 0 && !yield(p, &n.record) {
		return false
	}
	for name, child := range n.children {
		at, err := p.Join(name)
		if err != nil {
			continue // it came out of an entry's path: cannot be
		}
		if !child.walk(at, yield) {
			return false
		}
	}
	return true
}
