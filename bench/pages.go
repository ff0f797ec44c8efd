package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"treecast/bench/internal/rig"
)

// Pages are new files of 4 KiB that are written one after the other, whether those
// before have arrived or not: of a system that stands still for a second ten are
// late, not one.
type pages struct {
	q     *sequence
	nodes []string // that they are looked for at
	dir   string   // in the source
	text  io.Reader

	written int
	looks   int
	open    []*page // those that some node was not seen to have, in order
	took    []time.Duration
}

// pagePause is between two pages.
const pagePause = 100 * time.Millisecond

// A page is one that is on its way.
type page struct {
	rig.Wanted
	since   time.Time // it was due to be written: a writer that has to wait for a disk waits for us
	lacking []string  // nodes
}

// during runs something, and has pages written until that has ended, one at
// least. It returns how long each took until all nodes had it.
func (q *sequence) during(ctx context.Context, nodes []string, dir string, run func(context.Context) error) ([]time.Duration, error) {
	p := &pages{q: q, nodes: nodes, dir: dir, text: rig.Content("text", 8, 1<<40)}
	g, ctx := errgroup.WithContext(ctx)
	ended := make(chan struct{})
	g.Go(func() error {
		defer close(ended)
		return run(ctx)
	})
	g.Go(func() error { return p.run(ctx, ended) })
	err := g.Wait()
	return p.took, err
}

func (p *pages) run(ctx context.Context, ended <-chan struct{}) error {
	for next := time.Now(); ended != nil || len(p.open) > 0; {
		for ; ended != nil && !time.Now().Before(next); next = next.Add(pagePause) {
			if err := p.write(ctx, next); err != nil {
				return err
			}
		}
		p.look()
		if len(p.open) > 0 && time.Since(p.open[0].since) > p.q.Patience {
			return fmt.Errorf("%s: %w", p.open[0].Path, rig.ErrLate)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ended:
			ended = nil
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// write writes a page, and has the system carry it if that does not happen by
// itself.
func (p *pages) write(ctx context.Context, since time.Time) error {
	body := make([]byte, 4<<10)
	if _, err := io.ReadFull(p.text, body); err != nil {
		return err
	}
	path := filepath.Join(p.dir, fmt.Sprintf("p%d.html", p.written))
	if err := os.WriteFile(filepath.Join(p.q.trees.Source, path), body, 0o644); err != nil {
		return err
	}
	all, err := rig.Everything(p.q.trees.Source, path)
	if err != nil {
		return err
	}
	p.written++
	p.open = append(p.open, &page{Wanted: all[0], since: since, lacking: slices.Clone(p.nodes)})
	return p.q.system.carry(ctx, rig.Change{Present: []string{path}})
}

// look crosses off what is there. Pages that are late by a second are looked at
// every 32nd time only: many of them would cost what the system needs.
func (p *pages) look() {
	p.looks++
	p.open = slices.DeleteFunc(p.open, func(one *page) bool {
		if time.Since(one.since) > time.Second && p.looks%32 != 0 {
			return false
		}
		if one.lacking = slices.DeleteFunc(one.lacking, one.At); len(one.lacking) > 0 {
			return false
		}
		p.took = append(p.took, time.Since(one.since))
		return true
	})
}

// room makes a directory, and waits until it is at the nodes and the system at
// rest: whatever watches directories does so then.
func (q *sequence) room(ctx context.Context, nodes []string, dir string) error {
	if err := os.MkdirAll(filepath.Join(q.trees.Source, dir), 0o755); err != nil {
		return err
	}
	if _, err := q.carryTo(ctx, nodes, rig.Change{Present: []string{dir}, Apply: func(context.Context) error { return nil }}); err != nil {
		return err
	}
	_, err := q.quiet(ctx)
	return err
}

// addPages says how long pages took. when is empty, or tells them from others of
// the same work.
func (q *sequence) addPages(work, when string, took []time.Duration) {
	q.add(work, "p50"+when, rig.Median(took).Seconds())
	q.add(work, "p99"+when, rig.Quantile(took, 0.99).Seconds())
	q.add(work, "max"+when, slices.Max(took).Seconds())
	q.add(work, "changes"+when, float64(len(took)))
}

const upload = "upload.bin"

// upload moves a large file into the tree, and has pages written until all nodes
// have it.
func (q *sequence) upload(ctx context.Context) error {
	put, err := q.trees.Replace(upload, func(f *os.File) error {
		_, err := io.Copy(f, rig.Content("random", 9, int64(q.Upload)))
		return err
	})
	if err != nil {
		return err
	}
	if err := q.room(ctx, q.trees.Nodes, "pages"); err != nil {
		return err
	}
	if err := rig.Flush(q.trees.Dir); err != nil {
		return err
	}
	before, err := q.spent()
	if err != nil {
		return err
	}
	var large time.Duration
	took, err := q.during(ctx, q.trees.Nodes, "pages", func(ctx context.Context) (err error) {
		large, err = q.carry(ctx, rig.Change{Present: []string{upload}, Apply: func(context.Context) error { return put() }})
		return err
	})
	if err != nil {
		return err
	}
	q.add("upload", "seconds", large.Seconds())
	q.addPages("upload", "", took)
	if err := q.close(ctx, "upload", before, 1); err != nil {
		return err
	}
	_, err = q.carry(ctx, rig.Change{Absent: []string{upload}, Apply: func(context.Context) error {
		return os.Remove(filepath.Join(q.trees.Source, upload)) // the judges to come need not read it
	}})
	return err
}

// behind stops a node until it lacks a large directory. Pages are written for the
// others: while it is away, and from its start until it has that directory.
func (q *sequence) behind(ctx context.Context) error {
	last := len(q.trees.Nodes) - 1
	if q.nodes[last] == nil || last == 0 {
		return nil // nothing runs there, or there is no other
	}
	others := q.trees.Nodes[:last]
	q.nodes[last].Stop()
	const missed = "missed"
	from := filepath.Join(q.trees.Beside, missed)
	if err := generate(from, 10, q.Behind, int64(q.Behind)<<11); err != nil {
		return err
	}
	if _, err := q.carryTo(ctx, others, rig.Change{Present: []string{missed}, Apply: func(context.Context) error {
		return os.Rename(from, filepath.Join(q.trees.Source, missed))
	}}); err != nil {
		return fmt.Errorf("at the other nodes: %w", err)
	}
	all, err := rig.Everything(q.trees.Source, missed)
	if err != nil {
		return err
	}
	if err := q.room(ctx, others, "before"); err != nil {
		return err
	}
	calm, err := q.during(ctx, others, "before", func(ctx context.Context) error { return rig.Sleep(ctx, q.Rest) })
	if err != nil {
		return err
	}
	q.addPages("behind", " before", calm)

	if err := q.room(ctx, others, "meanwhile"); err != nil {
		return err
	}
	before, err := q.spent()
	if err != nil {
		return err
	}
	var back time.Duration
	took, err := q.during(ctx, others, "meanwhile", func(during context.Context) (err error) {
		start := time.Now()
		if q.nodes[last], err = q.system.startNode(ctx, last); err != nil { // it stays
			return err
		}
		during, cancel := context.WithDeadlineCause(during, start.Add(q.Patience), rig.ErrLate)
		defer cancel()
		err = rig.Await(during, q.trees.Nodes[last:], all)
		back = time.Since(start)
		return err
	})
	if err != nil {
		return err
	}
	q.add("behind", "seconds", back.Seconds())
	q.addPages("behind", " meanwhile", took)
	return q.close(ctx, "behind", before, 1)
}
