package source

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

func TestReadGivesContentAndEntry(t *testing.T) {
	tree, root := open(t, Options{})
	p := pathOf(t, "f")
	buf := make([]byte, 0, 4096)
	for _, size := range []int{0, 1, 4095, 4096, 4097, events.MaxInlineBytes} {
		content := strings.Repeat("x", size)
		write(t, root+"/f", content)
		m, body, err := tree.Read(p, buf)
		must(t, err)
		want := events.InlineBody
		if size == 0 {
			want = events.NoBody
		}
		if string(body) != content || m.Entry.Size != int64(size) || m.Entry.Digest != events.Sum(body) || m.Entry.Body != want {
			t.Errorf("%d bytes: %d bytes read, %+v", size, len(body), m.Entry)
		}
		if reused := size > 0 && &body[0] == &buf[:1][0]; reused != (size > 0 && size < cap(buf)) {
			t.Errorf("%d bytes into a buffer of %d: reused %v", size, cap(buf), reused)
		}
		m.Entry.Epoch = 1
		line, err := m.Entry.MarshalHeader()
		must(t, err)
		if _, err := events.ParseEntry(line); err != nil {
			t.Errorf("%d bytes: the wire refuses the entry: %v", size, err)
		}
	}
	must(t, os.Truncate(root+"/f", events.MaxInlineBytes+1))
	_, _, err := tree.Read(p, nil)
	skipped(t, err, TooLarge)
	must(t, os.Truncate(root+"/f", 1<<40)) // sparse: must not be read
	_, _, err = tree.Read(p, nil)
	skipped(t, err, TooLarge)
	if _, _, err := tree.Read(pathOf(t, "."), nil); !errors.Is(err, ErrUnstable) {
		t.Errorf("read of a directory: %v", err)
	}
}

// Each version of a file is one byte repeated. The writers of the first kind
// are asked about before the read, those of the second come at any time.
func TestReadIsNeverTorn(t *testing.T) {
	for _, size := range []int{4 << 10, 64 << 10, 512 << 10} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			tree, root := open(t, Options{})
			name, p := root+"/f", pathOf(t, "f")
			must(t, os.WriteFile(name, bytes.Repeat([]byte{0}, size), 0o644))
			stop := make(chan struct{})
			var writers sync.WaitGroup
			writers.Go(func() {
				for i := 1; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					version := bytes.Repeat([]byte{byte(i)}, size)
					if i%3 == 0 {
						must(t, os.WriteFile(name, version, 0o644)) // truncates
					} else if f, err := os.OpenFile(name, os.O_WRONLY, 0); err == nil {
						for at := 0; at < size; at += 4096 {
							_, _ = f.WriteAt(version[at:at+4096], int64(at))
						}
						must(t, f.Close())
					}
					if i%5 == 0 {
						time.Sleep(time.Millisecond)
					}
				}
			})
			var good, busy, unstable int
			var buf []byte
			for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end) || good == 0; {
				m, body, err := tree.Read(p, buf)
				switch {
				case err == nil:
					good++
					if len(body) != size || bytes.Count(body, body[:1]) != size || m.Entry.Digest != events.Sum(body) {
						t.Fatalf("torn: %d bytes, %d of the first", len(body), bytes.Count(body, body[:1]))
					}
					buf = body
				case errors.Is(err, ErrBusy):
					busy++
				case errors.Is(err, ErrUnstable):
					unstable++
				default:
					t.Fatal(err)
				}
			}
			close(stop)
			writers.Wait()
			t.Logf("%d good, %d busy, %d unstable", good, busy, unstable)
		})
	}
}

func TestReadOfAReplacedFile(t *testing.T) {
	tree, root := open(t, Options{})
	name, p := root+"/f", pathOf(t, "f")
	write(t, name, strings.Repeat("0", 9000))
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				write(t, root+"/tmp", strings.Repeat(fmt.Sprint(i%10), 9000))
				must(t, os.Rename(root+"/tmp", name))
			}
		}
	})
	for good := 0; good < 500; {
		_, body, err := tree.Read(p, nil)
		switch {
		case err == nil && bytes.Count(body, body[:1]) != 9000:
			t.Error("torn")
			good = 500
		case err == nil:
			good++
		case !errors.Is(err, ErrUnstable):
			t.Errorf("a file that is always there: %v", err)
			good = 500
		}
	}
	close(stop)
	writer.Wait()
}

