package stream

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"treecast/internal/events"
)

// A Delivery is one stored message. Header is the entry as its header has it,
// not decoded, empty for a message that is none (the lease's). Payload may be
// kept, not changed.
//
// Pending counts the messages that the consumer still has to deliver after
// this one. While paths are rewritten it is too small for moments, even 0: good
// for a progress bar, no proof of having everything. Pending and Redelivered are zero where no consumer delivered it.
type Delivery struct {
	Seq, Pending    uint64
	Redelivered     bool
	Time            time.Time // when the server stored it
	Arrived         time.Time // when it came to this process
	Subject, Header string
	Payload         []byte

	nc      *nats.Conn
	reply   string // empty: nothing to acknowledge
	deleted bool   // a key of a bucket was deleted
	object  string // whose data it is, in the bucket of large bodies
}

func newDelivery(msg *nats.Msg) *Delivery {
	return &Delivery{
		Arrived: time.Now(),
		Subject: msg.Subject,
		Header:  msg.Header.Get(events.Header),
		Payload: msg.Data,
		deleted: msg.Header.Get("KV-Operation") != "",
		object:  msg.Header.Get(objectHeader),
	}
}

// consumed returns msg as a consumer delivered it.
func consumed(nc *nats.Conn, msg *nats.Msg) (*Delivery, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return nil, err
	}
	d := newDelivery(msg)
	d.Seq, d.Pending = meta.Sequence.Stream, meta.NumPending
	d.Redelivered = meta.NumDelivered > 1
	d.Time = meta.Timestamp
	d.nc, d.reply = nc, msg.Reply
	return d, nil
}

var (
	ackBody        = []byte("+ACK")
	inProgressBody = []byte("+WPI")
)

// Ack tells the server that the message need not come again. It does not wait:
// one that gets lost means that the message comes again. It may be called from
// any goroutine, more than once, and after Run has returned. Where no consumer
// delivered the message it does nothing. Without a connection the error is
// [ErrDisconnected].
func (d *Delivery) Ack() error { return d.respond(ackBody) }

// InProgress gives the message another AckWait.
func (d *Delivery) InProgress() error { return d.respond(inProgressBody) }

func (d *Delivery) respond(body []byte) error {
	if d.reply == "" {
		return nil
	}
	return translate(context.Background(), d.nc.Publish(d.reply, body))
}
