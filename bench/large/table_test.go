package main

import (
	"bytes"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	var r results
	row := func(round int, step, system string, elapsed time.Duration, moved traffic) measurement {
		return measurement{round: round, step: step, kind: "text", system: system, elapsed: elapsed, traffic: moved}
	}
	// In another order than the table's, and with a step that only one has.
	r.add([]measurement{
		row(1, "delete", "treecast", 5*time.Millisecond, traffic{known(2048), known(-4)}),
		row(1, "new", "treecast", 1500*time.Millisecond, traffic{known(3 << 20), known(10)}),
	}, "treecast", []peak{{"broker", 30 << 20}, {"node", 15 << 20}, {"node", 16 << 20}})
	r.add([]measurement{row(1, "new", "copy", 123456*time.Microsecond, traffic{})}, "copy", nil)
	r.add([]measurement{row(2, "new", "treecast", 900*time.Millisecond, traffic{known(5 << 20), known(12)})}, "treecast",
		[]peak{{"broker", 20 << 20}})
	r.add([]measurement{row(3, "new", "treecast", 2*time.Second, traffic{known(4 << 20), known(11)})}, "treecast", nil)

	var out bytes.Buffer
	r.write(&out, []string{"random", "text"}, []string{"copy", "treecast"})
	const want = `step    kind  system    median  min–max        bytes  objects
new     text  copy      123 ms  123 ms–123 ms  –      –
new     text  treecast  1.50 s  900 ms–2.00 s  4 MiB  11
delete  text  treecast  5.0 ms  5.0 ms–5.0 ms  2 KiB  -4

system    process  peak memory
treecast  broker   30 MiB
treecast  node     16 MiB
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
}
