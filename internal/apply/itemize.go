package apply

import (
	"strings"

	"treecast/internal/events"
)

// creation is how rsync -i shows a path that is made anew.
func creation(k events.Kind) string { return events.Itemize(nil, &events.Entry{Kind: k}) }

// change says how a path where st stood, the zero stat if nothing did, becomes
// what e wants. No bytes are read for that: a file whose bytes alone differ has
// nothing but dots after its kind.
func (t *Tree) change(st stat, e *events.Entry) string {
	if st.ino == 0 {
		return creation(e.Kind)
	}
	if item, err := t.itemize(st, e, false); err == nil && item != "" {
		return item
	}
	item := creation(e.Kind)[:2] + "........."
	if e.Kind != events.File {
		item = "." + item[1:]
	}
	return item
}

// itemize says how st differs from e, "" if it does not: YXcstpoguax, see the
// option --itemize-changes in rsync(1). The bytes of a file that otherwise
// looks right are read only if checksum is set.
func (t *Tree) itemize(st stat, e *events.Entry, checksum bool) (string, error) {
	if st.kind != e.Kind {
		device := e.Kind == events.CharDevice || e.Kind == events.BlockDevice
		if device && !t.rights.mknod {
			return "", nil
		}
		return creation(e.Kind), nil
	}
	item := []byte("." + creation(e.Kind)[1:2] + ".........")
	mark := func(i int, c byte, differs bool) {
		if differs {
			item[i] = c
		}
	}
	const content, size, mtime, perms, owner, group = 2, 3, 4, 5, 6, 7
	uid, gid := t.accounts.owner(e)
	mark(mtime, 't', st.mtime != t.clock.hold(e.Mtime) && (t.rights.owns(st) || e.Kind != events.Dir))
	mark(perms, 'p', !t.rights.modeRight(st, e.Mode))
	if !t.rights.ownerRight(st, uid, gid) {
		mark(owner, 'o', st.uid != uid)
		mark(group, 'g', st.gid != gid)
	}
	switch e.Kind {
	case events.File:
		mark(size, 's', st.size != e.Size)
		mark(content, 'c', checksum && st.size != e.Size)
		if checksum && st.size == e.Size {
			digest, _, err := t.digest(e.Path, e.Size)
			if err != nil {
				return "", err
			}
			mark(content, 'c', digest != e.Digest)
		}
		// What would be sent: with -c, what has other bytes.
		if item[content] != '.' || !checksum && (item[size] != '.' || item[mtime] != '.') {
			item[0] = '>'
		}
	case events.Symlink:
		target, err := t.root.readlink(e.Path.String())
		if err != nil {
			return "", err
		}
		mark(content, 'c', target != e.Target)
	case events.CharDevice, events.BlockDevice:
		mark(content, 'c', st.major != e.Major || st.minor != e.Minor)
	}
	if item[0] == '.' && item[content] == 'c' {
		item[0] = 'c'
	}
	if strings.Trim(string(item[2:]), ".") == "" {
		return "", nil
	}
	return string(item), nil
}
