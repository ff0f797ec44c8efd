package main

import (
	"encoding/csv"
	"io"
	"slices"
	"strconv"
)

// A key says what was measured.
type key struct {
	round  int
	system string
	nodes  int
	work   string
}

// A sample is one number that was measured: seconds, of time or, where the
// measure says so, of CPU; bytes; or a count.
type sample struct {
	key
	measure string
	value   float64
}

// A failure says why there is no sample.
type failure struct {
	key
	why string
}

// results are all samples of a run, in the order in which they were taken.
type results struct {
	samples  []sample
	failures []failure
}

func (r *results) add(s sample)   { r.samples = append(r.samples, s) }
func (r *results) fail(f failure) { r.failures = append(r.failures, f) }

// values returns the samples of all rounds.
func (r *results) values(system string, nodes int, work, measure string) (all []float64) {
	for _, s := range r.samples {
		if s.system == system && s.nodes == nodes && s.work == work && s.measure == measure {
			all = append(all, s.value)
		}
	}
	return all
}

// whys returns the different reasons why samples of a work are missing.
func (r *results) whys(system string, nodes int, work string) (all []string) {
	for _, f := range r.failures {
		if f.system == system && f.nodes == nodes && f.work == work {
			all = append(all, f.why)
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(all)))
}

// writeCSV writes a line for each sample, and one for each failure, whose value
// is empty.
func (r *results) writeCSV(w io.Writer) error {
	lines := [][]string{{"round", "system", "nodes", "work", "measure", "value"}}
	line := func(k key, measure, value string) {
		lines = append(lines, []string{strconv.Itoa(k.round), k.system, strconv.Itoa(k.nodes), k.work, measure, value})
	}
	for _, s := range r.samples {
		line(s.key, s.measure, strconv.FormatFloat(s.value, 'f', -1, 64))
	}
	for _, f := range r.failures {
		line(f.key, f.why, "")
	}
	return csv.NewWriter(w).WriteAll(lines)
}
