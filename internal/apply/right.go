package apply

import (
	"crypto/sha256"
	"io"

	"treecast/internal/events"
)

// shows reports whether what stands at a path looks as e wants it: all that
// lstat tells. It says nothing of a file's bytes or a link's target.
func (t *Tree) shows(st stat, e *events.Entry) bool {
	if st.kind != e.Kind || st.mtime != t.clock.hold(e.Mtime) || !t.rights.modeRight(st, e.Mode) {
		return false
	}
	uid, gid := t.accounts.owner(e)
	if !t.rights.ownerRight(st, uid, gid) {
		return false
	}
	switch e.Kind {
	case events.File:
		return st.size == e.Size
	case events.CharDevice, events.BlockDevice:
		return st.major == e.Major && st.minor == e.Minor
	}
	return true
}

// holds reports whether the path p has the content that e wants, and was st all
// the while: cp -p and touch -r make files that only their bytes tell apart.
// What cannot be read is not right, but for that no error is made of it.
func (t *Tree) holds(p events.Path, st stat, e *events.Entry) bool {
	switch e.Kind {
	case events.Symlink:
		target, err := t.root.readlink(p.String())
		return err == nil && target == e.Target
	case events.File:
		if f, ok := t.known.get(st); ok {
			return f.digest == e.Digest
		}
		digest, now, err := t.digest(p, e.Size)
		right := err == nil && digest == e.Digest && now.same(st)
		if right && e.Body == events.ChunksBody {
			t.known.put(knownFile{st: st, path: p, digest: digest})
		}
		return right
	}
	return true
}

// digest reads the file at p, which should have size bytes, and returns what
// they hash to and what the kernel said of it afterwards. Anything but size
// bytes gives another digest.
func (t *Tree) digest(p events.Path, size int64) (events.Digest, stat, error) {
	var d events.Digest
	f, err := t.root.openFile(p.String())
	if err != nil {
		return d, stat{}, err
	}
	defer f.close()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, size+1)); err != nil {
		return d, stat{}, err
	}
	st, err := f.stat()
	h.Sum(d[:0])
	return d, st, err
}
