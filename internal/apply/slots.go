package apply

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"syscall"
)

// A place is where one of a record's two versions is kept.
type place struct {
	name string // of a file in staging
	off  int64
}

// slots is a small record that survives power loss at any instant: its
// versions are written in turn to two places, each with a counter and a
// checksum, so that a torn write costs the version being written and never
// the one before. The text is for people too: a header line, then the record.
//
// One goroutine at a time.
type slots struct {
	dir     directory
	places  [2]place
	files   [2]file // nil: to be opened
	max     int     // bytes of a place; 0: no limit
	counter uint64  // of the newest version that is durable
}

const slotMagic = "treecast-record"

var errRecordSize = errors.New("record too large for its place")

// load returns the newest version that is whole. No error means that it could
// be told; a record that is absent or torn in both places is nil.
func (s *slots) load() ([]byte, error) {
	var newest []byte
	for i := range s.places {
		f, err := s.file(i)
		if err != nil {
			return nil, err
		}
		raw, err := s.read(f, s.places[i].off)
		if err != nil {
			return nil, err
		}
		if counter, record, ok := openSlot(raw); ok && counter > s.counter {
			s.counter, newest = counter, record
		}
	}
	return newest, nil
}

func (s *slots) read(f file, off int64) ([]byte, error) {
	st, err := f.stat()
	if err != nil || st.size <= off {
		return nil, err
	}
	size := st.size - off
	if s.max > 0 {
		size = min(size, int64(s.max))
	}
	raw := make([]byte, size)
	n, err := f.ReadAt(raw, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return raw[:n], err
}

func (s *slots) file(i int) (file, error) {
	if s.files[i] == nil {
		f, err := s.dir.openRecord(s.places[i].name)
		if err != nil {
			return nil, err
		}
		s.files[i] = f
	}
	return s.files[i], nil
}

// reserve takes room for size bytes at each place, so that a record can be
// written when the disk is full.
func (s *slots) reserve(size int64) error {
	for i, p := range s.places {
		f, err := s.file(i)
		if err != nil {
			return err
		}
		st, err := f.stat()
		if err != nil {
			return err
		}
		if st.size < p.off+size {
			if err := f.allocate(0, p.off+size); err != nil {
				return err
			}
		}
	}
	return nil
}

// put writes the next version and returns what makes it durable: flush, or a
// syncFS, and then done. Without done the version before it stays the newest,
// and the next put writes to the same place again. A failed put or flush
// closes the file: after a failed fsync the kernel takes its pages for clean,
// so that a second one on the same descriptor would succeed with the bytes
// lost.
func (s *slots) put(record []byte) (flush func() error, done func(), err error) {
	next := s.counter + 1
	i := int(next % 2)
	raw := sealSlot(next, record)
	if s.max > 0 && len(raw) > s.max {
		return nil, nil, errRecordSize
	}
	f, err := s.file(i)
	if err == nil {
		_, err = f.WriteAt(raw, s.places[i].off)
	}
	if err != nil {
		s.abandon(i)
		return nil, nil, err
	}
	flush = func() error {
		err := f.datasync()
		if err != nil {
			s.abandon(i)
		}
		return err
	}
	return flush, func() { s.counter = next }, nil
}

// write is put, flush and done: the record is durable on return.
func (s *slots) write(record []byte) error {
	flush, done, err := s.put(record)
	if err == nil {
		err = flush()
	}
	if err == nil {
		done()
	}
	return err
}

func (s *slots) abandon(i int) {
	if s.files[i] != nil {
		s.files[i].close()
		s.files[i] = nil
	}
}

func (s *slots) close() {
	s.abandon(0)
	s.abandon(1)
}

// sealSlot returns a record with its header: magic, counter, length, checksum
// of those and the record.
func sealSlot(counter uint64, record []byte) []byte {
	b := fmt.Appendf(nil, "%s %d %d %s\n", slotMagic, counter, len(record), slotSum(counter, record))
	return append(append(b, record...), '\n')
}

func slotSum(counter uint64, record []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%d %d\n", counter, len(record)) // a hash never fails to write
	h.Write(record)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// openSlot is the inverse of sealSlot; what follows the record is ignored.
func openSlot(raw []byte) (counter uint64, record []byte, ok bool) {
	head, rest, found := bytes.Cut(raw, []byte("\n"))
	fields := bytes.Fields(head)
	if !found || len(fields) != 4 || string(fields[0]) != slotMagic {
		return 0, nil, false
	}
	counter, err := strconv.ParseUint(string(fields[1]), 10, 64)
	size, err2 := strconv.ParseUint(string(fields[2]), 10, 31)
	if err != nil || err2 != nil || counter == 0 || uint64(len(rest)) < size {
		return 0, nil, false
	}
	record = rest[:size]
	return counter, record, string(fields[3]) == slotSum(counter, record)
}

// absent reports whether err says that there is nothing at a path that could
// be looked up without leaving the tree: an ancestor is missing, or is no
// directory, or is a symlink.
func absent(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)
}
