package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"treecast/internal/events"
	"treecast/internal/stream"
	"treecast/internal/subscriber"
)

// statusPatience is how long a status may take.
const statusPatience = 20 * time.Second

// Status prints the source and a row for each node, of one node only if it is
// named. The error tells the exit code: nil where all are current, 1 where
// someone is behind or has something held, parked or halted, 2 where nobody
// could tell or, if no node is named, no publisher answers.
func Status(ctx context.Context, to stream.ConnectOptions, site events.Site, node string, stdout io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	conn, err := Ask(ctx, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	said, err := conn.Statuses(ctx, site)
	if err != nil {
		said = nil // the rights may not reach; the rest is worth showing
	}
	var nodes []stream.NodeState
	code := 0
	if node != "" {
		one, err := conn.Node(ctx, site, node)
		if err != nil {
			return err
		}
		nodes = append(nodes, one)
	} else {
		if nodes, err = conn.Nodes(ctx, site); err != nil {
			return err
		}
		if code, err = source(ctx, conn, site, stdout); err != nil {
			return err
		}
	}
	slices.SortFunc(nodes, func(a, b stream.NodeState) int { return cmp.Compare(a.Name, b.Name) })
	table := tabwriter.NewWriter(stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "NODE\tSTATE\tBEHIND\tLAST ACK\tSEQ\tHELD\tPARKED\tFREE\tLAST PATH")
	for _, n := range nodes {
		var s subscriber.Status
		known := json.Unmarshal(said[n.Name], &s) == nil
		state := "connected"
		switch {
		case !n.Waiting && n.Behind == 0 && n.LastAck.IsZero():
			state = "never seen"
		case !n.Waiting:
			state = "away or busy"
		case known && s.Halted != "":
			state = "halted"
		}
		if code == 0 && (n.Behind > 0 || state != "connected" || s.HeldAll+s.ParkAll > 0) {
			code = 1
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%d\t%d\t%d\t%s\t%s\n", n.Name, state, n.Behind, ago(n.LastAck), s.Seq, s.HeldAll, s.ParkAll, size(s.FreeSize), s.LastPath)
		for _, c := range append(s.Held, s.Parked...) {
			fmt.Fprintf(table, "  %s: %s\n", c.Path, c.Reason)
		}
		if s.Halted != "" {
			fmt.Fprintf(table, "  halted: %s\n", s.Halted)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if code != 0 {
		return &ExitError{Code: code}
	}
	return nil
}

// source prints the line of the publisher and the stream.
func source(ctx context.Context, conn *stream.Conn, site events.Site, stdout io.Writer) (code int, err error) {
	info, err := conn.StreamInfo(ctx, site)
	if err != nil {
		return 2, err
	}
	holder, err := conn.Publisher(ctx, site)
	if err != nil {
		return 2, err
	}
	who := "no publisher answers"
	if holder == nil {
		code = 2
	} else {
		who = "publisher " + holder.String()
	}
	_, err = fmt.Fprintf(stdout, "site %s: %d entries, %s, seq %d; %s\n", site, info.Msgs, size(int64(info.Bytes)), info.LastSeq, who) //nolint:gosec // a store's size fits
	return code, err
}

func ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return time.Since(t).Round(time.Second).String() + " ago"
}

// size prints bytes with a binary unit.
func size(n int64) string {
	for _, unit := range []string{"B", "KiB", "MiB"} {
		if n < 10_000 {
			return fmt.Sprintf("%d %s", n, unit)
		}
		n >>= 10
	}
	return fmt.Sprintf("%d GiB", n)
}
