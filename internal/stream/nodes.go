package stream

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"treecast/internal/events"
)

// A NodeState is what the server knows of one node.
type NodeState struct {
	Name    string
	Behind  uint64    // entries that it has not acknowledged
	Waiting bool      // it is connected and asks for more
	LastAck time.Time // zero: never
}

func nodeState(info *jetstream.ConsumerInfo) NodeState {
	n := NodeState{Name: info.Name, Behind: info.NumPending + uint64(max(info.NumAckPending, 0)), Waiting: info.NumWaiting > 0}
	if info.AckFloor.Last != nil {
		n.LastAck = *info.AckFloor.Last
	}
	return n
}

// Node returns the state of one node. Errors are those of [Conn.StreamInfo],
// and [ErrNoConsumer].
func (c *Conn) Node(ctx context.Context, site events.Site, node string) (NodeState, error) {
	info, err := c.consumerInfo(ctx, site, node)
	if err != nil {
		return NodeState{}, failed("state of node "+node, site, err)
	}
	return nodeState(info), nil
}

// Nodes returns the state of every durable consumer of the site's stream, by
// name. Errors are those of [Conn.StreamInfo].
func (c *Conn) Nodes(ctx context.Context, site events.Site) ([]NodeState, error) {
	var nodes []NodeState
	for {
		req := struct {
			Offset int `json:"offset"`
		}{len(nodes)}
		var page struct {
			Total     int                       `json:"total"`
			Consumers []*jetstream.ConsumerInfo `json:"consumers"`
		}
		if err := c.api(ctx, "CONSUMER.LIST."+streamName(site), req, &page); err != nil {
			return nil, failed("list nodes", site, err)
		}
		skipped := 0
		for _, info := range page.Consumers {
			if info.Config.Durable == "" { // someone's snapshot
				skipped++
				continue
			}
			nodes = append(nodes, nodeState(info))
		}
		if len(page.Consumers) == 0 || len(nodes)+skipped >= page.Total {
			return nodes, nil
		}
	}
}

// NextTime returns when the first message after seq that lives was stored, zero
// if there is none. Errors are those of [Conn.StreamInfo].
func (c *Conn) NextTime(ctx context.Context, site events.Site, seq uint64) (time.Time, error) {
	d, err := c.leaderGet(ctx, streamName(site), map[string]any{"seq": seq + 1, "next_by_subj": ">"})
	if err != nil || d == nil {
		return time.Time{}, failed("read the next message", site, err)
	}
	return d.Time, nil
}

// LeaseSeq returns the sequence of the site's newest lease, 0 if nobody ever
// held it. Errors are those of [Conn.StreamInfo].
func (c *Conn) LeaseSeq(ctx context.Context, site events.Site) (uint64, error) {
	_, seq, err := c.lastLease(ctx, site)
	return seq, failed("read the lease", site, err)
}

// FirstAfter returns the sequence of the first message that lives and was stored
// after t, 0 if there is none. Errors are those of [Conn.StreamInfo].
func (c *Conn) FirstAfter(ctx context.Context, site events.Site, t time.Time) (uint64, error) {
	d, err := c.leaderGet(ctx, streamName(site), map[string]any{"start_time": t.Add(1).UTC(), "next_by_subj": ">"})
	if err != nil || d == nil {
		return 0, failed("read what is new", site, err)
	}
	return d.Seq, nil
}

// LastHolder returns who took the site's lease last, whether he lives or not.
// Errors are those of [Conn.StreamInfo].
func (c *Conn) LastHolder(ctx context.Context, site events.Site) (Holder, error) {
	last, _, err := c.lastLease(ctx, site)
	return last, failed("read the lease", site, err)
}

// Publisher asks for the site's living publisher; nil: none answers.
func (c *Conn) Publisher(ctx context.Context, site events.Site) (*Holder, error) {
	last, seq, err := c.lastLease(ctx, site)
	if err != nil || seq == 0 {
		return nil, failed("ask for the publisher", site, err)
	}
	holder, err := c.askHolder(ctx, site, last.Instance, 0)
	return holder, failed("ask for the publisher", site, err)
}
