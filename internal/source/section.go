package source

import (
	"context"
	"io"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

// A section is the reader of a file's bytes from at to end. It ends with
// io.EOF there and nowhere else.
type section struct {
	ctx     context.Context //nolint:containedctx // an io.Reader gets none
	path    events.Path
	fd      int
	at, end int64
}

func (s *section) Read(b []byte) (int, error) {
	if s.at == s.end {
		return 0, io.EOF
	}
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := pread(s.path, s.fd, b[:min(int64(len(b)), s.end-s.at, readBytes)], s.at)
	if err == nil && n == 0 && len(b) > 0 {
		err = ErrUnstable // it shrank
	}
	s.at += int64(n)
	return n, err
}

// look reads the next bytes without going on.
func (s section) look(b []byte) error {
	_, err := io.ReadFull(&s, b)
	return err
}

func pread(p events.Path, fd int, b []byte, at int64) (int, error) {
	n, err := retry(func() (int, error) { return unix.Pread(fd, b, at) })
	if err != nil {
		return 0, &PathError{"read", p, err}
	}
	return n, nil
}
