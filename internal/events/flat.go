package events

import (
	"math"
	"strconv"
	"strings"
)

// flatRoom is room for nearly every entry's JSON.
const flatRoom = 512

// appendFlat appends w to b as package json writes it, in less time. It reports
// false for a text that would have to be escaped, or base64: those are for package
// json. All texts are UTF-8.
func (w *wire) appendFlat(b []byte) ([]byte, bool) {
	if len(w.Path64)+len(w.Target64)+len(w.From64) > 0 {
		return nil, false
	}
	f := flat{append(b, `{"v":`...), true}
	f.b = strconv.AppendInt(f.b, int64(w.V), 10)
	f.text("path", w.Path)
	f.key("kind")
	f.quote(w.Kind)
	f.text("mode", w.Mode)
	if w.UID != nil {
		f.number("uid", uint64(*w.UID))
	}
	if w.GID != nil {
		f.number("gid", uint64(*w.GID))
	}
	f.text("owner", w.Owner)
	f.text("group", w.Group)
	f.text("mtime", w.Mtime)
	f.text("ctime", w.Ctime)
	if w.Size != 0 {
		f.key("size")
		f.b = strconv.AppendInt(f.b, w.Size, 10)
	}
	f.text("digest", w.Digest)
	f.text("body", w.Body)
	if w.Average != 0 {
		f.number("average", uint64(w.Average))
	}
	f.text("list", w.List)
	f.text("target", w.Target)
	f.text("device", w.Device)
	f.text("from", w.From)
	if w.Whole {
		f.key("whole")
		f.b = append(f.b, "true"...)
	}
	f.number("epoch", w.Epoch)
	return append(f.b, '}'), f.plain
}

// A flat is JSON that grows.
type flat struct {
	b     []byte
	plain bool // nothing had to be escaped
}

func (f *flat) key(key string) {
	f.b = append(f.b, `,"`...)
	f.b = append(f.b, key...)
	f.b = append(f.b, `":`...)
}

func (f *flat) number(key string, n uint64) {
	f.key(key)
	f.b = strconv.AppendUint(f.b, n, 10)
}

// text adds a field that is left out if it is empty.
func (f *flat) text(key, value string) {
	if value != "" {
		f.key(key)
		f.quote(value)
	}
}

func (f *flat) quote(s string) {
	for i := range len(s) {
		// 0xE2 begins the two line separators that package json escapes, too.
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c == 0xE2 {
			f.plain = false
		}
	}
	f.b = append(f.b, '"')
	f.b = append(f.b, s...)
	f.b = append(f.b, '"')
}

// parseFlat fills w from header if that is JSON of the plainest form, which is
// what [Entry.MarshalHeader] writes for nearly every entry: one object without
// white space, of fields of ours, with strings without escapes, whole numbers and
// true. It reports false for all else, which is for package json, five times
// slower, to read or to refuse. header is UTF-8.
func (w *wire) parseFlat(header string) bool {
	s, ok := strings.CutPrefix(header, "{")
	for more := ok; more; {
		var key string
		if key, s, ok = cutString(s); !ok || !strings.HasPrefix(s, ":") {
			return false
		}
		s = s[1:]
		switch key {
		case "v":
			var n uint64
			n, s, ok = cutNumber(s, math.MaxInt32)
			w.V = int(n) //nolint:gosec // it fits
		case "size":
			var n uint64
			n, s, ok = cutNumber(s, math.MaxInt64)
			w.Size = int64(n) //nolint:gosec // it fits
		case "epoch":
			w.Epoch, s, ok = cutNumber(s, math.MaxUint64)
		case "uid":
			s, ok = cut32(&w.UID, s)
		case "gid":
			s, ok = cut32(&w.GID, s)
		case "average":
			var n uint64
			n, s, ok = cutNumber(s, math.MaxUint32)
			w.Average = uint32(n) //nolint:gosec // it fits
		case "whole":
			s, w.Whole = strings.CutPrefix(s, "true")
			ok = w.Whole
		default:
			field := w.text(key)
			if field == nil {
				return false
			}
			*field, s, ok = cutString(s)
		}
		if !ok {
			return false
		}
		s, more = strings.CutPrefix(s, ",")
	}
	if !ok || s != "}" {
		return false
	}
	// What an entry keeps does not keep all of the header in memory.
	for _, kept := range []*string{&w.Path, &w.From, &w.Target, &w.Owner, &w.Group} {
		*kept = strings.Clone(*kept)
	}
	return true
}

// text returns the field of a key whose value is text, nil if there is none.
func (w *wire) text(key string) *string {
	switch key {
	case "path":
		return &w.Path
	case "kind":
		return &w.Kind
	case "mode":
		return &w.Mode
	case "owner":
		return &w.Owner
	case "group":
		return &w.Group
	case "mtime":
		return &w.Mtime
	case "ctime":
		return &w.Ctime
	case "digest":
		return &w.Digest
	case "body":
		return &w.Body
	case "list":
		return &w.List
	case "target":
		return &w.Target
	case "device":
		return &w.Device
	case "from":
		return &w.From
	}
	return nil
}

// cutString cuts a string without escapes off the front of s.
func cutString(s string) (text, rest string, ok bool) {
	if s == "" || s[0] != '"' {
		return "", "", false
	}
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return s[1:i], s[i+1:], true
		case c == '\\' || c < ' ':
			return "", "", false
		}
	}
	return "", "", false
}

// cutNumber cuts a whole number up to most off the front of s.
func cutNumber(s string, most uint64) (n uint64, rest string, ok bool) {
	i := 0
	for ; i < len(s) && '0' <= s[i] && s[i] <= '9'; i++ {
		d := uint64(s[i] - '0')
		if i > 0 && n == 0 || n > (most-d)/10 {
			return 0, "", false
		}
		n = n*10 + d
	}
	return n, s[i:], i > 0
}

func cut32(field **uint32, s string) (rest string, ok bool) {
	n, rest, ok := cutNumber(s, math.MaxUint32)
	v := uint32(n) //nolint:gosec // it fits
	*field = &v
	return rest, ok
}
