package treecast_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for a condition: it is for a loaded machine with
// the race detector, no measure of speed. TREECAST_PATIENCE sets another.
var patience = cmp.Or(duration(os.Getenv("TREECAST_PATIENCE")), 120*time.Second)

func duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0
	}
	return d
}

// A cluster is a broker, a publisher of <dir>/a and nodes that keep
// <dir>/<name>, all as processes of the real commands.
type cluster struct {
	dir   string
	url   string
	logf  func(format string, args ...any)
	nodes []string // that were ever started

	network *network // nil: all are on this host

	mu    sync.Mutex
	procs map[string]*proc
}

// A proc is one running command.
type proc struct {
	cmd  *exec.Cmd
	log  string // its standard error
	from int64  // where in log what it writes begins
	done chan struct{}
}

// newCluster returns a cluster in an empty directory; nothing runs yet.
func newCluster(dir string, logf func(string, ...any)) (*cluster, error) {
	c := &cluster{dir: dir, logf: logf, procs: make(map[string]*proc)}
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	c.url = "nats://" + addr
	return c, os.MkdirAll(c.path("a"), 0o755)
}

// startCluster returns a cluster with everything running, that ends with the
// test, and prints its logs if that failed.
func startCluster(t *testing.T, nodes ...string) *cluster {
	t.Helper()
	c, err := newCluster(t.TempDir(), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.stopAll()
		if t.Failed() {
			c.printLogs()
		}
	})
	c.must(t, c.broker())
	c.must(t, c.publisher())
	for _, name := range nodes {
		c.must(t, c.node(name))
	}
	return c
}

func (c *cluster) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// path returns a path in the cluster's directory.
func (c *cluster) path(elem ...string) string {
	return filepath.Join(append([]string{c.dir}, elem...)...)
}

// freeAddress is an address of this host that nobody listens on. It is not
// 127.0.0.1, where any connection may take the port before it is used.
func freeAddress() (string, error) {
	host := net.IPv4(127, byte(1+rand.IntN(254)), byte(rand.IntN(256)), byte(1+rand.IntN(254)))
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: host})
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (c *cluster) broker(args ...string) error {
	addr := strings.TrimPrefix(c.url, "nats://")
	return c.serves(addr, c.start("broker", "embedded-broker",
		append([]string{"--store-dir", c.path("store"), "--listen", addr, "--monitor", "127.0.0.1:0"}, args...)...))
}

// stockServer starts the stock nats-server in the broker's place.
func (c *cluster) stockServer(conf string) error {
	host, port, err := net.SplitHostPort(strings.TrimPrefix(c.url, "nats://"))
	if err != nil {
		return err
	}
	return c.serves(net.JoinHostPort(host, port), c.start("broker", "nats-server", "-c", conf, "--addr", host, "--port", port, "-sd", c.path("store")))
}

// serves waits until a broker that was started takes connections.
func (c *cluster) serves(addr string, started error) error {
	if started != nil {
		return started
	}
	return c.await("the broker", func() error {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

func (c *cluster) publisher(args ...string) error {
	return c.start("publisher", "publisher", append([]string{"--nats", c.url, "--root", c.path("a"), "--log-level", "debug"}, args...)...)
}

func (c *cluster) node(name string, args ...string) error {
	if err := os.MkdirAll(c.path(name), 0o755); err != nil {
		return err
	}
	if !slices.Contains(c.nodes, name) {
		c.nodes = append(c.nodes, name)
	}
	return c.start(name, "subscriber", append([]string{"--nats", c.url, "--node", name, "--root", c.path(name), "--log-level", "debug"}, args...)...)
}

// start runs a command under a name; its log is <name>.log.
func (c *cluster) start(name, command string, args ...string) error {
	log := c.path(name + ".log")
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return err
	}
	argv := c.network.inside(name, append([]string{command}, args...))
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = c.dir
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	p := &proc{cmd: cmd, log: log, from: before.Size(), done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // its state is asked for where it matters
		close(p.done)
	}()
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.procs[name]; old != nil && !old.ended() {
		return fmt.Errorf("%s is running already", name)
	}
	c.procs[name] = p
	return nil
}

func (p *proc) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (c *cluster) proc(name string) (*proc, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.procs[name]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%s was not started", name)
}

// signal sends a signal to a process of ours.
func (c *cluster) signal(name string, sig syscall.Signal) error {
	p, err := c.proc(name)
	if err != nil {
		return err
	}
	return p.cmd.Process.Signal(sig)
}

// stop ends a process and waits for its end; SIGTERM must be enough, and its
// exit code 0.
func (c *cluster) stop(name string, sig syscall.Signal) error {
	p, err := c.proc(name)
	if err != nil {
		return err
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-time.After(patience):
		return fmt.Errorf("%s does not end on %v", name, sig)
	}
	code := p.cmd.ProcessState.ExitCode()
	if fi, err := os.Stat(p.log); code == -1 && err == nil && fi.Size() == p.from {
		return nil // it had not begun
	}
	if sig == syscall.SIGTERM && code != 0 {
		return fmt.Errorf("%s: exit code %d after SIGTERM", name, code)
	}
	return nil
}

// awaitExit waits for a process to end by itself and returns its exit code.
func (c *cluster) awaitExit(name string) (int, error) {
	p, err := c.proc(name)
	if err != nil {
		return 0, err
	}
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(patience):
		return 0, fmt.Errorf("%s does not end", name)
	}
}

func (c *cluster) stopAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.procs {
		if !p.ended() {
			_ = p.cmd.Process.Signal(syscall.SIGCONT)
			_ = p.cmd.Process.Kill()
		}
		<-p.done
	}
	if err := c.network.remove(); err != nil {
		c.logf("%v", err)
	}
}

