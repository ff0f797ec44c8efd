package rig

import (
	"context"
	"errors"
	"time"
)

// A Change is one change at the source. Its paths are the topmost ones: what is
// below them changes with them.
type Change struct {
	Present []string // what it makes or alters
	Absent  []string // and what it takes away
	Known   []Wanted // what of that is known before, so that it is not looked up while the clock runs
	Apply   func(ctx context.Context) error
}

// ErrLate is the outcome of a change that has not come in time.
var ErrLate = errors.New("late")

// Carry makes a change at the source, and returns how long it took until all
// nodes had it. What Apply starts stays: only the waiting ends with patience,
// and then the error is ErrLate.
func Carry(ctx context.Context, source string, nodes []string, c Change, patience time.Duration) (time.Duration, error) {
	gone, err := Everything(source, c.Absent...)
	if err != nil {
		return 0, err
	}
	for i := range gone {
		gone[i] = Wanted{Path: gone[i].Path, Gone: true}
	}
	start := time.Now()
	if err := c.Apply(ctx); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithDeadlineCause(ctx, start.Add(patience), ErrLate)
	defer cancel()
	all, err := Everything(source, c.Present...)
	if err != nil {
		return 0, err
	}
	all = append(append(all, gone...), c.Known...)
	err = Await(ctx, nodes, all)
	return time.Since(start), err
}

// Sleep returns after a time, or with the reason why ctx has ended.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
