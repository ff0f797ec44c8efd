package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"treecast/bench/internal/rig"
)

// A measurement is one step, once.
type measurement struct {
	round              int
	step, kind, system string
	elapsed            time.Duration
	traffic            traffic
}

var csvHeader = []string{"round", "step", "kind", "system", "seconds", "bytes", "objects"}

func (m measurement) csv() []string {
	number := func(c count) string {
		if !c.valid {
			return ""
		}
		return strconv.FormatInt(c.n, 10)
	}
	return []string{
		strconv.Itoa(m.round), m.step, m.kind, m.system,
		strconv.FormatFloat(m.elapsed.Seconds(), 'f', 6, 64), number(m.traffic.bytes), number(m.traffic.objects),
	}
}

// results are all measurements of a run.
type results struct {
	rows   []measurement
	memory []usage
}

// A usage is the most memory that a system's processes of a name had.
type usage struct {
	system string
	peak
}

func (r *results) add(rows []measurement, system string, peaks []peak) {
	r.rows = append(r.rows, rows...)
	for _, p := range peaks {
		i := slices.IndexFunc(r.memory, func(u usage) bool { return u.system == system && u.name == p.name })
		if i < 0 {
			r.memory = append(r.memory, usage{system, p})
			continue
		}
		r.memory[i].sizeBytes = max(r.memory[i].sizeBytes, p.sizeBytes)
	}
}

// write prints a line for each step, kind and system, in the order of the
// arguments, and then the memory.
func (r *results) write(w io.Writer, kinds, systems []string) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "step\tkind\tsystem\tmedian\tmin–max\tbytes\tobjects")
	for _, s := range steps {
		for _, kind := range kinds {
			for _, system := range systems {
				r.writeRow(table, s.name, kind, system)
			}
		}
	}
	_ = table.Flush() // whoever reads the output sees what is lost
	if len(r.memory) == 0 {
		return
	}
	fmt.Fprintln(w)
	table = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "system\tprocess\tpeak memory")
	for _, system := range systems {
		for _, u := range r.memory {
			if u.system == system {
				fmt.Fprintf(table, "%s\t%s\t%v\n", u.system, u.name, rig.Size(u.sizeBytes))
			}
		}
	}
	_ = table.Flush()
}

func (r *results) writeRow(w io.Writer, step, kind, system string) {
	var elapsed []time.Duration
	var bytes, objects []int64
	all := traffic{bytes: known(0), objects: known(0)}
	for _, m := range r.rows {
		if m.step != step || m.kind != kind || m.system != system {
			continue
		}
		elapsed = append(elapsed, m.elapsed)
		bytes = append(bytes, m.traffic.bytes.n)
		objects = append(objects, m.traffic.objects.n)
		all.bytes.valid = all.bytes.valid && m.traffic.bytes.valid
		all.objects.valid = all.objects.valid && m.traffic.objects.valid
	}
	if len(elapsed) == 0 {
		return
	}
	all.bytes.n, all.objects.n = rig.Median(bytes), rig.Median(objects)
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s–%s\t%s\t%s\n", step, kind, system,
		rig.Short(rig.Median(elapsed)), rig.Short(slices.Min(elapsed)), rig.Short(slices.Max(elapsed)),
		all.bytes.text(func(n int64) string { return rig.Size(n).String() }),
		all.objects.text(func(n int64) string { return strconv.FormatInt(n, 10) }))
}
