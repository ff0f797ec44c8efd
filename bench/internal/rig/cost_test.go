package rig

import (
	"fmt"
	"testing"
	"time"
)

func TestParseChildren(t *testing.T) {
	const stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 2000 0 0 5 6 70 8 20 0 1 0 100 9 10"
	if got, err := parseChildren(stat); err != nil || got != 780*time.Millisecond {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "7 (a) S 1 7", "7 (a) S 1 7 7 0 -1 4194304 100 2000 0 0 5 6 x 8 20"} {
		if got, err := parseChildren(bad); err == nil {
			t.Errorf("%q: got %v", bad, got)
		}
	}
}

// TestCostOfChildren shows that what a daemon starts is counted while it runs
// and when it has ended, and so is a daemon that was stopped.
func TestCostOfChildren(t *testing.T) {
	d := &Daemons{Dir: t.TempDir(), Fail: func(err error) { t.Error(err) }}
	defer d.Stop()
	// The first of the two loops ends, the second one is ended; neither outlives us for long.
	const loop = "sh -c 'i=0; while [ $i -lt %d ]; do i=$((i+1)); done'; "
	p, err := d.Start(t.Context(), "role", "busy", "sh", "-c", fmt.Sprintf(loop+""+loop+"exit", 1_000, 10_000_000))
	if err != nil {
		t.Fatal(err)
	}
	for d.CPU()["role"] < 50*time.Millisecond {
		time.Sleep(time.Millisecond)
	}
	p.Stop()
	if used := d.CPU()["role"]; used < 50*time.Millisecond {
		t.Errorf("%v after it was stopped", used)
	}
	if d.Peaks()["role"] == 0 {
		t.Errorf("memory: %v", d.Peaks())
	}
}
