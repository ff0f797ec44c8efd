package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"treecast/bench/internal/rig"
)

// A report is what is written of a run.
type report struct {
	*results
	about   []string // versions and settings, a line each
	systems []string
	absent  map[string]string // why a system was not measured
	nodes   int
	fanout  []int
	rows    []row
}

// write writes the tables in Markdown.
func (r *report) write(w io.Writer) {
	for _, line := range append(slices.Clone(r.about), r.remarks()...) {
		fmt.Fprintf(w, "- %s\n", line)
	}
	r.table(w, "Time until the last node has it", r.rows, row.label, r.time)
	works := slices.CompactFunc(slices.Clone(r.rows), func(a, b row) bool { return a.work == b.work })
	title := func(row row) string { return row.title }
	r.table(w, "CPU time: source / broker / nodes together", works, title, r.cpu)
	r.table(w, "Bytes over the loopback", works, title, r.bytes)
	r.memory(w)
	r.fan(w)
}

// table writes a line for each row that some system has a value of, and a column
// for each system.
func (r *report) table(w io.Writer, title string, rows []row, label func(row) string, cell func(row, string) string) {
	fmt.Fprintf(w, "\n%s:\n\n| work | %s |\n|---%s|\n", title, strings.Join(r.systems, " | "), strings.Repeat("|---", len(r.systems)))
	for _, row := range rows {
		var cells []string
		for _, system := range r.systems {
			cells = append(cells, cell(row, system))
		}
		if slices.ContainsFunc(cells, func(c string) bool { return c != none }) {
			fmt.Fprintf(w, "| %s | %s |\n", label(row), strings.Join(cells, " | "))
		}
	}
}

const none = "–"

// time is the median, with the shortest and the longest of several; and why
// there are less of them than rounds.
func (r *report) time(row row, system string) string {
	if why, ok := r.absent[system]; ok {
		return why
	}
	var parts []string
	if all := r.values(system, r.nodes, row.work, row.measure); len(all) > 0 {
		parts = append(parts, row.show(rig.Median(all)))
		if len(all) > 1 {
			parts = append(parts, fmt.Sprintf("(%s–%s)", row.show(slices.Min(all)), row.show(slices.Max(all))))
		}
	}
	parts = append(parts, r.whys(system, r.nodes, row.work)...)
	if len(parts) == 0 {
		return none
	}
	return strings.Join(parts, " ")
}

func seconds(s float64) string { return rig.Short(time.Duration(s * float64(time.Second))) }

// sides adds up the CPU time of a work by where it was used.
func (r *results) sides(system string, nodes int, work string) (sides map[string]float64) {
	sides = map[string]float64{}
	roles := map[string]bool{}
	for _, s := range r.samples {
		if role, ok := strings.CutPrefix(s.measure, "cpu "); ok && s.system == system && s.nodes == nodes && s.work == work {
			roles[role] = true
		}
	}
	for role := range roles {
		side := role
		if role != "broker" && role != "node" {
			side = "source"
		}
		sides[side] += rig.Median(r.values(system, nodes, work, "cpu "+role))
	}
	return sides
}

// cpu is what a work has used, or more than that where the system was not done
// with it when the next work began.
func (r *report) cpu(row row, system string) string {
	sides := r.sides(system, r.nodes, row.work)
	if len(sides) == 0 {
		return none
	}
	parts := []string{none, none, none}
	for i, side := range []string{"source", "broker", "node"} {
		if used, ok := sides[side]; ok {
			parts[i] = seconds(used)
		}
	}
	return r.more(row, system) + strings.Join(parts, " / ")
}

// bytes is what went over the loopback, likewise.
func (r *report) bytes(row row, system string) string {
	all := r.values(system, r.nodes, row.work, "bytes")
	if len(all) == 0 {
		return none
	}
	return r.more(row, system) + rig.Size(rig.Median(all)).String()
}

func (r *report) more(row row, system string) string {
	if len(r.values(system, r.nodes, row.work, "busy")) > 0 {
		return "more than "
	}
	return ""
}

func (r *report) memory(w io.Writer) {
	fmt.Fprint(w, "\nThe most memory that one process had:\n\n| system | process | memory |\n|---|---|---|\n")
	for _, system := range r.systems {
		var roles []string
		for _, s := range r.samples {
			if role, ok := strings.CutPrefix(s.measure, "memory "); ok && s.system == system {
				roles = append(roles, role)
			}
		}
		slices.Sort(roles)
		for _, role := range slices.Compact(roles) {
			if all := r.values(system, r.nodes, "all", "memory "+role); len(all) > 0 {
				fmt.Fprintf(w, "| %s | %s | %v |\n", system, role, rig.Size(slices.Max(all)))
			}
		}
	}
}

// fan writes what one 4 KiB file costs with different numbers of nodes.
func (r *report) fan(w io.Writer) {
	if len(r.fanout) == 0 {
		return
	}
	fmt.Fprint(w, "\nOne 4 KiB file, by the number of nodes:\n\n| system | nodes | p50 | p99 | CPU of the source | of the broker | of a node |\n|---|---|---|---|---|---|---|\n")
	for _, system := range r.systems {
		for _, nodes := range r.fanout {
			p50, p99 := r.values(system, nodes, "single", "p50"), r.values(system, nodes, "single", "p99")
			if len(p50) == 0 || len(p99) == 0 {
				continue
			}
			sides := r.sides(system, nodes, "single")
			fmt.Fprintf(w, "| %s | %d | %s | %s | %s | %s | %s |\n", system, nodes, seconds(rig.Median(p50)), seconds(rig.Median(p99)),
				seconds(sides["source"]), seconds(sides["broker"]), seconds(sides["node"]/float64(nodes)))
		}
	}
}

// remarks say what the judge let pass.
func (r *report) remarks() (all []string) {
	for _, system := range r.systems {
		if slices.ContainsFunc(r.samples, func(s sample) bool { return s.system == system && s.measure == "directory times" }) {
			all = append(all, system+": the times of directories are not the source's")
		}
	}
	return all
}
