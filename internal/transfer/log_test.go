package transfer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A recorder is what a log says of itself.
type recorder struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

// options are those of a log whose lines are paths alone.
func options(t *testing.T, file string) (Options, *recorder) {
	t.Helper()
	format, err := ParseFormat("%f")
	if err != nil {
		t.Fatal(err)
	}
	said := &recorder{}
	return Options{File: file, Format: format, Log: slog.New(slog.NewTextHandler(said, nil))}, said
}

func open(t *testing.T, o Options) *Log {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func add(l *Log, from, to int) (lines string) {
	for i := from; i < to; i++ {
		l.Add(Change{Path: strconv.Itoa(i)})
		lines += strconv.Itoa(i) + "\n"
	}
	return lines
}

// eventually waits for a condition, not for a time.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

func TestLinesAreAppended(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(file, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, said := options(t, file)
	l := open(t, o)
	want := "before\n" + add(l, 0, 5000)
	eventually(t, "lines are not written", func() bool { return read(t, file) == want })
	want += add(l, 5000, 5001)
	l.Close()
	if got := read(t, file); got != want || said.String() != "" {
		t.Errorf("%d bytes, want %d; said %s", len(got), len(want), said)
	}
	var none *Log
	none.Add(Change{})
	none.Close()
}

// TestRotation: by a new name or by its removal with and without a signal, and
// by a truncation.
func TestRotation(t *testing.T) {
	for _, signals := range []bool{false, true} {
		file := filepath.Join(t.TempDir(), "log")
		hangup := make(chan os.Signal, 1)
		o, said := options(t, file)
		o.Hangup = hangup
		l := open(t, o)
		for i := range 4 {
			if i == 3 {
				if err := os.Truncate(file, 0); err != nil {
					t.Fatal(err)
				}
			}
			want := add(l, 10*i, 10*i+10)
			eventually(t, "the new file has no lines", func() bool { return read(t, file) == want })
			var err error
			switch i {
			case 0:
				err = os.Rename(file, file+".1")
			case 1:
				err = os.Remove(file)
			}
			if err != nil {
				t.Fatal(err)
			}
			if signals && i < 2 {
				hangup <- syscall.SIGHUP
				eventually(t, "no new file", func() bool { _, err := os.Stat(file); return err == nil })
			}
		}
		l.Close()
		if got := read(t, file+".1"); got != "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n" || said.String() != "" {
			t.Errorf("the old file has %q; said %s", got, said)
		}
	}
}

// TestFull: a disk that is full is told of once; what waited is written
// afterwards, and the rest is counted.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "log")
	if err := os.Symlink("/dev/full", file); err != nil {
		t.Fatal(err)
	}
	o, said := options(t, file)
	l := open(t, o)
	l.mu.Lock()
	l.most = 100
	l.mu.Unlock()
	all := add(l, 10, 20)
	eventually(t, "nothing is said of a full disk", func() bool { return strings.Contains(said.String(), "no space") })
	all += add(l, 20, 60)
	if err := os.Symlink(filepath.Join(dir, "room"), file+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing is said of lost lines", func() bool { return strings.Contains(said.String(), "lost_lines") })
	l.Close()
	got := read(t, file)
	if lost := strings.Count(all, "\n") - strings.Count(got, "\n"); lost <= 0 || !strings.Contains(said.String(), fmt.Sprintf("lost_lines=%d\n", lost)) ||
		!strings.HasPrefix(all, got) {
		t.Errorf("%q of %q", got, all)
	}
	if n := strings.Count(said.String(), "\n"); n != 2 {
		t.Errorf("said %d lines:\n%s", n, said)
	}
}

// TestTornLine: a line of which the disk took a part is finished in the same
// file, and given up where that is gone.
func TestTornLine(t *testing.T) {
	for _, rotated := range []bool{false, true} {
		file := filepath.Join(t.TempDir(), "log")
		o, said := options(t, file)
		l := &Log{Options: o, closing: make(chan struct{}), closed: make(chan struct{})}
		if err := l.look(); err != nil {
			t.Fatal(err)
		}
		l.rest = []byte("one\nt")
		if err := l.write(); err != nil {
			t.Fatal(err)
		}
		l.rest = []byte("wo\nthree\n")
		l.failed(syscall.ENOSPC)
		want, lost := "one\ntwo\nthree\n", "lost_lines=0"
		if rotated {
			if err := os.Rename(file, file+".1"); err != nil {
				t.Fatal(err)
			}
			want, lost = "three\n", "lost_lines=1"
		}
		l.flush()
		l.end()
		if got := read(t, file); got != want || !strings.Contains(said.String(), lost) {
			t.Errorf("%q, want %q; said %s", got, want, said)
		}
	}
}

// TestHangingDisk: a reader of a FIFO that does not read stands for a disk that
// does not answer. Add does not wait for it, and neither does the end for long.
func TestHangingDisk(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	o, said := options(t, file)
	if _, err := Open(o); !errors.Is(err, syscall.ENXIO) {
		t.Errorf("without a reader: %v", err)
	}
	reader, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	l := open(t, o)
	long := strings.Repeat("x", 1<<10)
	for range 3 * maxWaiting >> 10 {
		l.Add(Change{Path: long})
	}
	l.Close()
	if !strings.Contains(said.String(), "last lines") {
		t.Errorf("said %s", said)
	}
	go func() { _, _ = io.Copy(io.Discard, reader) }()
	<-l.closed // the writer ends, for goleak
	reader.Close()
}

// TestMistakesInTheFile: what no waiting mends is an error of Open.
func TestMistakesInTheFile(t *testing.T) {
	dir := t.TempDir()
	for _, file := range []string{dir, filepath.Join(dir, "none", "log")} {
		o, _ := options(t, file)
		if l, err := Open(o); err == nil || !strings.Contains(fmt.Sprint(err), file) {
			t.Errorf("%s: %v, %v", file, l, err)
		}
	}
}
