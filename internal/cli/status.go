package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"treecast/internal/events"
	"treecast/internal/publisher"
	"treecast/internal/stream"
	"treecast/internal/subscriber"
)

// statusPatience is how long a status may take.
const statusPatience = 20 * time.Second

// A StatusReport is a site's status, and in JSON what --json prints.
type StatusReport struct {
	Site   events.Site       `json:"site"`
	Stream *StreamReport     `json:"stream,omitempty"` // not of one node only
	Holder *stream.Holder    `json:"publisher,omitempty"`
	Source *publisher.Status `json:"source,omitempty"` // nil: nobody tells
	Nodes  []NodeReport      `json:"nodes"`
}

// A StreamReport is what the broker has.
type StreamReport struct {
	Entries uint64 `json:"entries"`
	Bytes   uint64 `json:"bytes"`
	LastSeq uint64 `json:"last_seq"`
}

// A NodeReport is one node. What it says of itself is of the time that it says,
// now if it is connected.
type NodeReport struct {
	Name     string            `json:"name"`
	State    string            `json:"state"` // connected, halted, away, never seen
	LastSeen time.Time         `json:"last_seen"`
	Behind   uint64            `json:"behind"` // entries
	Seconds  float64           `json:"behind_seconds"`
	Says     subscriber.Status `json:"says"`
}

// A Lag is how far behind a node may be: so long, or so many entries.
type Lag struct {
	Time    time.Duration
	Entries uint64
}

// UnmarshalText reads a duration or a number of entries.
func (l *Lag) UnmarshalText(text []byte) (err error) {
	if l.Entries, err = strconv.ParseUint(string(text), 10, 64); err == nil {
		return nil
	}
	if l.Time, err = time.ParseDuration(string(text)); err != nil || l.Time < 0 {
		return fmt.Errorf("%q is neither a duration, as 30s, nor a number of entries", text)
	}
	return nil
}

// StatusFlags are the flags of a status command.
type StatusFlags struct {
	JSON   bool `name:"json" help:"Print all of it as JSON."`
	MaxLag Lag  `help:"How far behind a node may be and count as current: a duration, or a number of entries." default:"0" placeholder:"DURATION|N"`
}

// Status prints the source and a row for each node, of one node only if it is
// named. The error tells the exit code: nil where all are current, 1 where
// someone is away, behind by more than MaxLag, or has something held, parked or
// halted, 2 where nobody could tell or, if no node is named, the source is
// halted or no publisher answers.
func Status(ctx context.Context, to stream.ConnectOptions, site events.Site, node string, flags StatusFlags, stdout io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	conn, err := Ask(ctx, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	r, err := ask(ctx, conn, site, node)
	if err != nil {
		return err
	}
	if flags.JSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		err = r.print(stdout)
	}
	if code := r.code(flags.MaxLag, node == ""); err == nil && code != 0 {
		return &ExitError{Code: code}
	}
	return err
}

// code is the exit code.
func (r *StatusReport) code(allowed Lag, all bool) int {
	if all && (r.Holder == nil || r.Source != nil && r.Source.Halted != "") {
		return 2
	}
	for _, n := range r.Nodes {
		late := n.Behind > allowed.Entries && (allowed.Time == 0 || n.Seconds > allowed.Time.Seconds())
		if late || n.State != "connected" || n.Says.HeldAll+n.Says.ParkAll > 0 {
			return 1
		}
	}
	return 0
}

// ask gathers a report. Who does not answer is shown as that; an error is of
// the broker's.
func ask(ctx context.Context, conn *stream.Conn, site events.Site, node string) (*StatusReport, error) {
	r := &StatusReport{Site: site}
	said, err := conn.Statuses(ctx, site)
	if err != nil {
		said = nil // the rights may not reach; the rest is worth showing
	}
	var nodes []stream.NodeState
	if node != "" {
		one, err := conn.Node(ctx, site, node)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, one)
	} else {
		if nodes, err = conn.Nodes(ctx, site); err != nil {
			return nil, err
		}
		if err := r.askSource(ctx, conn); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(nodes, func(a, b stream.NodeState) int { return cmp.Compare(a.Name, b.Name) })
	r.Nodes = make([]NodeReport, len(nodes))
	var g errgroup.Group
	for i, n := range nodes {
		g.Go(func() (err error) {
			r.Nodes[i], err = askNode(ctx, conn, site, n, said[n.Name])
			return err
		})
	}
	return r, g.Wait()
}

func (r *StatusReport) askSource(ctx context.Context, conn *stream.Conn) error {
	info, err := conn.StreamInfo(ctx, r.Site)
	if err != nil {
		return err
	}
	r.Stream = &StreamReport{info.Msgs, info.Bytes, info.LastSeq}
	if r.Holder, err = conn.Publisher(ctx, r.Site); err != nil || r.Holder == nil {
		return err
	}
	if answer, err := conn.AskSource(ctx, r.Site); err == nil { // else it still begins, or the rights do not reach
		var s publisher.Status
		if json.Unmarshal(answer, &s) == nil {
			r.Source = &s
		}
	}
	return nil
}

// askNode asks a node itself; what it said last stands in where it is silent.
func askNode(ctx context.Context, conn *stream.Conn, site events.Site, n stream.NodeState, said []byte) (NodeReport, error) {
	r := NodeReport{Name: n.Name, State: "connected", Behind: n.Behind}
	answer, err := conn.AskNode(ctx, site, n.Name)
	switch {
	case err == nil:
		said = answer
	case ctx.Err() != nil, !errors.Is(err, stream.ErrSilent) && !errors.Is(err, stream.ErrDenied):
		return r, err
	}
	if json.Unmarshal(said, &r.Says) != nil {
		r.Says = subscriber.Status{} // then it is as far behind as the stream is old
	}
	if r.LastSeen = n.LastAck; r.Says.Time.After(r.LastSeen) {
		r.LastSeen = r.Says.Time
	}
	// A reconcile holds what the broker counts as acknowledged.
	r.Behind = max(r.Behind, uint64(max(r.Says.HeldAll, 0)))
	switch {
	case err != nil && (errors.Is(err, stream.ErrSilent) || !n.Waiting):
		r.State = "away"
		if r.LastSeen.IsZero() {
			r.State = "never seen"
		}
	case r.Says.Halted != "":
		r.State = "halted"
	}
	if r.Behind > 0 {
		oldest, err := conn.NextTime(ctx, site, r.Says.Seq)
		if err != nil {
			return r, err
		}
		if !oldest.IsZero() {
			r.Seconds = max(0, time.Since(oldest).Seconds())
		}
	}
	return r, nil
}
