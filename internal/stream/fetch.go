package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"treecast/internal/events"
)

// Of what is fetched at most so many messages are asked for ahead, and as far as
// can be told from those before, no more bytes than those of a batch.
const (
	mostAsked     = 128
	presumedBytes = 256 << 10 // of a message, before the first is there
)

// Fetch calls fn with the whole messages of these sequences, in their order.
// Those that are superseded are left out. What is read ahead of fn, which may
// block, is about 4 MiB, and at most 128 messages.
//
// Each is a request of its own: the server counts what is left in the stream for
// each batch, path by path.
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
	f := &fetch{
		c: c, site: site, replicated: info.Replicas > 1, want: slices.Compact(seqs), fn: fn,
		got: make(map[uint64]*Delivery), meanBytes: presumedBytes,
	}
	return failed("fetch", site, f.run(ctx))
}

type fetch struct {
	c          *Conn
	site       events.Site
	replicated bool
	want       []uint64             // ascending, each once: those that fn has not had
	asked      int                  // of want
	got        map[uint64]*Delivery // answers of asked, nil: there is no such message
	meanBytes  int64                // of the messages that came
	fn         func(Delivery) error
}

func (f *fetch) run(ctx context.Context) error {
	subject := "DIRECT.GET." + streamName(f.site)
	in, err := f.c.openInbox(ctx, idleTimeout, exactly(apiPrefix+subject))
	if err != nil {
		return err
	}
	defer in.close()
	for len(f.want) > 0 {
		for f.asked < len(f.want) && (f.asked == 0 || f.asked < f.ahead()) {
			if err := f.c.pace.wait(ctx, 0); err != nil {
				return err
			}
			if err := in.requestAs(strconv.FormatUint(f.want[f.asked], 10), f.c, subject, directRequest{Seq: f.want[f.asked]}); err != nil {
				return err
			}
			f.asked++
		}
		if err := f.receive(in); err != nil {
			return err
		}
		if err := f.pass(ctx); err != nil {
			return err
		}
	}
	return nil
}

// ahead is how many messages to have asked for.
func (f *fetch) ahead() int {
	return int(min(int64(f.c.pace.most(directBytes))/f.meanBytes, mostAsked))
}

// receive takes one answer, of any of the messages that were asked for.
func (f *fetch) receive(in *inbox) error {
	msg, err := in.next()
	if errors.Is(err, nats.ErrNoResponders) {
		err = f.c.nobody(in.ctx, streamName(f.site))
	}
	if err != nil {
		return err
	}
	f.c.pace.got(0, int64(msg.Size()))
	seq, err := strconv.ParseUint(msg.Subject[strings.LastIndexByte(msg.Subject, '.')+1:], 10, 64)
	if err != nil {
		return fmt.Errorf("%w: direct get: answer on %q", ErrServer, msg.Subject)
	}
	switch code, text := status(msg); code {
	case "":
	case "404":
		f.got[seq] = nil
		return nil
	default:
		return fmt.Errorf("%w: direct get: %s %s", ErrServer, code, text)
	}
	d, err := directDelivery(msg)
	if err != nil {
		return err
	}
	f.meanBytes += (int64(msg.Size()) - f.meanBytes) / 8
	f.got[seq] = d
	return nil
}

// pass calls fn with what has come, as far as that is in order.
func (f *fetch) pass(ctx context.Context) error {
	for len(f.want) > 0 {
		seq := f.want[0]
		d, ok := f.got[seq]
		if !ok {
			return nil
		}
		delete(f.got, seq)
		f.want, f.asked = f.want[1:], f.asked-1
		if d == nil && f.replicated { // or else it came from a replica that lags
			var err error
			if d, err = f.c.leaderGet(ctx, streamName(f.site), map[string]any{"seq": seq}); err != nil {
				return err
			}
		}
		if d == nil {
			continue
		}
		if err := f.fn(*d); err != nil {
			return err
		}
	}
	return nil
}

// Entry returns the newest message of path, as the stream's leader has it; nil
// if there is none. Errors are those of [Conn.StreamInfo].
func (c *Conn) Entry(ctx context.Context, site events.Site, path events.Path) (*Delivery, error) {
	d, err := c.leaderGet(ctx, streamName(site), map[string]any{"last_by_subj": site.Subject(path)})
	return d, failed("read an entry", site, err)
}
