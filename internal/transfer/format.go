package transfer

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// ErrFormat reports a format that cannot be used.
var ErrFormat = errors.New("not a format of a transfer log")

// escapes are the letters of a format, those of rsyncd.conf where it has them.
const escapes = "tpmhoiflbd"

// A Format says what is in a line. The zero Format gives empty lines.
type Format struct{ pieces []piece }

// A piece is some text, and the escape after it; 0: none.
type piece struct {
	text   string
	letter byte
}

// ParseFormat reads a format: text with escapes,
//
//	%t  the time, RFC 3339 with milliseconds
//	%p  the process's id
//	%m  the site
//	%h  the node; of a publisher its host
//	%o  the operation: created, updated, deleted
//	%i  the change as rsync -i itemizes it
//	%f  the path, relative to the root, escaped
//	%l  the size of the file in bytes
//	%b  the bytes that travelled for it, compressed
//	%d  how long it took, in seconds
//	%%  a percent sign
//
// Errors are [ErrFormat].
func ParseFormat(s string) (Format, error) {
	if s == "" {
		return Format{}, fmt.Errorf("%w: it is empty", ErrFormat)
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return r != '\t' && unicode.IsControl(r) }); i >= 0 {
		return Format{}, fmt.Errorf("%w: %q has a control character; it is one line", ErrFormat, s)
	}
	var f Format
	text := ""
	for {
		before, after, found := strings.Cut(s, "%")
		text += before
		switch {
		case !found && text != "":
			f.pieces = append(f.pieces, piece{text: text})
			fallthrough
		case !found:
			return f, nil
		case after == "":
			return Format{}, fmt.Errorf("%w: it ends with %%; a percent sign is %%%%", ErrFormat)
		case after[0] == '%':
			text += "%"
		case strings.IndexByte(escapes, after[0]) < 0:
			r := []rune(after)[0]
			return Format{}, fmt.Errorf("%w: no such escape: %%%c; there are %%%s and %%%%",
				ErrFormat, r, strings.Join(strings.Split(escapes, ""), " %"))
		default:
			f.pieces = append(f.pieces, piece{text, after[0]})
			text = ""
		}
		s = after[1:]
	}
}

// UnmarshalText makes a Format a flag.
func (f *Format) UnmarshalText(text []byte) (err error) {
	*f, err = ParseFormat(string(text))
	return err
}

// A Change is one path that was transferred.
type Change struct {
	Operation string // created, updated or deleted
	Itemized  string // as of rsync -i
	Path      string // any bytes
	Size      int64  // of a file
	Bytes     int64  // that travelled for it, compressed
	Took      time.Duration
}

// line appends the line of c, which is done at the time at.
func (l *Log) line(b []byte, c *Change, at time.Time) []byte {
	for _, p := range l.Format.pieces {
		b = append(b, p.text...)
		switch p.letter {
		case 't':
			b = at.AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
		case 'p':
			b = strconv.AppendInt(b, int64(l.pid), 10)
		case 'm':
			b = escape(b, l.Site)
		case 'h':
			b = escape(b, l.Host)
		case 'o':
			b = append(b, c.Operation...)
		case 'i':
			b = append(b, c.Itemized...)
		case 'f':
			b = escape(b, c.Path)
		case 'l':
			b = strconv.AppendInt(b, c.Size, 10)
		case 'b':
			b = strconv.AppendInt(b, c.Bytes, 10)
		case 'd':
			b = strconv.AppendFloat(b, c.Took.Seconds(), 'f', 3, 64)
		}
	}
	return append(b, '\n')
}
