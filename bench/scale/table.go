package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"treecast/bench/internal/rig"
)

var roles = []string{"publisher", "broker", "node"}

// write writes the tables in Markdown.
func (r *results) write(w io.Writer) {
	for _, line := range r.about {
		fmt.Fprintf(w, "- %s\n", line)
	}
	r.fan(w)
	r.costs(w)
	r.memory(w)
	r.perPath(w)
}

// header writes a title and the first lines of a table, if there is anything to
// be in it.
func header(w io.Writer, all []*measurement, title string, columns ...string) {
	if len(all) > 0 {
		fmt.Fprintf(w, "\n%s:\n\n| %s |\n|%s\n", title, strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	}
}

// fan writes what one file costs with different numbers of nodes.
func (r *results) fan(w io.Writer) {
	all := r.of(fan, "single")
	header(w, all, "One 4 KiB file, by the number of nodes; CPU time of one change",
		"nodes", "changes", "p50 / p99", "publisher", "of the first row's", "broker", "a node")
	for _, m := range all {
		fmt.Fprintf(w, "| %d | %d | %s | %s | %s | %s | %s |\n", m.nodes, m.changes, m.clock(),
			micros(m.each("publisher")), times(m.each("publisher"), all[0].each("publisher")), micros(m.each("broker")), micros(m.each("node")))
	}
}

// costs writes what each work costs, with different numbers of files below each
// other.
func (r *results) costs(w io.Writer) {
	header(w, r.of(tree, "first"), "By the number of files: time until the last node has it (p50 / p99 where there are several changes); CPU time: publisher / broker / a node",
		"work", "files", "paths changed", "time", "CPU", "CPU for each path", "of the first row's")
	for _, work := range treeWorks {
		all := r.of(tree, work.name)
		for _, m := range all {
			more := ""
			if m.busy {
				more = "more than "
			}
			fmt.Fprintf(w, "| %s | %d | %d | %s | %s%s | %s | %s |\n", titles[work.name], m.files, m.changes, m.clock(), more,
				join(func(role string) string { return rig.Short(m.cpu[role]) }),
				join(func(role string) string { return micros(m.each(role)) }),
				join(func(role string) string { return times(m.each(role), all[0].each(role)) }))
		}
	}
}

// memory writes what each work needs of it.
func (r *results) memory(w io.Writer) {
	header(w, r.of(tree, "first"), "Memory of one process: publisher / broker / node", "work", "files", "peak", "at rest after it")
	for _, work := range treeWorks {
		for _, m := range r.of(tree, work.name) {
			fmt.Fprintf(w, "| %s | %d | %s | %s |\n", titles[work.name], m.files,
				join(func(role string) string { return rig.Size(m.peak[role]).String() }),
				join(func(role string) string { return rig.Size(m.rss[role]).String() }))
		}
	}
}

// perPath writes what of the memory at rest is there for each path: that beyond
// what is there without any.
func (r *results) perPath(w io.Writer) {
	header(w, r.of(tree, "first"), "Memory at rest for each path, beyond that without a file: publisher / broker / node", "after", "files", "paths", "for each path", "inotify watches")
	for _, work := range emptyWorks {
		without := r.of(empty, work.name)
		if len(without) == 0 {
			continue
		}
		for _, m := range r.of(tree, work.name) {
			fmt.Fprintf(w, "| %s | %d | %d | %s | %d |\n", titles[work.name], m.files, m.paths,
				join(func(role string) string {
					return fmt.Sprintf("%d B", (m.rss[role]-without[0].rss[role])/int64(m.paths))
				}), m.watches)
		}
	}
}

func join(cell func(role string) string) string {
	var cells []string
	for _, role := range roles {
		cells = append(cells, cell(role))
	}
	return strings.Join(cells, " / ")
}

// micros writes three digits, or all of more.
func micros(d time.Duration) string {
	if us := float64(d) / 1e3; us < 100 {
		return fmt.Sprintf("%.3g µs", us)
	}
	return fmt.Sprintf("%.0f µs", float64(d)/1e3)
}

// times is how often one cost is another. What is next to nothing is not told
// from nothing.
func times(d, of time.Duration) string {
	if of < time.Microsecond/10 {
		return "–"
	}
	return fmt.Sprintf("×%.2f", float64(d)/float64(of))
}
