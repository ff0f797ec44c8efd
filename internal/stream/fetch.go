package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"treecast/internal/events"
)

const (
	mostAsked   = 256     // messages at once
	headerBytes = 1 << 10 // of a message, about
)

// A Wanted is a message to fetch, and the most bytes that its payload may have.
type Wanted struct {
	Seq   uint64
	Bytes int64
}

// Fetch calls fn with the whole messages of these sequences, in their order.
// Those that are superseded are left out. At most 4 MiB and one message are read
// ahead of fn, which may block.
//
// Each is a request of its own: the server counts what is left in the stream for
// each batch, path by path.
//
// Errors are *[OpError] with fn's own, [ErrNoStream], [ErrDenied],
// [ErrDisconnected], [ErrUnavailable] or ctx's own.
func (c *Conn) Fetch(ctx context.Context, site events.Site, wanted []Wanted, fn func(Delivery) error) error {
	if len(wanted) == 0 {
		return nil
	}
	info, err := c.StreamInfo(ctx, site)
	if err != nil {
		return err
	}
	wanted = slices.SortedFunc(slices.Values(wanted), func(a, b Wanted) int { return cmp.Compare(a.Seq, b.Seq) })
	wanted = slices.CompactFunc(wanted, func(a, b Wanted) bool { return a.Seq == b.Seq })
	f := &fetch{c: c, site: site, replicated: info.Replicas > 1, want: wanted, fn: fn, got: make(map[uint64]*Delivery)}
	return failed("fetch", site, f.run(ctx))
}

type fetch struct {
	c          *Conn
	site       events.Site
	replicated bool
	want       []Wanted             // ascending, each once: those that fn has not had
	asked      int                  // of want
	ahead      int64                // bytes that asked may have
	got        map[uint64]*Delivery // answers of asked, nil: there is no such message
	fn         func(Delivery) error
}

func (f *fetch) run(ctx context.Context) error {
	subject := "DIRECT.GET." + streamName(f.site)
	in, err := f.c.openInbox(ctx, idleTimeout, exactly(apiPrefix+subject))
	if err != nil {
		return err
	}
	defer in.close()
	most := int64(f.c.pace.most(directBytes))
	for len(f.want) > 0 {
		for f.asked < min(len(f.want), mostAsked) && (f.asked == 0 || f.ahead+f.want[f.asked].bytes() <= most) {
			w := f.want[f.asked]
			if err := f.c.pace.wait(ctx, w.bytes()); err != nil {
				return err
			}
			if err := in.requestAs(strconv.FormatUint(w.Seq, 10), f.c, subject, directRequest{Seq: w.Seq}); err != nil {
				return err
			}
			f.asked, f.ahead = f.asked+1, f.ahead+w.bytes()
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

func (w Wanted) bytes() int64 { return w.Bytes + headerBytes }

// receive takes one answer, of any of the messages that were asked for.
func (f *fetch) receive(in *inbox) error {
	msg, err := in.next()
	if errors.Is(err, nats.ErrNoResponders) {
		err = f.c.nobody(in.ctx, streamName(f.site))
	}
	if err != nil {
		return err
	}
	seq, err := strconv.ParseUint(msg.Subject[strings.LastIndexByte(msg.Subject, '.')+1:], 10, 64)
	i, asked := slices.BinarySearchFunc(f.want[:f.asked], seq, func(w Wanted, seq uint64) int { return cmp.Compare(w.Seq, seq) })
	if err != nil || !asked {
		return nil // a second answer
	}
	f.c.pace.got(f.want[i].bytes(), int64(msg.Size()))
	switch code, text := status(msg); code {
	case "":
	case "404":
		f.got[seq] = nil
		return nil
	default:
		return fmt.Errorf("%w: direct get: %s %s", ErrServer, code, text)
	}
	d, err := directDelivery(msg)
	if err == nil && d.Seq != seq {
		err = fmt.Errorf("%w: direct get: message %d for %d", ErrServer, d.Seq, seq)
	}
	f.got[seq] = d
	return err
}

// pass calls fn with what has come, as far as that is in order.
func (f *fetch) pass(ctx context.Context) error {
	for len(f.want) > 0 {
		seq := f.want[0].Seq
		d, ok := f.got[seq]
		if !ok {
			return nil
		}
		delete(f.got, seq)
		f.want, f.asked, f.ahead = f.want[1:], f.asked-1, f.ahead-f.want[0].bytes()
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
