package main

import (
	"bytes"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	costs := func(publisher, broker, node time.Duration) map[string]time.Duration {
		return map[string]time.Duration{"publisher": publisher, "broker": broker, "node": node}
	}
	memory := func(publisher, broker, node int64) map[string]int64 {
		return map[string]int64{"publisher": publisher, "broker": broker, "node": node}
	}
	const ms, kib = time.Millisecond, 1 << 10
	r := results{about: []string{"a setting"}, all: []measurement{
		{part: fan, work: "first", nodes: 1, changes: 1000, took: []time.Duration{ms}},
		{part: fan, work: "single", nodes: 1, changes: 4, took: []time.Duration{4 * ms, 9 * ms, 5 * ms, 3 * ms}, cpu: costs(4*ms, 8*ms, 2*ms)},
		{part: fan, work: "single", nodes: 16, changes: 2, took: []time.Duration{9 * ms, 8 * ms}, cpu: costs(3*ms, 20*ms, 1*ms)},
		{part: empty, work: "first", nodes: 1, paths: 1, rss: memory(10*kib, 20*kib, 30*kib)},
		{part: tree, work: "rescan", files: 10, paths: 12, changes: 12, took: []time.Duration{ms}, cpu: costs(12*ms, 24*ms, 0), busy: true},
		{part: tree, work: "first", files: 10, paths: 12, changes: 12, took: []time.Duration{1500 * ms}, watches: 3,
			cpu: costs(120*ms, 60*ms, 12*ms), peak: memory(100*kib, 200*kib, 300*kib), rss: memory(22*kib, 44*kib, 18*kib)},
		{part: tree, work: "first", files: 100, paths: 120, changes: 120, took: []time.Duration{15 * time.Second}, watches: 13,
			cpu: costs(2400*ms, 600*ms, 60*ms), peak: memory(1000*kib, 200*kib, 300*kib), rss: memory(130*kib, 140*kib, 150*kib)},
	}}
	const want = `- a setting

One 4 KiB file, by the number of nodes; CPU time of one change:

| nodes | changes | p50 / p99 | publisher | of the first row's | broker | a node |
|---|---|---|---|---|---|---|
| 1 | 4 | 4.0 ms / 9.0 ms | 1000 µs | ×1.00 | 2000 µs | 500 µs |
| 16 | 2 | 8.0 ms / 9.0 ms | 1500 µs | ×1.50 | 10000 µs | 500 µs |

By the number of files: time until the last node has it (p50 / p99 where there are several changes); CPU time: publisher / broker / a node:

| work | files | paths changed | time | CPU | CPU for each path | of the first row's |
|---|---|---|---|---|---|---|
| first sync | 10 | 12 | 1.50 s | 120 ms / 60.0 ms / 12.0 ms | 10000 µs / 5000 µs / 1000 µs | ×1.00 / ×1.00 / ×1.00 |
| first sync | 100 | 120 | 15.00 s | 2.40 s / 600 ms / 60.0 ms | 20000 µs / 5000 µs / 500 µs | ×2.00 / ×1.00 / ×0.50 |
| rescan | 10 | 12 | 1.0 ms | more than 12.0 ms / 24.0 ms / 0.0 ms | 1000 µs / 2000 µs / 0 µs | ×1.00 / ×1.00 / – |

Memory of one process: publisher / broker / node:

| work | files | peak | at rest after it |
|---|---|---|---|
| first sync | 10 | 100 KiB / 200 KiB / 300 KiB | 22 KiB / 44 KiB / 18 KiB |
| first sync | 100 | 1000 KiB / 200 KiB / 300 KiB | 130 KiB / 140 KiB / 150 KiB |
| rescan | 10 | 0 B / 0 B / 0 B | 0 B / 0 B / 0 B |

Memory at rest for each path, beyond that without a file: publisher / broker / node:

| after | files | paths | for each path | inotify watches |
|---|---|---|---|---|
| first sync | 10 | 12 | 1024 B / 2048 B / -1024 B | 3 |
| first sync | 100 | 120 | 1024 B / 1024 B / 1024 B | 13 |
`
	var out bytes.Buffer
	r.write(&out)
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}

	out.Reset()
	if err := r.writeCSV(&out); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"nodes,0,1,single,seconds,0.009", "files,100,0,first,cpu publisher,2.4", "files,10,0,rescan,busy,1", "files,10,0,first,rss node,18432"} {
		if got := bytes.Contains(out.Bytes(), []byte("\n"+line+"\n")); !got {
			t.Errorf("no line %q in\n%s", line, &out)
		}
	}

	out.Reset()
	(&results{}).write(&out)
	if out.Len() > 0 {
		t.Errorf("nothing was measured, and this is said: %s", &out)
	}
}
