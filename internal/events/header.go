package events

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Header is the message header that holds an entry as one line of JSON.
const Header = "Treecast-Entry"

// wire is an entry as JSON. Bytes that are not UTF-8 travel in base64, in a
// field of their own.
type wire struct {
	V        int     `json:"v"`
	Path     string  `json:"path,omitempty"`
	Path64   []byte  `json:"path64,omitempty"`
	Kind     string  `json:"kind"`
	Mode     string  `json:"mode,omitempty"`
	UID      *uint32 `json:"uid,omitempty"`
	GID      *uint32 `json:"gid,omitempty"`
	Owner    string  `json:"owner,omitempty"`
	Group    string  `json:"group,omitempty"`
	Mtime    string  `json:"mtime,omitempty"`
	Ctime    string  `json:"ctime,omitempty"`
	Size     int64   `json:"size,omitempty"`
	Digest   string  `json:"digest,omitempty"`
	Body     string  `json:"body,omitempty"`
	Average  uint32  `json:"average,omitempty"`
	List     string  `json:"list,omitempty"`
	Target   string  `json:"target,omitempty"`
	Target64 []byte  `json:"target64,omitempty"`
	Device   string  `json:"device,omitempty"`
	From     string  `json:"from,omitempty"`
	From64   []byte  `json:"from64,omitempty"`
	Whole    bool    `json:"whole,omitempty"`
	Epoch    uint64  `json:"epoch"`
}

// maxFromBytes keeps the longest of entries within [MaxHeaderBytes]: From is
// only a hint.
const maxFromBytes = 1024

// MarshalHeader returns the entry as its header has it: one line of JSON of at
// most [MaxHeaderBytes]. A From of over 1,024 bytes and an owner's name that is
// too long or not UTF-8 are left out.
//
// It refuses, with [ErrEntry], every entry that [ParseEntry] would refuse.
func (e *Entry) MarshalHeader() (string, error) {
	if err := e.check(); err != nil {
		return "", err
	}
	w := wire{V: Version, Kind: e.Kind.String(), Whole: e.Whole, Epoch: e.Epoch}
	w.Path, w.Path64 = SplitText(e.Path.String())
	if e.Kind != Tombstone {
		w.Mode = octal(e.Mode)
		w.UID, w.GID = &e.UID, &e.GID
		w.Owner, w.Group = name(e.Owner), name(e.Group)
		w.Mtime, w.Ctime = e.Mtime.String(), e.Ctime.String()
	}
	switch e.Kind {
	case File:
		w.Size, w.Digest = e.Size, e.Digest.String()
		w.Body = [...]string{NoBody: "", InlineBody: "inline", ChunksBody: "chunks"}[e.Body]
		w.Average = e.Average
		if e.List != nil {
			w.List = e.List.String()
		}
	case Symlink:
		w.Target, w.Target64 = SplitText(e.Target)
	case CharDevice, BlockDevice:
		w.Device = fmt.Sprintf("%d:%d", e.Major, e.Minor)
	}
	if e.From != nil && len(e.From.s) <= maxFromBytes {
		w.From, w.From64 = SplitText(e.From.String())
	}
	line, err := w.marshal()
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrEntry, err)
	}
	if len(line) > MaxHeaderBytes {
		return "", fmt.Errorf("%w: header of %d bytes, the limit is %d", ErrEntry, len(line), MaxHeaderBytes)
	}
	return line, nil
}

