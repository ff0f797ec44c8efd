package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"treecast/bench/internal/rig"
)

// A system carries a source tree to nodes. Its methods are called by one
// goroutine, start first.
type system interface {
	// start runs what must run before the first change.
	start(ctx context.Context) error
	// carry takes a change that was made at the source to all nodes, or does
	// nothing if that happens by itself.
	carry(ctx context.Context, s step) error
	// rest returns when nothing of a step that has arrived is on its way any
	// more, with what was moved since start.
	rest(ctx context.Context) (traffic, error)
	// peaks returns how much memory each process has had at most.
	peaks() []peak
}

// A traffic is what a system has moved.
type traffic struct {
	bytes   count // through the broker, or the daemons' sockets
	objects count // messages in the bucket of chunks
}

// since returns what was moved after was was taken.
func (t traffic) since(was traffic) traffic {
	return traffic{t.bytes.less(was.bytes), t.objects.less(was.objects)}
}

// A peak is the most memory that one of the processes with a name had.
type peak struct {
	name      string
	sizeBytes int64
}

// newSystem and notes have the systems by their names; notes say how each is
// run, and what is counted.
func newSystem(name string, d *rig.Daemons, t rig.Trees, bin string) system {
	switch name {
	case "treecast":
		return &treecast{rig.Treecast{Daemons: d, Trees: t, Bin: bin}}
	case "rsync":
		return &rsync{daemons: d, trees: t}
	}
	return &copies{trees: t}
}

var notes = map[string]func() []string{"treecast": treecastNotes, "rsync": rsyncNotes, "copy": copyNotes}

// A sequence is all steps of one system with one kind of content, once.
type sequence struct {
	*bench
	round        int
	kind, system string
	rows         []measurement
}

// run adds what was measured to r once all of it is known to be right.
func (q *sequence) run(ctx context.Context, r *results) (err error) {
	parent := ctx
	ctx, fail := context.WithCancelCause(parent)
	defer fail(nil)
	t, err := rig.NewTrees(filepath.Join(q.work, strings.Join([]string{q.kind, q.system}, "-")), q.Nodes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rig.RemoveAll(t.Dir)) }()

	d := &rig.Daemons{Dir: t.Dir, Fail: fail}
	defer func() {
		if err != nil && parent.Err() == nil {
			d.PrintLogs(q.stderr)
		}
		d.Stop()
	}()
	sys := newSystem(q.system, d, t, q.bin)
	if err := sys.start(ctx); err != nil {
		return fmt.Errorf("start: %w", why(ctx, err))
	}
	for _, s := range append([]step{marker}, steps...) {
		m, err := q.measure(ctx, sys, t, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if s.name != marker.name {
			q.rows = append(q.rows, m)
		}
	}
	peaks := sys.peaks()
	if q.judged {
		if err := rig.Judge(ctx, t, 10*time.Second); err != nil {
			return err
		}
	}
	r.add(q.rows, q.system, peaks)
	return nil
}

// measure makes one change and waits until all nodes have it.
func (q *sequence) measure(ctx context.Context, sys system, t rig.Trees, s step) (measurement, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, q.Patience, fmt.Errorf("not on all nodes after %v", q.Patience))
	defer cancel()
	change, err := s.prepare(tree{t, q.kind, int64(q.Size)})
	if err != nil {
		return measurement{}, err
	}
	if err := rig.Flush(t.Dir); err != nil {
		return measurement{}, err
	}
	before, err := sys.rest(ctx)
	if err != nil {
		return measurement{}, why(ctx, err)
	}

	start := time.Now()
	if err := change(); err != nil {
		return measurement{}, err
	}
	if err := sys.carry(ctx, s); err != nil {
		return measurement{}, why(ctx, err)
	}
	if err := await(ctx, t, s); err != nil {
		return measurement{}, err
	}
	elapsed := time.Since(start)

	after, err := sys.rest(ctx)
	if err != nil {
		return measurement{}, why(ctx, err)
	}
	if s.present != "" {
		if err := sameBytes(ctx, t, s.present); err != nil {
			return measurement{}, err
		}
	}
	return measurement{round: q.round, step: s.name, kind: q.kind, system: q.system, elapsed: elapsed, traffic: after.since(before)}, nil
}

// why returns the reason for err: that ctx was ended, if it was.
func why(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// await looks every millisecond, until every node has what s makes present and
// lacks what it makes absent.
func await(ctx context.Context, t rig.Trees, s step) error {
	var want fs.FileInfo
	if s.present != "" {
		var err error
		if want, err = os.Lstat(filepath.Join(t.Source, s.present)); err != nil {
			return err
		}
	}
	for _, node := range t.Nodes { // the last one to have it is waited for
		for !arrived(node, s, want) {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(time.Millisecond):
			}
		}
	}
	return nil
}

func arrived(node string, s step, want fs.FileInfo) bool {
	if s.absent != "" {
		if _, err := os.Lstat(filepath.Join(node, s.absent)); !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	if s.present == "" {
		return true
	}
	got, err := os.Lstat(filepath.Join(node, s.present))
	return err == nil && got.Size() == want.Size() && got.ModTime().Equal(want.ModTime())
}
