package rig

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestParseWritten(t *testing.T) {
	if got, err := parseWritten("wchar: 7\nwrite_bytes: 8192\ncancelled_write_bytes: 4096\n"); err != nil || got != 8192 {
		t.Errorf("got %d, %v", got, err)
	}
	for _, bad := range []string{"", "wchar: 7\n", "write_bytes: x\n"} {
		if got, err := parseWritten(bad); err == nil {
			t.Errorf("%q: got %d", bad, got)
		}
	}
}

func TestStampsTellWhatWasWritten(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, sub := range []string{"still", "busy"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"still/f", "f.log", "same", "gone"} {
		write(name, "1")
	}
	info, err := os.Stat(filepath.Join(dir, "same"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Stamp(dir)
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := s.Changed(); err != nil || len(changed) > 0 {
		t.Fatalf("nothing was written: %q, %v", changed, err)
	}
	waitForTick(t)
	write("f.log", "a daemon's")
	write("made", "1")
	write("same", "2")
	write("busy/f", "for a moment")
	for _, err := range []error{
		os.Chtimes(filepath.Join(dir, "same"), info.ModTime(), info.ModTime()),
		os.Remove(filepath.Join(dir, "gone")), os.Remove(filepath.Join(dir, "busy/f")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	changed, err := s.Changed()
	for i := range changed {
		changed[i] = filepath.Base(changed[i])
	}
	if want := []string{"busy", "gone", "made", "same"}; err != nil || !slices.Equal(changed, want) {
		t.Errorf("got %q, %v, want %q", changed, err, want)
	}
}

// waitForTick returns when a file that is written now has a later time than one
// that was written before: kernels before 6.13 count in ticks.
func waitForTick(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	for first := ""; ; {
		if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(dir, "f"))
		if err != nil {
			t.Fatal(err)
		}
		now := info.ModTime().String()
		if first != "" && now != first {
			return
		}
		first = now
	}
}