func TestBusyWhileOpenForWriting(t *testing.T) {
	tree, root := open(t, Options{})
	name, p := root+"/f", pathOf(t, "f")
	write(t, name, "content")
	state := func(want bool, when string) {
		t.Helper()
		settled, known, err := tree.Settled(p)
		if settled != want || !known || err != nil {
			t.Errorf("%s: settled %v, known %v, %v", when, settled, known, err)
		}
		_, body, err := tree.Read(p, nil)
		if want && (err != nil || string(body) != "content") || !want && !errors.Is(err, ErrBusy) {
			t.Errorf("%s: read %q, %v", when, body, err)
		}
	}
	state(true, "at first")
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	state(false, "open for writing")
	must(t, f.Close())
	state(true, "closed")

	r, err := os.Open(name)
	must(t, err)
	state(true, "open for reading")
	must(t, r.Close())

	f, err = os.OpenFile(name, os.O_RDWR, 0)
	must(t, err)
	m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	must(t, f.Close())
	state(false, "closed, but mapped for writing")
	must(t, unix.Munmap(m))
	state(true, "unmapped")

	other := exec.Command("sh", "-c", `exec 3>>"$1"; echo open; read line; exec 3>&-; echo closed; read line || true`, "sh", name)
	in, err := other.StdinPipe()
	must(t, err)
	out, err := other.StdoutPipe()
	must(t, err)
	must(t, other.Start())
	said := bufio.NewReader(out)
	say := func(want string) {
		t.Helper()
		if line, err := said.ReadString('\n'); err != nil || line != want+"\n" {
			t.Fatalf("%q, %v, want %s", line, err, want)
		}
	}
	say("open")
	state(false, "open in another process")
	_, err = in.Write([]byte("\n"))
	must(t, err)
	say("closed")
	state(true, "closed in another process")
	must(t, in.Close())
	must(t, other.Wait())
	if !tree.Leases() {
		t.Error("leases do not work")
	}
}

// A process that has a lease for writing (Samba does that) makes an open that
// may not wait fail.
func TestBusyWhileLeasedForWriting(t *testing.T) {
	tree, root := open(t, Options{})
	write(t, root+"/f", "content")
	f, err := os.OpenFile(root+"/f", os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	must(t, err)
	if settled, known, err := tree.Settled(pathOf(t, "f")); settled || !known || err != nil {
		t.Errorf("settled %v, known %v, %v", settled, known, err)
	}
	if _, _, err := tree.Read(pathOf(t, "f"), nil); !errors.Is(err, ErrBusy) {
		t.Errorf("read: %v", err)
	}
}

// Writers that meet the lease break it; the signal of that must do no harm,
// and they must hardly wait.
func TestBrokenLeasesAreHarmless(t *testing.T) {
	tree, root := open(t, Options{})
	name, p := root+"/f", pathOf(t, "f")
	write(t, name, "content")
	must(t, syscall.Kill(os.Getpid(), syscall.SIGIO)) // what a broken lease sends
	stop := make(chan struct{})
	var probers sync.WaitGroup
	probers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, known, err := tree.Settled(p); !known || err != nil {
					t.Errorf("known %v, %v", known, err)
					return
				}
			}
		}
	})
	var longest, sum time.Duration
	const opens = 20000
	for range opens {
		start := time.Now()
		fd, err := unix.Open(name, unix.O_WRONLY, 0)
		took := time.Since(start)
		must(t, err)
		must(t, unix.Close(fd))
		longest, sum = max(longest, took), sum+took
	}
	close(stop)
	probers.Wait()
	t.Logf("open for writing under constant probing: mean %v, longest %v", sum/opens, longest)
	if mean := sum / opens; mean > time.Millisecond {
		t.Errorf("writers wait %v", mean)
	}
}

func BenchmarkRead(b *testing.B) {
	f, err := NewFilter(DefaultRules()...)
	must(b, err)
	tree, root := open(b, Options{Filter: f})
	mkdir(b, root+"/a/b/c")
	write(b, root+"/a/b/c/f", strings.Repeat("x", 4096))
	p, buf := pathOf(b, "a/b/c/f"), make([]byte, 8192)
	b.SetBytes(4096)
	for b.Loop() {
		if _, _, err := tree.Read(p, buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLstat(b *testing.B) {
	tree, root := open(b, Options{})
	mkdir(b, root+"/a/b/c")
	p := pathOf(b, "a/b/c")
	for b.Loop() {
		if _, err := tree.Lstat(p); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSettled is the question whether somebody has a file open for writing.
func BenchmarkSettled(b *testing.B) {
	tree, root := open(b, Options{})
	mkdir(b, root+"/a/b/c")
	write(b, root+"/a/b/c/f", "x")
	p := pathOf(b, "a/b/c/f")
	for b.Loop() {
		if settled, _, err := tree.Settled(p); err != nil || !settled {
			b.Fatal(settled, err)
		}
	}
}
