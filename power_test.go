package treecast_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"treecast/internal/powercut"
)

// TestTorturePower has the whole system under load, and kills its processes and
// cuts the power of its disks, at random, for TREECAST_TIME. TREECAST_SEED
// repeats its choices. Meanwhile and afterwards it looks for P1 (see witness), P2
// (what `publisher wait` said to be everywhere is there before the node is
// started again, and the broker has what it acknowledged) and P3 (rsync).
func TestTorturePower(t *testing.T) {
	torture(t, 8<<30)
	length := 30 * time.Minute
	if s := os.Getenv("TREECAST_TIME"); s != "" {
		if length = duration(s); length == 0 {
			t.Fatalf("TREECAST_TIME=%q", s)
		}
	}
	end := time.Now().Add(length)
	strikeAll(t, func(p *plant, _ int) strike {
		if time.Now().After(end) {
			return nil
		}
		return p.random
	})
}

// TestPowerCuts is its short version.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	strikeAll(t, func(p *plant, done int) strike {
		return []strike{
			func(ctx context.Context) error { return p.outage(ctx, []string{"b", "c"}, true) },
			func(ctx context.Context) error { return p.outage(ctx, all, false) },
			p.forgetful,
			nil,
		}[done]
	})
}

// A strike does one thing to a plant, and has it mended.
type strike func(context.Context) error

// strikeAll does what next gives to a plant under load, until that is nil.
func strikeAll(t *testing.T, next func(p *plant, done int) strike) {
	t.Helper()
	seed := number(t, "TREECAST_SEED", uint64(time.Now().UnixNano()))
	t.Logf("TREECAST_SEED=%d", seed)
	ctx, cancel := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	p := newPlant(t, seed)
	stop := make(chan struct{})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.load.run(stop) })
	g.Go(func() error { return p.probe.run(ctx, stop) })
	for name, w := range p.witnesses {
		g.Go(func() error {
			if err := w.run(stop); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	g.Go(func() (err error) {
		defer close(stop)
		for done := 0; err == nil && ctx.Err() == nil; done++ {
			do := next(p, done)
			if do == nil {
				break
			}
			if err = p.alive(); err == nil {
				err = do(ctx)
			}
			if err == nil && p.rand.IntN(3) > 0 { // otherwise the next comes while it is being mended
				err = p.equal()
			}
			if err != nil {
				err = fmt.Errorf("strike %d: %w", done+1, err)
			}
		}
		return errors.Join(err, ctx.Err())
	})
	err := g.Wait()
	if err == nil {
		err = p.equal()
	}
	p.report()
	if err != nil {
		t.Error(err)
	}
}

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
		if err != nil && (os.Getenv("CI") != "true" || os.Geteuid() != 0) {
			t.Skip(err)
		}
		c.must(t, err)
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

// random is any strike.
func (p *plant) random(ctx context.Context) error {
	pause(ctx, time.Duration(p.rand.IntN(1500))*time.Millisecond)
	switch n := p.rand.IntN(10); {
	case n < 4:
		names := p.some(all...)
		if p.rand.IntN(3) > 0 {
			names = names[:1]
		}
		return p.murder(ctx, names)
	case n < 9:
		names := p.some("broker", "b", "c")
		if p.rand.IntN(3) == 0 {
			names = append(names, "publisher")
		}
		return p.outage(ctx, names, p.rand.IntN(3) == 0)
	}
	return p.forgetful(ctx)
}

// murder kills processes, and starts them again after a while.
func (p *plant) murder(ctx context.Context, names []string) error {
	p.say("kill -9 of %s", names)
	for _, name := range names {
		p.done["kill -9 of "+name]++
	}
	if err := p.kill(names, nil); err != nil {
		return err
	}
	pause(ctx, time.Duration(p.rand.IntN(1500))*time.Millisecond)
	return p.beginAll(ctx, names)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
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

// outage cuts the power of processes, at times right after something was said
// to be everywhere, and if quiet is set then with nothing else on its way.
func (p *plant) outage(ctx context.Context, names []string, quiet bool) error {
	how := []powercut.How{powercut.Unwritten, powercut.Unwritten, powercut.Logged, powercut.Flushed}[p.rand.IntN(4)]
	if quiet {
		p.load.mu.Lock()
		defer func() {
			if quiet {
				p.load.mu.Unlock()
			}
		}()
	}
	if quiet || p.rand.IntN(2) == 0 {
		if err := p.waitFor(); err != nil {
			return err
		}
	}
	frozen := p.rand.IntN(2) == 0
	p.say("power cut of %s, %s, at once: %v, after a quiet wait: %v", names, how, frozen, quiet)
	for _, name := range names {
		p.done["power cut of "+name]++
	}
	if frozen {
		for _, name := range names {
			if err := p.signal(name, syscall.SIGSTOP); err != nil {
				return err
			}
		}
	} else { // an fsync that is under way while the kernel shuts a disk down may seem to work
		p.probe.mu.Lock()
	}
	err := p.kill(names, func(d *powercut.Disk) error { return d.Cut(how) })
	if !frozen {
		p.probe.mu.Unlock()
	}
	if err != nil {
		return err
	}
	if quiet { // what was on the nodes is there before anyone mends anything
		for _, name := range names {
			if p.witnesses[name] == nil {
				continue
			}
			if err := p.compare(name); err != nil {
				return fmt.Errorf("%s, before it is started: %w", name, err)
			}
		}
		quiet = false
		p.load.mu.Unlock()
	}
	pause(ctx, time.Duration(p.rand.IntN(1000))*time.Millisecond)
	return p.beginAll(ctx, names)
}

// forgetful cuts the power of a broker that does not sync what it acknowledges,
// as one that is not ours may be set up, so that nodes are ahead of the stream.
func (p *plant) forgetful(ctx context.Context) error {
	conf := p.path("forgetful.conf")
	if err := os.WriteFile(conf, []byte("jetstream { sync_interval: 10m }\n"), 0o644); err != nil {
		return err
	}
	if err := p.stop("broker", syscall.SIGTERM); err != nil {
		return err
	}
	p.forgets = true
	if err := p.broker("--config", conf); err != nil {
		return err
	}
	pause(ctx, time.Duration(p.rand.IntN(3000))*time.Millisecond)
	for range 1 + p.rand.IntN(3) {
		if err := p.waitFor(); err != nil {
			return err
		}
	}
	names := []string{"broker"}
	if p.rand.IntN(2) == 0 {
		names = append(names, p.some("publisher", "b", "c")...)
	}
	p.say("power cut of %s, the broker had not synced", names)
	p.done["power cut of a broker that had not synced"]++
	if err := p.kill(names, func(d *powercut.Disk) error { return d.Cut(powercut.Unwritten) }); err != nil {
		return err
	}
	late := p.rand.IntN(2) == 0 && slices.Contains(names, "publisher")
	names = slices.DeleteFunc(names, func(name string) bool { return name == "publisher" && late })
	if err := p.beginAll(ctx, names); err != nil {
		return err
	}
	if late {
		pause(ctx, 3*time.Second)
		if err := p.begin("publisher"); err != nil {
			return err
		}
	}
	p.forgets = false
	return p.probe.begin(ctx)
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
	if err := p.wait(); err != nil {
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
