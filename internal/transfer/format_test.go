package transfer

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// unescape is the inverse of escape, as a reader of the log would write it.
func unescape(s string) string {
	var b []byte
	for i := 0; i < len(s); i++ {
		if c, err := strconv.ParseUint(s[min(i+2, len(s)):min(i+5, len(s))], 8, 8); err == nil && strings.HasPrefix(s[i:], `\#`) && i+5 <= len(s) {
			b = append(b, byte(c))
			i += 4
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}

func TestEscape(t *testing.T) {
	for s, want := range map[string]string{
		"a b/c":          "a b/c",
		"a\nb\t\x00\x7f": `a\#012b\#011\#000\#177`,
		"ä€":             "ä€",
		"\xff\xc3":       `\#377\#303`,
		"\u202e\u0085":   `\#342\#200\#256\#302\#205`,
		"\ufffd":         "\ufffd",
		`\#012 \#9 \`:    `\#134#012 \#9 \`,
	} {
		if got := string(escape(nil, s)); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
}

// FuzzEscape: one printable line, from which the name can be had back.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "a\nb", `\#012`, "\\#\xff12", `\\#001`, "\x1b[2J"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := string(escape(nil, s))
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !strconv.IsPrint(r) }) {
			t.Errorf("%q: %q is not printable", s, got)
		}
		if back := unescape(got); back != s {
			t.Errorf("%q: %s is %q", s, got, back)
		}
	})
}

// TestFormat: what ParseFormat takes, line writes.
func TestFormat(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &Log{Options: Options{Site: "web", Host: "b"}, pid: 7}
		c := Change{Operation: "updated", Itemized: ">f.st......", Path: "d/\n", Size: 12, Bytes: 34, Took: 5678 * time.Microsecond}
		at := time.Date(2026, 11, 26, 1, 2, 3, 4567890, time.UTC)
		all := map[byte]string{
			't': "2026-11-26T01:02:03.004Z", 'p': "7", 'm': "web", 'h': "b", 'o': "updated", 'i': ">f.st......",
			'f': `d/\#012`, 'l': "12", 'b': "34", 'd': "0.006", '%': "%",
		}
		format, want := "", ""
		for range rapid.IntRange(1, 8).Draw(t, "pieces") {
			text := rapid.StringMatching(`[ a-z\[\]"ä\t]{0,3}`).Draw(t, "text")
			letter := rapid.SampledFrom([]byte(escapes+"%")).Draw(t, "escape")
			format += text + "%" + string(letter)
			want += text + all[letter]
		}
		var err error
		if l.Format, err = ParseFormat(format); err != nil {
			t.Fatal(err)
		}
		if got := string(l.line(nil, &c, at)); got != want+"\n" {
			t.Errorf("%q: %q, want %q", format, got, want)
		}
	})
}

func TestMistakesInAFormat(t *testing.T) {
	for format, want := range map[string]string{
		"": "empty", "%f %": "ends with", "%f %x": "%x", "%ä": "%ä", "a\nb": "control", "%\x00": "control", "\x1b%f": "control",
	} {
		var f Format
		if err := f.UnmarshalText([]byte(format)); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", format, err, want)
		}
	}
}