// marshal returns w as one line of JSON.
func (w *wire) marshal() (string, error) {
	if line, ok := w.appendFlat(make([]byte, 0, flatRoom)); ok {
		return string(line), nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(w); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// octal is mode as four digits.
func octal(mode uint16) string {
	const digits = "01234567"
	return string([]byte{digits[mode>>9&7], digits[mode>>6&7], digits[mode>>3&7], digits[mode&7]})
}

// SplitText returns s in the first result if it is UTF-8, else in the second: JSON
// carries it as text, or in base64 in a field of its own.
func SplitText(s string) (string, []byte) {
	if utf8.ValidString(s) {
		return s, nil
	}
	return "", []byte(s)
}

// name returns an account's name if the wire can carry it; the number does
// otherwise.
func name(s string) string {
	if len(s) > MaxNameBytes || !utf8.ValidString(s) {
		return ""
	}
	return s
}

// Decode checks a message of site and returns its entry: the header must be a
// well-formed entry whose path has that subject. The payload is not looked at;
// [Codec.Body] opens it. Errors are [ErrEntry], [ErrPath] or [ErrVersion], all
// permanent.
func Decode(site Site, subject, header string) (Entry, error) {
	e, err := ParseEntry(header)
	if err != nil {
		return e, err
	}
	if want := site.Subject(e.Path); subject != want {
		return e, fmt.Errorf("%w: path %q on subject %q", ErrEntry, clip(e.Path.String()), clip(subject))
	}
	return e, nil
}

// ParseEntry is the inverse of [Entry.MarshalHeader]. On an error the entry
// has what could be read of it, for the report.
func ParseEntry(header string) (Entry, error) {
	var e Entry
	if len(header) > MaxHeaderBytes {
		return e, fmt.Errorf("%w: header of %d bytes, the limit is %d", ErrEntry, len(header), MaxHeaderBytes)
	}
	if !utf8.ValidString(header) { // package json would replace the bytes
		return e, fmt.Errorf("%w: header is not UTF-8", ErrEntry)
	}
	var w wire
	var err error
	if !w.parseFlat(header) {
		w = wire{}
		err = json.Unmarshal([]byte(header), &w)
	}
	switch {
	case w.V != Version && (err == nil || w.V != 0): // a newer one may have other types, too
		return e, fmt.Errorf("%w: version %d, this program knows %d", ErrVersion, w.V, Version)
	case err != nil:
		return e, fmt.Errorf("%w: %s", ErrEntry, clip(err.Error()))
	}
	text, err := JoinText(w.Path, w.Path64)
	if err != nil {
		return e, err
	}
	if e.Path, err = ParsePath(text); err != nil {
		return e, err
	}
	for k := File; k <= BlockDevice; k++ {
		if w.Kind == k.String() {
			e.Kind = k
		}
	}
	if e.Kind == 0 {
		return e, fmt.Errorf("%w: kind %q", ErrVersion, clip(w.Kind))
	}
	e.Whole, e.Epoch = w.Whole, w.Epoch
	if w.From != "" || len(w.From64) > 0 {
		if text, err = JoinText(w.From, w.From64); err != nil {
			return e, err
		}
		from, err := ParsePath(text)
		if err != nil {
			return e, err
		}
		e.From = &from
	}
	if e.Kind != Tombstone {
		if err = e.parseMetadata(&w); err != nil {
			return e, err
		}
	}
	return e, e.check()
}

// JoinText is the inverse of [SplitText], and accepts nothing else.
func JoinText(s string, raw []byte) (string, error) {
	switch {
	case s != "" && len(raw) > 0:
		return "", fmt.Errorf("%w: text and base64 of one field", ErrEntry)
	case len(raw) > 0 && utf8.Valid(raw):
		return "", fmt.Errorf("%w: base64 of a text", ErrEntry)
	case len(raw) > 0:
		return string(raw), nil
	}
	return s, nil
}

func (e *Entry) parseMetadata(w *wire) error {
	mode, err := strconv.ParseUint(w.Mode, 8, 16)
	if err != nil || len(w.Mode) != 4 {
		return fmt.Errorf("%w: mode %q", ErrEntry, clip(w.Mode))
	}
	e.Mode = uint16(mode)
	if w.UID == nil || w.GID == nil {
		return fmt.Errorf("%w: no owner", ErrEntry)
	}
	e.UID, e.GID = *w.UID, *w.GID
	if len(w.Owner) > MaxNameBytes || len(w.Group) > MaxNameBytes {
		return fmt.Errorf("%w: owner's name too long", ErrEntry)
	}
	e.Owner, e.Group = w.Owner, w.Group
	if e.Mtime, err = ParseTime(w.Mtime); err != nil {
		return err
	}
	if e.Ctime, err = ParseTime(w.Ctime); err != nil {
		return err
	}
	switch e.Kind {
	case File:
		return e.parseBody(w)
	case Symlink:
		e.Target, err = JoinText(w.Target, w.Target64)
		return err
	case CharDevice, BlockDevice:
		major, minor, _ := strings.Cut(w.Device, ":")
		a, errA := strconv.ParseUint(major, 10, 32)
		b, errB := strconv.ParseUint(minor, 10, 32)
		if errA != nil || errB != nil {
			return fmt.Errorf("%w: device %q", ErrEntry, clip(w.Device))
		}
		e.Major, e.Minor = uint32(a), uint32(b)
	}
	return nil
}

func (e *Entry) parseBody(w *wire) error {
	var err error
	if e.Digest, err = ParseDigest(w.Digest); err != nil {
		return err
	}
	e.Size, e.Average = w.Size, w.Average
	if w.List != "" {
		list, err := ParseDigest(w.List)
		if err != nil {
			return err
		}
		e.List = &list
	}
	switch w.Body {
	case "":
		e.Body = NoBody
	case "inline":
		e.Body = InlineBody
	case "chunks":
		e.Body = ChunksBody
	default:
		return fmt.Errorf("%w: body %q", ErrVersion, clip(w.Body))
	}
	return nil
}
