package treecast_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// torture skips what takes many minutes and much of a disk: `make torture`
// runs it. killed.txtar is its short version.
func torture(t *testing.T, room uint64) {
	t.Helper()
	if os.Getenv("TREECAST_TORTURE") == "" {
		t.Skip("make torture runs it")
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(os.TempDir(), &fs); err != nil {
		t.Fatal(err)
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < room {
		t.Fatalf("%d GiB are free in %s, %d GiB are needed; TMPDIR sets another place", free>>30, os.TempDir(), room>>30)
	}
}

// TestTortureKills changes a file of 1 GiB again and again, and kills publisher,
// broker and a node at random points of its transfers. TREECAST_SEED repeats
// its choices, TREECAST_OPS is how often it kills.
func TestTortureKills(t *testing.T) {
	torture(t, 24<<30)
	seed := number(t, "TREECAST_SEED", uint64(time.Now().UnixNano()))
	kills := int(number(t, "TREECAST_OPS", 30))
	t.Logf("TREECAST_SEED=%d TREECAST_OPS=%d", seed, kills)
	c := startCluster(t, "b", "c")
	random := rand.New(rand.NewPCG(seed, 0))
	big := &bigFile{c: c, t: t, random: random, name: "big0"}
	victims := []string{"publisher", "broker", "b"}
	restart := map[string]func() error{
		"publisher": func() error { return c.publisher() },
		"broker":    func() error { return c.broker() },
		"b":         func() error { return c.node("b") },
	}
	for killed := 0; killed < kills; {
		what, fresh := big.change()
		started := time.Now()
		for range 1 + random.IntN(3) {
			victim := victims[random.IntN(len(victims))]
			point := random.Int64N(2 * bigBytes) // the whole is read, and written, on either side
			if victim == "broker" {
				point = random.Int64N(2*fresh + 1)
			}
			arrived, err := c.works(victim, point, big.name)
			c.must(t, err)
			if arrived {
				break
			}
			c.must(t, c.stop(victim, syscall.SIGKILL))
			c.must(t, restart[victim]())
			killed++
			t.Logf("%2d %-8s of %s: %s killed at %d MiB, %v after the change", killed, what, big.name, victim, point>>20,
				time.Since(started).Round(time.Millisecond))
		}
		if random.IntN(2) == 0 { // otherwise the next version comes before this one is through
			c.must(t, c.judge(nil))
			c.must(t, c.nothingLeft())
		}
	}
	c.must(t, c.judge(nil))
	c.must(t, c.nothingLeft())
	c.logPeaks(t)
}

// bigBytes is the size that the file has about.
const bigBytes = 1 << 30

// A bigFile is one large file of the source, and what is done to it.
type bigFile struct {
	c       *cluster
	t       *testing.T
	random  *rand.Rand
	name    string // in the source
	changes int
}

// change makes the next version, each kind in its turn, and says which kind and
// how many bytes of it no node has.
func (b *bigFile) change() (what string, fresh int64) {
	kinds := []struct {
		what string
		do   func() int64
	}{
		{"new", b.renew}, {"insert", b.insert}, {"append", b.grow}, {"edit", b.edit}, {"rename", b.rename},
		{"insert", b.insert}, {"cut", b.cut}, {"append", b.grow},
	}
	k := kinds[b.changes%len(kinds)]
	b.changes++
	return k.what, k.do()
}

func (b *bigFile) path() string { return b.c.path("a", b.name) }

func (b *bigFile) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// replace puts what r reads in the file's place, as an editor does.
func (b *bigFile) replace(r io.Reader) {
	tmp := b.c.path("new")
	f, err := os.Create(tmp)
	b.check(err)
	_, err = io.Copy(f, r)
	b.check(errors.Join(err, f.Close()))
	b.check(os.Rename(tmp, b.path()))
}

func (b *bigFile) bytes(n int64) io.Reader {
	var key [32]byte
	for i := range key {
		key[i] = byte(b.random.IntN(256))
	}
	return io.LimitReader(rand.NewChaCha8(key), n)
}

func (b *bigFile) renew() int64 {
	b.replace(b.bytes(bigBytes))
	return bigBytes
}

// insert puts some bytes in, in front every other time.
func (b *bigFile) insert() int64 {
	old, err := os.Open(b.path())
	b.check(err)
	defer old.Close()
	n, at := 1+b.random.Int64N(2<<20), b.random.Int64N(bigBytes/2)*b.random.Int64N(2)
	b.replace(io.MultiReader(io.LimitReader(old, at), b.bytes(n), old))
	return n
}

func (b *bigFile) grow() int64 {
	n := 1 + b.random.Int64N(16<<20)
	f, err := os.OpenFile(b.path(), os.O_WRONLY|os.O_APPEND, 0)
	b.check(err)
	_, err = io.Copy(f, b.bytes(n))
	b.check(errors.Join(err, f.Close()))
	return n
}

// edit writes to the file where it is, in a few places.
func (b *bigFile) edit() int64 {
	f, err := os.OpenFile(b.path(), os.O_WRONLY, 0)
	b.check(err)
	const n = 1 << 20
	for range 4 {
		_, err = io.Copy(io.NewOffsetWriter(f, b.random.Int64N(bigBytes/2)), b.bytes(n))
		b.check(err)
	}
	b.check(f.Close())
	return 4 * n
}

func (b *bigFile) rename() int64 {
	old := b.path()
	b.name = fmt.Sprint("big", b.changes)
	b.check(os.Rename(old, b.path()))
	return 0
}

func (b *bigFile) cut() int64 {
	fi, err := os.Stat(b.path())
	b.check(err)
	b.check(os.Truncate(b.path(), fi.Size()-b.random.Int64N(bigBytes/16)))
	return 0
}

// works waits until a process has read and written so many bytes from now on,
// or until every node has the source's version of a file.
func (c *cluster) works(name string, point int64, file string) (arrived bool, err error) {
	p, err := c.proc(name)
	if err != nil {
		return false, err
	}
	before, err := moved(p.cmd.Process.Pid)
	if err != nil {
		return false, err
	}
	return arrived, c.await(name+" at work", func() error {
		if arrived = c.have(file) == nil; arrived {
			return nil
		}
		now, err := moved(p.cmd.Process.Pid)
		if err == nil && now-before < point {
			err = fmt.Errorf("%d bytes moved, %d are wanted", now-before, point)
		}
		return err
	})
}

// moved is how many bytes a process has read and written: rchar and wchar, see
// proc_pid_io(5).
func moved(pid int) (sum int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, err
	}
	var read, written int64
	if _, err := fmt.Sscanf(string(b), "rchar: %d\nwchar: %d\n", &read, &written); err != nil {
		return 0, err
	}
	return read + written, nil
}

// have returns nil if a file has the source's size and time on every node.
func (c *cluster) have(file string) error {
	want, err := os.Stat(c.path("a", file))
	if err != nil {
		return err
	}
	for _, name := range c.nodes {
		got, err := os.Stat(c.path(name, file))
		if err != nil {
			return err
		}
		if got.Size() != want.Size() || !got.ModTime().Equal(want.ModTime()) {
			return fmt.Errorf("%s has %d bytes of %v, not %d of %v", name, got.Size(), got.ModTime(), want.Size(), want.ModTime())
		}
	}
	return nil
}

// nothingLeft waits until no node has a temp or a part of a large body.
func (c *cluster) nothingLeft() error {
	return c.await("temps and parts", func() error {
		for _, name := range c.nodes {
			for _, dir := range []string{"tmp", "parts"} {
				left, err := os.ReadDir(c.path("."+name+".treecast", dir))
				if err != nil {
					return err
				}
				if len(left) > 0 {
					return fmt.Errorf("%s has %q in %s, and %d more", name, left[0].Name(), dir, len(left)-1)
				}
			}
		}
		return nil
	})
}

// TestTortureMemory: a file of 20 GiB costs publisher and node at most 64 MiB
// more than small ones do.
func TestTortureMemory(t *testing.T) {
	const large, most = 20, 64 << 20 // GiB, bytes
	torture(t, (2*large+4)<<30)
	peaks := make(map[string][]int64)
	for _, gib := range []int{0, large} {
		t.Run(fmt.Sprint(gib, " GiB"), func(t *testing.T) {
			c := startCluster(t, "b")
			c.write(t, "small", bytes.Repeat([]byte("small\n"), 100))
			c.must(t, c.judge(nil))
			same := make([]io.Reader, gib) // so that the bucket has no more than one of them
			for i := range same {
				same[i] = io.LimitReader(rand.NewChaCha8([32]byte{}), 1<<30)
			}
			big := &bigFile{c: c, t: t, name: "big"}
			big.replace(io.MultiReader(same...))
			started := time.Now()
			c.must(t, c.await("the node", func() error { return c.have("big") }))
			c.must(t, c.nothingLeft())
			t.Logf("there after %v", time.Since(started).Round(10*time.Millisecond))
			c.logPeaks(t)
			for _, name := range []string{"publisher", "b"} {
				peaks[name] = append(peaks[name], c.peak(t, name))
			}
		})
	}
	for name, p := range peaks {
		if len(p) == 2 && p[1]-p[0] > most {
			t.Errorf("%s: peak memory %d MiB, and %d MiB with a large file: %d MiB more are allowed", name, p[0]>>20, p[1]>>20, most>>20)
		}
	}
}
