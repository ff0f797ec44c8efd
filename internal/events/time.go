package events

import (
	"fmt"
	"strconv"
	"strings"
)

// A Time is a file's time: seconds since 1970 and nanoseconds in [0, 1e9), as
// in struct timespec. It reaches from before 1901 to after 2486, which int64
// nanoseconds do not.
type Time struct {
	Sec  int64
	Nsec int32
}

// valid reports whether the wire can carry t.
func (t Time) valid() bool {
	return -maxTimeSec <= t.Sec && t.Sec <= maxTimeSec && 0 <= t.Nsec && t.Nsec < 1e9
}

// String returns the time as the wire has it: decimal nanoseconds since 1970.
func (t Time) String() string {
	var b [maxTimeText]byte
	return string(t.append(b[:0]))
}

// maxTimeText is the length of the longest of valid times.
const maxTimeText = 25

// append is String without an allocation.
func (t Time) append(b []byte) []byte {
	sec, nsec := t.Sec, t.Nsec
	if sec < 0 {
		sec = -sec
		if nsec > 0 {
			sec, nsec = sec-1, 1e9-nsec
		}
		b = append(b, '-')
	}
	if sec == 0 {
		return strconv.AppendInt(b, int64(nsec), 10)
	}
	b = strconv.AppendInt(b, sec, 10)
	for unit := int32(1e8); unit > 0; unit /= 10 {
		b = append(b, '0'+byte(nsec/unit%10))
	}
	return b
}

// ParseTime is the inverse of [Time.String] and accepts nothing else.
func ParseTime(s string) (Time, error) {
	digits, negative := strings.CutPrefix(s, "-")
	var t Time
	bad := len(digits) == 0 || len(digits) > 24
	if !bad && len(digits) > 9 {
		sec, err := strconv.ParseInt(digits[:len(digits)-9], 10, 64)
		bad = err != nil || sec > maxTimeSec
		t.Sec, digits = sec, digits[len(digits)-9:]
	}
	nsec, err := strconv.ParseUint(digits, 10, 31)
	bad = bad || err != nil
	t.Nsec = int32(nsec) // at most nine digits
	if negative {
		t.Sec = -t.Sec
		if t.Nsec > 0 {
			t.Sec, t.Nsec = t.Sec-1, 1e9-t.Nsec
		}
	}
	var text [maxTimeText]byte
	if bad || !t.valid() || string(t.append(text[:0])) != s {
		return Time{}, fmt.Errorf("%w: time %q", ErrEntry, clip(s))
	}
	return t, nil
}

// Compare orders times.
func (t Time) Compare(u Time) int {
	switch {
	case t == u:
		return 0
	case t.Sec < u.Sec, t.Sec == u.Sec && t.Nsec < u.Nsec:
		return -1
	}
	return 1
}