// tidy takes away what keeps a directory from being removed, after a story that
// did not come to its end: mounts and immutable files.
func (c *cluster) tidy() {
	script := `grep -o " $1/[^ ]*" /proc/mounts | sort -r | xargs -r umount -l; chattr -R -f -i "$1"`
	if out, err := exec.Command("sh", "-c", script, "sh", c.dir).CombinedOutput(); err != nil {
		c.logf("tidy: %v\n%s", err, out)
	}
}

// printLogs shows the end of each process's log.
func (c *cluster) printLogs() {
	for name, p := range c.procs {
		b, err := os.ReadFile(p.log)
		if err != nil {
			continue
		}
		lines := bytes.Split(b, []byte("\n"))
		c.logf("--- %s\n%s", name, bytes.Join(lines[max(0, len(lines)-40):], []byte("\n")))
	}
}

// await retries ok until it gives nil; the last error is returned when
// patience is over.
func (c *cluster) await(what string, ok func() error) error {
	deadline := time.Now().Add(patience)
	for wait := 2 * time.Millisecond; ; wait = min(wait*2, 250*time.Millisecond) {
		err := ok()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: %w", what, err)
		}
		time.Sleep(wait)
	}
}

// awaitLog waits until a process has logged text.
func (c *cluster) awaitLog(name, text string) error {
	return c.await(name+"'s log", func() error {
		b, err := os.ReadFile(c.path(name + ".log"))
		if err == nil && !bytes.Contains(b, []byte(text)) {
			err = fmt.Errorf("no %q", text)
		}
		return err
	})
}

// judge waits until rsync finds nothing to do from a to each of the nodes,
// all of them if none is named.
func (c *cluster) judge(opts []string, nodes ...string) error {
	if len(nodes) == 0 {
		nodes = c.nodes
	}
	for _, name := range nodes {
		err := c.await("judge of "+name, func() error { return c.compare(name, opts...) })
		if err != nil {
			return err
		}
	}
	return nil
}

// compare asks rsync once.
func (c *cluster) compare(node string, opts ...string) error {
	args := append([]string{"-anic", "--delete", "--exclude=/.treecast"}, opts...)
	cmd := exec.Command("rsync", append(args, c.path("a")+"/", c.path(node)+"/")...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	all, err := cmd.CombinedOutput()
	var out []byte
	for line := range bytes.Lines(all) {
		if !bytes.HasPrefix(line, []byte("skipping non-regular file")) {
			out = append(out, line...)
		}
	}
	if len(out) > 4000 {
		out = append(out[:4000], "..."...)
	}
	if err != nil || len(out) > 0 {
		return fmt.Errorf("rsync would change:\n%s%w", out, errors.Join(err, errDiffers))
	}
	return nil
}

var errDiffers = errors.New("the trees differ")

// write makes a file in the source.
func (c *cluster) write(t *testing.T, name string, body []byte) {
	t.Helper()
	file := c.path("a", name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, body, 0o644); err != nil {
		t.Fatal(err)
	}
}

// awaitFile waits until a node's file has the wanted bytes; nil: until it is
// absent.
func (c *cluster) awaitFile(node, name string, want []byte) error {
	return c.await(node+"/"+name, func() error {
		got, err := os.ReadFile(c.path(node, name))
		switch {
		case want == nil && errors.Is(err, fs.ErrNotExist):
			return nil
		case want == nil:
			return errors.Join(err, errDiffers)
		case err != nil:
			return err
		case !bytes.Equal(got, want):
			return fmt.Errorf("%d bytes, %d wanted: %w", len(got), len(want), errDiffers)
		}
		return nil
	})
}
