package treecast_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
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

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
