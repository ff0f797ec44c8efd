package rig

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseMemory(t *testing.T) {
	const status = "Name:\trsync\nVmPeak:\t   99999 kB\nVmHWM:\t    8560 kB\nVmRSS:\t 8000 kB\n"
	for field, want := range map[string]int64{"VmHWM:": 8560 << 10, "VmRSS:": 8000 << 10} {
		if got, err := parseMemory(status, field); err != nil || got != want {
			t.Errorf("%s got %d, %v", field, got, err)
		}
	}
	for _, bad := range []string{"Name:\trsync\nState:\tZ (zombie)\n", "VmHWM:\tmuch\n"} {
		if got, err := parseMemory(bad, "VmHWM:"); err == nil {
			t.Errorf("%q: got %d", bad, got)
		}
	}
}

// TestPeaksAreReset shows that a peak is not remembered for what comes after it.
func TestPeaksAreReset(t *testing.T) {
	d := &Daemons{Dir: t.TempDir(), Fail: func(err error) { t.Error(err) }}
	defer d.Stop()
	if _, err := d.Start(t.Context(), "role", "sleeps", "sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	d.peaks = map[string]int64{"role": 1 << 50}
	if err := d.ResetPeaks(); err != nil {
		t.Fatal(err)
	}
	now, err := d.Resident()
	if err != nil {
		t.Fatal(err)
	}
	if peak := d.Peaks()["role"]; peak < now["role"] || now["role"] == 0 || peak >= 1<<50 {
		t.Errorf("%d at most, %d now", peak, now["role"])
	}
}

func TestInotifyWatches(t *testing.T) {
	before, err := InotifyWatches(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for range 3 {
		if _, err := unix.InotifyAddWatch(fd, t.TempDir(), unix.IN_CREATE); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := InotifyWatches(os.Getpid()); err != nil || got != before+3 {
		t.Errorf("%d, and %d before; %v", got, before, err)
	}
}
