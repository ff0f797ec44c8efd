package source

import "golang.org/x/sys/unix"

// minHole is from how many bytes on a hole is not read. A chunk for each
// smaller one would cost more than its zeros, which are cheap to compress.
const minHole = 128 << 10

// extents tells where a file of size bytes has data and where it has holes.
type extents struct {
	size int64
	seek func(off int64, whence int) (int64, error) // lseek(2), SEEK_DATA or SEEK_HOLE
}

// next says up to where what begins at at goes on, which is less than size, and
// whether that is a hole. Data may have small holes, but does not begin with a
// large one, and a hole is followed by data or by the end. Where the file
// system cannot tell, all is data.
//
// Errors are [ErrUnstable] for an answer that only a change explains, and those
// of seek. Not every change has such an answer.
func (e extents) next(at int64) (end int64, hole bool, err error) {
	data, err := e.data(at)
	if err != nil {
		return 0, false, err
	}
	if data-at >= minHole {
		return data, true, nil
	}
	for end = data; end < e.size; end = data {
		if end, err = e.hole(data); err != nil {
			return 0, false, err
		}
		if data, err = e.data(end); err != nil {
			return 0, false, err
		}
		if data-end >= minHole {
			return end, false, nil
		}
	}
	return e.size, false, nil
}

// data is where the first data from at on begin, size if there are none.
func (e extents) data(at int64) (int64, error) {
	if at >= e.size {
		return e.size, nil
	}
	off, err := e.seek(at, unix.SEEK_DATA)
	switch {
	case err == unix.ENXIO:
		return e.size, nil
	case cannotTell(err):
		return at, nil
	case err != nil:
		return 0, err
	case off < at:
		return 0, ErrUnstable
	}
	return min(off, e.size), nil
}

// hole is where the data at at end.
func (e extents) hole(at int64) (int64, error) {
	off, err := e.seek(at, unix.SEEK_HOLE)
	switch {
	case cannotTell(err):
		return e.size, nil
	case err == unix.ENXIO, err == nil && off <= at:
		return 0, ErrUnstable // there were data a moment ago
	case err != nil:
		return 0, err
	}
	return min(off, e.size), nil
}

func cannotTell(err error) bool { return err == unix.EINVAL || err == unix.ENOTSUP }
