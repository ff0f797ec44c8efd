package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestPIDFile(t *testing.T) {
	p := PIDFile{PIDFile: filepath.Join(t.TempDir(), "pid")}
	if err := os.WriteFile(p.PIDFile, []byte("123456789\nleft by a crash"), 0o600); err != nil {
		t.Fatal(err)
	}
	release, err := p.Hold()
	if err != nil {
		t.Fatal(err)
	}
	ours := fmt.Sprintln(os.Getpid())
	if b, err := os.ReadFile(p.PIDFile); err != nil || string(b) != ours {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := p.Hold(); !errors.Is(err, ErrRuns) || !strings.Contains(err.Error(), "pid "+strings.TrimSpace(ours)) {
		t.Errorf("a second one: %v", err)
	}
	release()
	if _, err := os.Stat(p.PIDFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
	if err := os.Symlink("elsewhere", p.PIDFile); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Hold(); err == nil || !strings.Contains(err.Error(), "--pid-file") {
		t.Errorf("a symlink: %v", err)
	}
	release, err = (&PIDFile{}).Hold()
	if err != nil {
		t.Fatal(err)
	}
	release()
}

// TestPIDFileHasOneHolder: also while others come and go.
func TestPIDFileHasOneHolder(t *testing.T) {
	p := PIDFile{PIDFile: filepath.Join(t.TempDir(), "pid")}
	var holders, held atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				release, err := p.Hold()
				if err != nil {
					if !errors.Is(err, ErrRuns) {
						t.Error(err)
					}
					continue
				}
				held.Add(1)
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d holders", n)
				}
				holders.Add(-1)
				release()
			}
		})
	}
	wg.Wait()
	if held.Load() == 0 {
		t.Error("nobody had it")
	}
}
