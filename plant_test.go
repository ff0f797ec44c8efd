package treecast_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"treecast/internal/powercut"
)

// A plant is a cluster whose disks can be cut: of node b, that has its tree and
// its state, beside it, on one disk; of node c, whose tree is a disk, with the
// state in it; and of the broker.
type plant struct {
	*cluster
	t         *testing.T
	rand      *rand.Rand
	started   time.Time
	disks     map[string]*powercut.Disk
	witnesses map[string]*witness
	load      *load
	probe     *probe
	waited    int            // files that were waited for
	forgets   bool           // the broker acknowledges what it has not synced
	done      map[string]int // strikes and what came of them
}

// newPlant returns a plant at work, with equal trees. It is kept where it is if
// the test fails.
func newPlant(t *testing.T, seed uint64) *plant {
	t.Helper()
	dir, err := os.MkdirTemp("", "treecast-power-")
	if err != nil {
		t.Fatal(err)
	}
	c, err := newCluster(dir, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	p := &plant{cluster: c, t: t, rand: rand.New(rand.NewPCG(seed, 0)), started: time.Now(),
		disks: make(map[string]*powercut.Disk), witnesses: make(map[string]*witness), done: make(map[string]int)}
	t.Cleanup(p.clear)
	for _, d := range []struct {
		name, at string
		size     int64
	}{{"b", "disk-b", 512 << 20}, {"c", "c", 512 << 20}, {"broker", "store", 2 << 30}} {
		disk, err := powercut.New(c.path(d.name+".img"), c.path(d.at), d.size)
		if err != nil {
			if os.Getenv("CI") == "true" || os.Getenv("TREECAST_TORTURE") != "" {
				t.Fatal(err) // a skipped test proves nothing
			}
			t.Skip(err)
		}
		p.disks[d.name] = disk
	}
	c.must(t, os.Mkdir(c.path("disk-b", "html"), 0o755))
	c.must(t, os.Symlink("disk-b/html", c.path("b")))
	for _, name := range []string{"b", "c"} {
		p.witnesses[name] = &witness{root: c.path(name)}
	}
	// What stays is the larger part, so that no guard has a cause.
	for i := range loadFiles * 2 {
		c.write(t, fmt.Sprintf("stays/d%d/f%d", i%20, i), signed(fmt.Append(nil, i), "-"))
	}
	c.must(t, os.MkdirAll(c.path("a", "live", "d", "e"), 0o755))
	c.must(t, os.Mkdir(c.path("a", "waited"), 0o755))
	p.load = &load{root: c.path("a", "live"), rand: rand.New(rand.NewPCG(seed, 1)), ops: make(map[string]int)}
	for _, name := range []string{"broker", "publisher", "b", "c"} {
		c.must(t, p.begin(name))
	}
	c.must(t, c.judge(nil))
	for i := range loadFiles * 2 {
		for _, w := range p.witnesses {
			w.keep(fmt.Sprintf("stays/d%d/f%d", i%20, i))
		}
	}
	p.probe, err = newProbe(t.Context(), c.url)
	c.must(t, err)
	return p
}

// clear ends the plant.
func (p *plant) clear() {
	if p.probe != nil {
		p.probe.conn.Close()
	}
	p.stopAll()
	for _, d := range p.disks {
		if err := d.Detach(); err != nil {
			p.t.Error(err)
		}
	}
	if !p.t.Failed() {
		p.must(p.t, os.RemoveAll(p.dir))
		return
	}
	p.printLogs()
	p.t.Logf("kept in %s: the logs, and *.img as the disks were (mount -o loop)", p.dir)
}

func (p *plant) say(format string, args ...any) {
	p.t.Logf("%8s "+format, append([]any{time.Since(p.started).Round(10 * time.Millisecond)}, args...)...)
}

// begin starts one of the processes.
func (p *plant) begin(name string) error {
	switch name {
	case "broker":
		return p.broker()
	case "publisher":
		return p.publisher("--gc-grace", "10s")
	}
	return p.node(name, "--trash-keep", "10s")
}

// all are the processes, in no order that matters.
var all = []string{"broker", "publisher", "b", "c"}

// some returns one or more of names.
func (p *plant) some(names ...string) []string {
	names = slices.Clone(names)
	p.rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	return names[:1+p.rand.IntN(len(names))]
}

// alive returns an error if a process has ended by itself.
func (p *plant) alive() error {
	for _, name := range all {
		proc, err := p.proc(name)
		if err != nil {
			return err
		}
		if proc.ended() {
			return fmt.Errorf("%s has ended by itself: %v", name, proc.cmd.ProcessState)
		}
	}
	return nil
}

// kill ends processes with SIGKILL. If cut is not nil their disks are cut
// before, and mounted again afterwards; and what was waited for is looked for.
func (p *plant) kill(names []string, cut func(*powercut.Disk) error) error {
	if cut != nil {
		for _, name := range names {
			if w := p.witnesses[name]; w != nil {
				w.leave()
				defer w.enter()
			}
		}
		for _, name := range names {
			if d := p.disks[name]; d != nil {
				if err := cut(d); err != nil {
					return err
				}
			}
		}
	}
	if p.rand.IntN(2) == 0 {
		time.Sleep(time.Duration(p.rand.IntN(500)) * time.Millisecond)
	}
	for _, name := range names {
		if err := p.stop(name, syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
	}
	if cut == nil {
		return nil
	}
	for _, name := range names {
		if d := p.disks[name]; d != nil {
			if err := d.Restore(); err != nil {
				return err
			}
		}
		if w := p.witnesses[name]; w != nil {
			if err := w.look(func() bool { return false }); err != nil {
				return fmt.Errorf("%s, before it is started: %w", name, err)
			}
		}
	}
	return nil
}

// beginAll starts processes again. Unless it was forgetful, the broker must have
// what it acknowledged.
func (p *plant) beginAll(ctx context.Context, names []string) error {
	for _, name := range all {
		if !slices.Contains(names, name) {
			continue
		}
		if err := p.begin(name); err != nil {
			return err
		}
	}
	if !slices.Contains(names, "broker") || p.forgets {
		return nil
	}
	return p.probe.check(ctx)
}

// waitFor has a new file waited for: from now on it is on the nodes for good.
func (p *plant) waitFor() error {
	p.waited++
	name := filepath.Join("waited", fmt.Sprint(p.waited))
	if err := os.WriteFile(p.path("a", name), signed(fmt.Append(nil, p.waited), "-"), 0o644); err != nil {
		return err
	}
	// A publisher that was just started may be silent for longer than it waits.
	if err := p.await(name, func() error { return p.wait() }); err != nil {
		return err
	}
	for _, w := range p.witnesses {
		w.keep(name)
	}
	return nil
}

// equal waits until the trees are, while the source is quiet.
func (p *plant) equal() error {
	p.load.mu.Lock()
	defer p.load.mu.Unlock()
	p.done["equal trees"]++
	return p.judge(nil)
}

// report says what was done.
func (p *plant) report() {
	read := int64(0)
	for _, w := range p.witnesses {
		read += w.files.Load()
	}
	for _, of := range []map[string]int{p.done, p.load.ops} {
		for _, what := range slices.Sorted(maps.Keys(of)) {
			p.t.Logf("%6d %s", of[what], what)
		}
	}
	p.say("%d files were waited for, %d read on nodes, %d messages of the probe acknowledged", p.waited, read, p.probe.total)
}
