package rig

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// TestDaemonsEnd shows that one that ends by itself is an error, and one that is
// stopped is not.
func TestDaemonsEnd(t *testing.T) {
	failed := make(chan error, 2)
	d := &Daemons{Dir: t.TempDir(), Fail: func(err error) { failed <- err }}
	if _, err := d.Start(t.Context(), "role", "stays", "sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Start(t.Context(), "role", "ends", "sh", "-c", "echo why; exit 3"); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, errEnded) || !strings.Contains(err.Error(), "ends") {
		t.Errorf("got %v", err)
	}
	d.Stop()
	if len(failed) > 0 {
		t.Errorf("got %v", <-failed)
	}
	var log bytes.Buffer
	d.PrintLogs(&log)
	if !strings.Contains(log.String(), "why") {
		t.Errorf("log: %q", &log)
	}
}
