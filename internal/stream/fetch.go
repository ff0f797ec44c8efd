package stream

import (
	"context"
	"slices"

	"treecast/internal/events"
)

// fetchGap is how far apart two wanted sequences may be to be asked for in one
// request: what lies between is transferred too.
const fetchGap = 16

// Fetch calls fn with the whole messages of these sequences, in their order.
// Those that are superseded are left out. At most 4 MiB and one message are
// read ahead of fn, which may block.
//
// Errors are *[OpError] with fn's own, [ErrNoStream], [ErrDenied],
// [ErrDisconnected], [ErrUnavailable] or ctx's own.
func (c *Conn) Fetch(ctx context.Context, site events.Site, seqs []uint64, fn func(Delivery) error) error {
	if len(seqs) == 0 {
		return nil
	}
	info, err := c.StreamInfo(ctx, site)
	if err != nil {
		return err
	}
	seqs = slices.Clone(seqs)
	slices.Sort(seqs)
	f := &fetch{c: c, site: site, replicated: info.Replicas > 1, want: slices.Compact(seqs), fn: fn}
	return failed("fetch", site, f.run(ctx))
}

type fetch struct {
	c          *Conn
	site       events.Site
	replicated bool
	want       []uint64 // ascending, each once
	fn         func(Delivery) error
}

func (f *fetch) run(ctx context.Context) error {
	r, err := f.c.openDirect(ctx, streamName(f.site))
	if err != nil {
		return err
	}
	defer r.close()
	for len(f.want) > 0 {
		run := 1
		for run < len(f.want) && run < directBatch && f.want[run]-f.want[run-1] <= fetchGap {
			run++
		}
		next, more, err := r.readPaced(ctx, directRequest{Seq: f.want[0], Batch: run, MaxBytes: directBytes},
			func(d *Delivery) error { return f.take(ctx, d) })
		if err != nil {
			return err
		}
		// What is older than the last one received is superseded; if there is
		// nothing more, so is the rest.
		for len(f.want) > 0 && (f.want[0] < next || !more) {
			if err := f.missing(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// take passes on d if it is wanted.
func (f *fetch) take(ctx context.Context, d *Delivery) error {
	for len(f.want) > 0 && f.want[0] < d.Seq {
		if err := f.missing(ctx); err != nil {
			return err
		}
	}
	if len(f.want) == 0 || f.want[0] != d.Seq {
		return nil
	}
	f.want = f.want[1:]
	return f.fn(*d)
}

// missing deals with a sequence that was not in an answer: superseded, unless
// it came from a replica that lags behind the leader.
func (f *fetch) missing(ctx context.Context) error {
	seq := f.want[0]
	f.want = f.want[1:]
	if !f.replicated {
		return nil
	}
	d, err := f.c.leaderGet(ctx, streamName(f.site), map[string]any{"seq": seq})
	if err != nil || d == nil {
		return err
	}
	return f.fn(*d)
}

// Entry returns the newest message of path, as the stream's leader has it; nil
// if there is none. Errors are those of [Conn.StreamInfo].
func (c *Conn) Entry(ctx context.Context, site events.Site, path events.Path) (*Delivery, error) {
	d, err := c.leaderGet(ctx, streamName(site), map[string]any{"last_by_subj": site.Subject(path)})
	return d, failed("read an entry", site, err)
}
