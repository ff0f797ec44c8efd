package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	r := report{
		results: &results{}, about: []string{"a setting"}, systems: []string{"treecast", "loop", "lsyncd"},
		absent: map[string]string{"lsyncd": "not installed"}, nodes: 3, fanout: []int{1, 3},
		rows: []row{{"single", "p50", "a file"}, {"single", "p99", "a file"}, {"rename", "seconds", "<rename> & more"}, {"rest", "cpu", "at rest"}, {"rest", "files", "files"}, {"rest", "written", "bytes"}},
	}
	add := func(round int, system string, nodes int, work, measure string, value float64) {
		r.add(sample{key{round, system, nodes, work}, measure, value})
	}
	for round, p50 := range []float64{0.005, 0.004, 0.007} {
		add(round+1, "treecast", 3, "single", "p50", p50)
		add(round+1, "treecast", 3, "single", "p99", 2*p50)
		add(round+1, "treecast", 3, "single", "cpu publisher", 0.001)
		add(round+1, "treecast", 3, "single", "cpu broker", 0.002)
		add(round+1, "treecast", 3, "single", "cpu node", 0.003)
		add(round+1, "treecast", 3, "single", "bytes", 2048)
		add(round+1, "treecast", 3, "all", "memory node", float64(round<<20))
	}
	add(1, "treecast", 1, "single", "p50", 0.003)
	add(1, "treecast", 1, "single", "p99", 0.006)
	add(1, "loop", 3, "single", "p50", 1.5)
	add(1, "loop", 3, "single", "cpu loop", 12)
	add(1, "loop", 3, "single", "busy", 1)
	add(1, "loop", 3, "rename", "seconds", 20)
	add(1, "loop", 3, "rest", "files", 3)
	add(1, "loop", 3, "rest", "written", 12<<10)
	r.fail(failure{key{2, "loop", 3, "rename"}, "not in 120 s"})
	r.fail(failure{key{3, "loop", 3, "rename"}, "not in 120 s"})

	const want = `- a setting

Time until the last node has it:

| work | treecast | loop | lsyncd |
|---|---|---|---|
| a file, p50 | 5.0 ms (4.0 ms–7.0 ms) | 1.50 s | not installed |
| a file, p99 | 10.0 ms (8.0 ms–14.0 ms) | – | not installed |
| <rename> & more | – | 20.00 s not in 120 s | not installed |
| at rest | – | – | not installed |
| files | – | 3 | not installed |
| bytes | – | 12 KiB | not installed |

CPU time: source / broker / nodes together:

| work | treecast | loop | lsyncd |
|---|---|---|---|
| a file | 1.0 ms / 2.0 ms / 3.0 ms | more than 12.00 s / – / – | – |

Bytes over the loopback:

| work | treecast | loop | lsyncd |
|---|---|---|---|
| a file | 2 KiB | – | – |

The most memory that one process had:

| system | process | memory |
|---|---|---|
| treecast | node | 2 MiB |

One 4 KiB file, by the number of nodes:

| system | nodes | p50 | p99 | CPU of the source | of the broker | of a node |
|---|---|---|---|---|---|---|
| treecast | 1 | 3.0 ms | 6.0 ms | 0.0 ms | 0.0 ms | 0.0 ms |
| treecast | 3 | 5.0 ms | 10.0 ms | 1.0 ms | 2.0 ms | 1.0 ms |
`
	var out bytes.Buffer
	r.write(&out)
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}

	out.Reset()
	if err := newChart(&r).write(&out); err != nil {
		t.Fatal(err)
	}
	wellFormed(t, out.Bytes())
	for _, part := range []string{"&lt;rename&gt; &amp; more", ">20.00 s not in 120 s</text>", ">10.0 ms</text>"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("no %q in\n%s", part, &out)
		}
	}
}

func TestEmptyChart(t *testing.T) {
	var out bytes.Buffer
	if err := newChart(&report{results: &results{}, systems: []string{"copy"}}).write(&out); err != nil {
		t.Fatal(err)
	}
	wellFormed(t, out.Bytes())
	if strings.Contains(out.String(), "NaN") {
		t.Error(out.String())
	}
}
