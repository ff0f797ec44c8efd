package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"treecast/internal/publisher"
	"treecast/internal/stream"
)

// print writes the report for a person.
func (r *StatusReport) print(w io.Writer) error {
	if r.Stream != nil {
		who := "no publisher answers"
		if r.Holder != nil {
			who = "publisher " + r.Holder.String()
		}
		fmt.Fprintf(w, "site %s: %d entries, %s, seq %d; %s\n", r.Site, r.Stream.Entries, size(int64(r.Stream.Bytes)), r.Stream.LastSeq, who) //nolint:gosec // a store's size fits
	}
	if r.Source != nil {
		printSource(w, r.Source)
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "NODE\tSTATE\tBEHIND\tSINCE\tLAST SEEN\tSEQ\tHELD\tPARKED\tFREE\tVERSION\tLAST PATH")
	for _, n := range r.Nodes {
		s := &n.Says
		behind := time.Duration(n.Seconds * float64(time.Second)).Round(100 * time.Millisecond)
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\n", n.Name, n.State, n.Behind, behind, ago(n.LastSeen),
			s.Seq, s.HeldAll, s.ParkAll, size(s.FreeSize), s.Version, s.LastPath)
		printCauses(table, "held", s.Held, s.HeldAll)
		printCauses(table, "parked", s.Parked, s.ParkAll)
		printCauses(table, "drifted and mended", s.Drift, s.DriftAll)
		if s.Halted != "" {
			fmt.Fprintf(table, "  halted: %s\n", s.Halted)
		}
	}
	return table.Flush()
}

func printSource(w io.Writer, s *publisher.Status) {
	watch := fmt.Sprintf("%d directories watched", s.Watches)
	if len(s.Polled) > 0 {
		watch += fmt.Sprintf(", %d polled", len(s.Polled))
	}
	fmt.Fprintf(w, "source: %d paths, %s; %d dirty, %d late, %d unstable, %d skipped; %s; last scan %s; version %s\n",
		s.Paths, size(s.Bytes), s.Dirty, s.LateAll, s.Unstable, s.SkipAll, watch, ago(s.LastScan), s.Version)
	if s.Halted != "" {
		fmt.Fprintf(w, "  halted: %s\n", s.Halted)
	}
	printCauses(w, "late", s.Late, s.LateAll)
	printCauses(w, "skipped", s.Skipped, s.SkipAll)
	if len(s.Polled) > 0 {
		fmt.Fprintf(w, "  polled: %s\n", strings.Join(quoted(s.Polled), " "))
	}
}

func printCauses(w io.Writer, what string, list []stream.Cause, count int) {
	for _, c := range list {
		fmt.Fprintf(w, "  %s: %s: %s\n", what, c.Path, c.Reason)
	}
	if more := count - len(list); more > 0 {
		fmt.Fprintf(w, "  %s: and %d more\n", what, more)
	}
}

func quoted(paths []string) []string {
	q := make([]string, len(paths))
	for i, p := range paths {
		q[i] = fmt.Sprintf("%q", p)
	}
	return q
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
