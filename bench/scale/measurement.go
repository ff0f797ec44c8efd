package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"treecast/bench/internal/rig"
)

// A measurement is one work, once. Roles are publisher, broker and node.
type measurement struct {
	part, work string
	files      int // of the generated tree
	paths      int // of it, with its directories
	nodes      int
	changes    int             // the paths that the work was about
	took       []time.Duration // until the last node had it: once, or of each change
	busy       bool            // there was no rest in time: it has cost more than is said
	cpu        map[string]time.Duration
	peak, rss  map[string]int64 // bytes of one process: during the work, and at rest after it
	watches    int              // the publisher's, of inotify
}

// each is what one change has cost a role; a node's is one node's.
func (m *measurement) each(role string) time.Duration {
	return m.cpu[role] / time.Duration(max(m.changes, 1))
}

// results are all measurements of a run, in their order.
type results struct {
	about []string // versions and settings, a line each
	all   []measurement
}

// of returns the measurements of a work in a part.
func (r *results) of(part, work string) (all []*measurement) {
	for i := range r.all {
		if m := &r.all[i]; m.part == part && m.work == work {
			all = append(all, m)
		}
	}
	return all
}

// writeCSV writes a line for each number. Seconds are of time or of CPU, and
// those of CPU are of the whole work; a node's are one node's.
func (r *results) writeCSV(w io.Writer) error {
	lines := [][]string{{"part", "files", "nodes", "work", "measure", "value"}}
	for _, m := range r.all {
		line := func(measure, value string) {
			lines = append(lines, []string{m.part, strconv.Itoa(m.files), strconv.Itoa(m.nodes), m.work, measure, value})
		}
		seconds := func(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }
		line("changes", strconv.Itoa(m.changes))
		line("paths", strconv.Itoa(m.paths))
		line("watches", strconv.Itoa(m.watches))
		line("busy", map[bool]string{false: "0", true: "1"}[m.busy])
		for _, took := range m.took {
			line("seconds", seconds(took))
		}
		for _, role := range slices.Sorted(maps.Keys(m.cpu)) {
			line("cpu "+role, seconds(m.cpu[role]))
			line("peak "+role, strconv.FormatInt(m.peak[role], 10))
			line("rss "+role, strconv.FormatInt(m.rss[role], 10))
		}
	}
	return csv.NewWriter(w).WriteAll(lines)
}

// clock is the time of the one change, or the quantiles of many.
func (m *measurement) clock() string {
	if len(m.took) == 1 {
		return rig.Short(m.took[0])
	}
	return fmt.Sprintf("%s / %s", rig.Short(rig.Median(m.took)), rig.Short(rig.Quantile(m.took, 0.99)))
}
