package source

import (
	"errors"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

// Read returns the content of the regular file at p, and its entry with digest,
// size and body. The bytes are buf's if its capacity is more than the size,
// else new ones.
//
// It is the read protocol: lstat (so that opening disturbs no FIFO or device),
// open, fstat, ask whether a writer has the file, read exactly its size and
// then its end, lstat. Only if (device, inode, size, mtime, ctime) are
// the same each time did the bytes stand in the file together. A writer that
// came after it was asked about is found by that, too, but for what
// [Tree.Racy] tells.
//
// Where it cannot be told whether a writer has the file ([Tree.Settled] says
// known = false) it is read nevertheless: wait for some quiet before.
//
// Errors: [ErrAbsent]; [ErrBusy] and [ErrUnstable], worth another try;
// *[SkipError], with TooLarge above [events.MaxInlineBytes], for which there is
// [Tree.Chunk]; [ErrRootLost]; anything else is unknown. After an error buf's
// content is undefined.
func (t *Tree) Read(p events.Path, buf []byte) (Meta, []byte, error) {
	fd, opened, err := t.begin(p)
	if err != nil {
		return Meta{}, nil, err
	}
	defer unix.Close(fd)
	if opened.Entry.Size > events.MaxInlineBytes {
		return Meta{}, nil, &SkipError{p.String(), TooLarge}
	}
	if settled, known := t.probe(fd); known && !settled {
		return Meta{}, nil, ErrBusy
	}
	body, err := t.content(p, fd, int(opened.Entry.Size), buf)
	if err != nil {
		return Meta{}, nil, err
	}
	after, err := t.end(p, opened)
	if err != nil {
		return Meta{}, nil, err
	}
	after.Entry.Digest = events.Sum(body)
	if len(body) > 0 {
		after.Entry.Body = events.InlineBody
	}
	return after, body, nil
}

// begin opens the regular file at p and says what it is. The caller closes fd.
func (t *Tree) begin(p events.Path) (fd int, opened Meta, err error) {
	before, err := t.look(p)
	if err != nil {
		return -1, Meta{}, err
	}
	fd, err = t.openFile(p, before)
	if err != nil {
		return -1, Meta{}, err
	}
	opened, err = t.fstat(p, fd)
	if err == nil && !before.Same(opened) {
		err = ErrUnstable
	}
	if err != nil {
		_ = unix.Close(fd) // nothing was read from it
		return -1, Meta{}, err
	}
	return fd, opened, nil
}

// end says what stands at p, and with [ErrUnstable] that it is no longer what
// was opened there, which must still be open: no other inode can have its
// number then, and what is the same at the path is the same at the descriptor.
func (t *Tree) end(p events.Path, opened Meta) (Meta, error) {
	after, err := t.Lstat(p)
	if err != nil {
		return Meta{}, err
	}
	if !opened.Same(after) {
		return Meta{}, ErrUnstable
	}
	return after, nil
}

// openFile opens the regular file at p that lstat saw there.
func (t *Tree) openFile(p events.Path, seen Meta) (int, error) {
	if seen.Entry.Kind != events.File {
		return -1, ErrUnstable
	}
	fd, err := t.openat2(p, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	switch {
	case err == nil:
		return fd, nil
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENXIO):
		return -1, ErrUnstable // it was a file a moment ago
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ETXTBSY):
		return -1, ErrBusy // another process holds a lease for writing
	}
	return -1, t.classify("open", p, err)
}

// content reads exactly size bytes and then the end of the file.
func (t *Tree) content(p events.Path, fd, size int, buf []byte) ([]byte, error) {
	if cap(buf) <= size {
		buf = make([]byte, size+1)
	}
	buf = buf[:size+1] // the byte too many shows that the file grew
	for got := 0; ; {
		n, err := retry(func() (int, error) { return unix.Read(fd, buf[got:]) })
		if err != nil {
			return nil, &PathError{"read", p, err}
		}
		if got += n; n == 0 && got == size {
			return buf[:size], nil
		}
		if n == 0 || got > size {
			return nil, ErrUnstable
		}
	}
}
