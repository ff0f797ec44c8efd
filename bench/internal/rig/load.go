package rig

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

// A Load makes changes that are the same for all that is measured with them.
type Load struct {
	Source string
	// Carry makes a change, and returns how long it took until all nodes had it.
	Carry func(ctx context.Context, c Change) (time.Duration, error)
}

const singles = "single" // the directory of single files

// PrepareSingles makes the directory of single files, and returns when it is
// everywhere, and its watch with it.
func (l Load) PrepareSingles(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(l.Source, singles), 0o755); err != nil {
		return err
	}
	_, err := l.Carry(ctx, Change{Present: []string{singles}, Apply: func(context.Context) error { return nil }})
	return err
}

// Singles writes n new files of 4 KiB, one after the other, each a while after
// the one before has arrived, or as many as there are in a time. It returns how
// long each took.
func (l Load) Singles(ctx context.Context, n int, most time.Duration) (all []time.Duration, err error) {
	const pause = 100 * time.Millisecond
	body := make([]byte, 4<<10)
	text := Content("text", 5, int64(len(body)*n))
	for start := time.Now(); len(all) < n && time.Since(start) < most; {
		if _, err := io.ReadFull(text, body); err != nil {
			return nil, err
		}
		name := filepath.Join(singles, fmt.Sprintf("f%d.html", len(all)))
		took, err := l.Carry(ctx, Change{Present: []string{name}, Apply: func(context.Context) error {
			return os.WriteFile(filepath.Join(l.Source, name), body, 0o644)
		}})
		if err != nil {
			return nil, err
		}
		all = append(all, took)
		if err := Sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Writers is how many write at once.
const Writers = 32

// Writers is a change by all writers at once: n new files of each, in a
// directory of its own.
func (l Load) Writers(n int) (Change, error) {
	body, err := io.ReadAll(Content("text", 6, 4<<10))
	return Change{Present: []string{"writers"}, Apply: func(context.Context) error {
		var g errgroup.Group
		for i := range Writers {
			g.Go(func() error {
				dir := filepath.Join(l.Source, "writers", fmt.Sprint(i))
				err := os.MkdirAll(dir, 0o755)
				for j := 0; j < n && err == nil; j++ {
					err = os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d.html", j)), body, 0o644)
				}
				return err
			})
		}
		return g.Wait()
	}}, err
}

// A Log is a file that is appended to all the time, as a program does to its
// log.
type Log struct {
	load Load
	line []byte
}

const logName = "log.txt"

// StartLog makes the file, with one line.
func (l Load) StartLog() (Log, error) {
	line, err := io.ReadAll(Content("text", 7, 120))
	if err != nil {
		return Log{}, err
	}
	return Log{l, line}, os.WriteFile(filepath.Join(l.Source, logName), line, 0o644)
}

// Append adds 120 bytes every 10 ms for a time, and returns how often, and how
// long the last of them took to arrive.
func (g Log) Append(ctx context.Context, length time.Duration) (appends int, took time.Duration, err error) {
	const pause = 10 * time.Millisecond
	tree := Trees{Source: g.load.Source}
	for start := time.Now(); time.Since(start) < length; appends++ {
		if err := tree.Append(logName, g.line); err != nil {
			return 0, 0, err
		}
		if err := Sleep(ctx, pause); err != nil {
			return 0, 0, err
		}
	}
	took, err = g.load.Carry(ctx, Change{Present: []string{logName}, Apply: func(context.Context) error { return tree.Append(logName, g.line) }})
	return appends + 1, took, err
}

// Rewrite is a change of files, in place: the same content but for its
// beginning, and a byte or more longer, for the time alone does not tell rsync.
func (l Load) Rewrite(names []string, mark string) (Change, error) {
	bodies := make([][]byte, len(names))
	for i, name := range names {
		old, err := os.ReadFile(filepath.Join(l.Source, name))
		if err != nil {
			return Change{}, err
		}
		bodies[i] = append([]byte(mark), old...)
	}
	return Change{Present: names, Apply: func(context.Context) error {
		for i, name := range names {
			if err := os.WriteFile(filepath.Join(l.Source, name), bodies[i], 0); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}
