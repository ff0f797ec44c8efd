package apply

import "treecast/internal/events"

// timeRange is which times a file system can hold: ext4 from 1901 to 2446,
// XFS by its age to 2038 or 2486, FAT even seconds only. The kernel clamps
// silently, utimensat(2); without knowing the range a file of the year 2500
// would never be right.
type timeRange struct {
	first, last events.Time
	grain       int32 // nanoseconds; a whole second is 1e9
}

var anyTime = timeRange{events.Time{Sec: -1 << 62}, events.Time{Sec: 1 << 62}, 1}

// probeClock finds f's range by setting and reading times.
func probeClock(f file) (timeRange, error) {
	r := anyTime
	read := func(set events.Time) (events.Time, error) {
		if err := f.chtimes(set); err != nil {
			return events.Time{}, err
		}
		st, err := f.stat()
		return st.mtime, err
	}
	const far = 1 << 41 // further than the wire's times
	var err error
	if r.first, err = read(events.Time{Sec: -far}); err != nil {
		return r, err
	}
	if r.last, err = read(events.Time{Sec: far}); err != nil {
		return r, err
	}
	got, err := read(events.Time{Sec: 1_000_000_000, Nsec: 999_999_999})
	if err != nil {
		return r, err
	}
	r.grain = 1e9 - got.Nsec // what 0.999999999 s is cut down to, and a divisor of 1e9
	return r, nil
}

// hold returns what the file system makes of t.
func (r timeRange) hold(t events.Time) events.Time {
	switch {
	case t.Compare(r.first) <= 0:
		return r.first
	case t.Compare(r.last) >= 0:
		return r.last
	}
	t.Nsec -= t.Nsec % r.grain
	return t
}
