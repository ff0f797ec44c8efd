package transfer

import (
	"strconv"
	"unicode/utf8"
)

// escape appends s to b as rsync's logs have it: what is not printable as \#
// and three octal digits for each byte. A backslash of s that reads as the begin
// of such a sequence is one itself, so that s can be had back.
func escape(b []byte, s string) []byte {
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if strconv.IsPrint(r) && (r != utf8.RuneError || n > 1) && !sequence(s) {
			b = append(b, s[:n]...)
		} else {
			for _, c := range []byte(s[:n]) {
				b = append(b, '\\', '#', '0'+c>>6, '0'+c>>3&7, '0'+c&7)
			}
		}
		s = s[n:]
	}
	return b
}

// sequence reports whether s begins with \# and three octal digits.
func sequence(s string) bool {
	if len(s) < 5 || s[0] != '\\' || s[1] != '#' {
		return false
	}
	for _, c := range []byte(s[2:5]) {
		if c < '0' || c > '7' {
			return false
		}
	}
	return true
}
