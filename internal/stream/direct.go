package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	directBatch = 1000
	directBytes = 4 << 20 // there is no flow control: the server sends this much at once
)

// directRequest asks for up to Batch messages from Seq on, or for the last
// message of each subject of Last (ADR-31).
type directRequest struct {
	Seq      uint64   `json:"seq,omitempty"`
	Next     string   `json:"next_by_subj,omitempty"`
	Last     []string `json:"multi_last,omitempty"`
	Batch    int      `json:"batch,omitempty"`
	MaxBytes int      `json:"max_bytes,omitempty"`
}

// A directReader reads stored messages in batches, without a consumer. It is
// written out because jetstreamext.GetBatch ends its loop without an error
// where an answer stops half-way, and a snapshot that is cut short looks like
// a tree where the rest was deleted.
type directReader struct {
	c       *Conn
	in      *inbox
	stream  string
	subject string
	upTo    uint64 // of the last answer to a request with Last: the end of the store that gave it, 0 if it did not say
	size    int64  // of the last answer, in bytes
}

func (c *Conn) openDirect(ctx context.Context, stream string) (*directReader, error) {
	subject := "DIRECT.GET." + stream
	in, err := c.openInbox(ctx, idleTimeout, exactly(apiPrefix+subject))
	if err != nil {
		return nil, err
	}
	return &directReader{c: c, in: in, stream: stream, subject: subject}, nil
}

func (r *directReader) close() { r.in.close() }

// readPaced is read at the pace of what is read in bulk; req.MaxBytes may become
// less.
func (r *directReader) readPaced(ctx context.Context, req directRequest, fn func(*Delivery) error) (next uint64, more bool, err error) {
	p := r.c.pace
	req.MaxBytes = p.most(req.MaxBytes)
	if err := p.wait(ctx, int64(req.MaxBytes)); err != nil {
		return req.Seq, false, err
	}
	next, more, err = r.read(req, fn)
	p.got(int64(req.MaxBytes), r.size)
	return next, more, err
}

// read makes one request and calls fn for each message of the answer. It
// returns the sequence after the last one (req.Seq if there was none) and
// whether the server had more. An answer is read to its end unless there is an
// error; then the reader is of no more use.
func (r *directReader) read(req directRequest, fn func(*Delivery) error) (next uint64, more bool, err error) {
	next, r.upTo, r.size = req.Seq, 0, 0
	if err := r.in.request(r.c, r.subject, req); err != nil {
		return next, false, err
	}
	for last := uint64(0); ; {
		msg, err := r.in.next()
		if errors.Is(err, nats.ErrNoResponders) {
			err = r.c.nobody(r.in.ctx, r.stream)
		}
		if err != nil {
			return next, false, err
		}
		r.size += int64(msg.Size())
		switch code, text := status(msg); code {
		case "":
		case "204":
			pending, err := strconv.ParseUint(msg.Header.Get("Nats-Num-Pending"), 10, 64)
			if err != nil {
				return next, false, fmt.Errorf("%w: end of a batch without its count: %q", ErrServer, text)
			}
			if upTo := msg.Header.Get("Nats-UpTo-Sequence"); upTo != "" {
				if r.upTo, err = strconv.ParseUint(upTo, 10, 64); err != nil {
					return next, false, fmt.Errorf("%w: end of a batch up to %q", ErrServer, upTo)
				}
			}
			return next, pending > 0, nil
		case "404":
			return next, false, nil
		default:
			return next, false, fmt.Errorf("%w: direct get: %s %s", ErrServer, code, text)
		}
		d, err := directDelivery(msg)
		if err != nil {
			return next, false, err
		}
		before, err := strconv.ParseUint(lastOf(msg.Header, "Nats-Last-Sequence"), 10, 64)
		if err != nil {
			return next, false, fmt.Errorf("%w: direct get: %w", ErrServer, errNotStored)
		}
		if before != last || d.Seq < next {
			return next, false, fmt.Errorf("%w: a gap in a batch: %d after %d", ErrUnavailable, d.Seq, last)
		}
		last, next = d.Seq, d.Seq+1
		if err := fn(d); err != nil {
			return next, false, err
		}
	}
}

var errNotStored = errors.New("not a stored message")

func directDelivery(msg *nats.Msg) (*Delivery, error) {
	seq, errSeq := strconv.ParseUint(lastOf(msg.Header, jetstream.SequenceHeader), 10, 64)
	at, errTime := time.Parse(time.RFC3339Nano, lastOf(msg.Header, jetstream.TimeStampHeaer))
	subject := lastOf(msg.Header, jetstream.SubjectHeader)
	if errSeq != nil || errTime != nil || subject == "" {
		return nil, fmt.Errorf("%w: direct get: %w", ErrServer, errNotStored)
	}
	d := newDelivery(msg)
	d.Seq, d.Time, d.Subject = seq, at, subject
	return d, nil
}

// lastOf returns the last value of a header: the server adds its own after
// those that the message was published with.
func lastOf(h nats.Header, key string) string {
	if values := h[key]; len(values) > 0 {
		return values[len(values)-1]
	}
	return ""
}

// leaderGet reads one message from the stream's leader, nil if there is none
// such. Slower than Direct Get, and never behind.
func (c *Conn) leaderGet(ctx context.Context, stream string, req map[string]any) (*Delivery, error) {
	var resp struct {
		Message *struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Header  []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	err := c.api(ctx, "STREAM.MSG.GET."+stream, req, &resp)
	if apiCode(err) == codeNoMessage {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m := resp.Message
	if m == nil {
		return nil, fmt.Errorf("%w: an answer without the message asked for", ErrServer)
	}
	msg := &nats.Msg{Subject: m.Subject, Data: m.Data}
	if len(m.Header) > 0 {
		if msg.Header, err = nats.DecodeHeadersMsg(m.Header); err != nil {
			return nil, fmt.Errorf("%w: headers of message %d: %w", ErrServer, m.Seq, err)
		}
	}
	d := newDelivery(msg)
	d.Seq, d.Time = m.Seq, m.Time
	return d, nil
}
