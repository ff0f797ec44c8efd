package stream

import "testing"

// What was stored after a time is found by that time alone, however old the
// messages around it are.
func TestFirstAfter(t *testing.T) {
	_, c := newSite(t, nil)
	l := acquire(t, c, "a")
	publish(t, l, messages(t, 20, "1")...)
	info, err := c.StreamInfo(t.Context(), site)
	if err != nil {
		t.Fatal(err)
	}
	check := func(want uint64) {
		t.Helper()
		if seq, err := c.FirstAfter(t.Context(), site, info.LastTime); err != nil || seq != want {
			t.Errorf("first after %v: %d, %v, want %d", info.LastTime, seq, err, want)
		}
	}
	check(0)
	publish(t, l, messages(t, 7, "2")...) // supersede seven
	check(info.LastSeq + 1)
	publish(t, l, messages(t, 7, "3")...)
	check(info.LastSeq + 8)
	if seq, err := c.FirstAfter(t.Context(), site, info.Created.AddDate(-1, 0, 0)); err != nil || seq != info.FirstSeq {
		t.Errorf("after a year before: %d, %v, want %d", seq, err, info.FirstSeq)
	}
	_, err = c.FirstAfter(t.Context(), "nosite", info.LastTime)
	want(t, err, ErrNoStream)
}
