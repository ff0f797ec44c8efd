package events

// Itemize says in rsync's way how was becomes wanted: eleven characters as of
// `rsync -i`, or "*deleting  " where wanted is nil or a tombstone. was nil is a
// new path.
func Itemize(was, wanted *Entry) string {
	if wanted == nil || wanted.Kind == Tombstone {
		return "*deleting  "
	}
	b := []byte("...........")
	b[1] = [...]byte{File: 'f', Dir: 'd', Symlink: 'L', FIFO: 'S', Socket: 'S', CharDevice: 'D', BlockDevice: 'D'}[wanted.Kind]
	content := was == nil || was.Kind != wanted.Kind || was.Digest != wanted.Digest || was.Size != wanted.Size ||
		was.Target != wanted.Target || was.Major != wanted.Major || was.Minor != wanted.Minor
	switch {
	case content && wanted.Kind == File:
		b[0] = '>'
	case content:
		b[0] = 'c'
	}
	if was == nil || was.Kind != wanted.Kind {
		copy(b[2:], "+++++++++")
		return string(b)
	}
	mark := func(at int, letter byte, differs bool) {
		if differs {
			b[at] = letter
		}
	}
	mark(2, 'c', was.Digest != wanted.Digest || was.Target != wanted.Target ||
		was.Major != wanted.Major || was.Minor != wanted.Minor)
	mark(3, 's', was.Size != wanted.Size)
	mark(4, 't', was.Mtime != wanted.Mtime)
	mark(5, 'p', was.Mode != wanted.Mode)
	mark(6, 'o', was.UID != wanted.UID || was.Owner != wanted.Owner)
	mark(7, 'g', was.GID != wanted.GID || was.Group != wanted.Group)
	return string(b)
}
