package source

import (
	"fmt"
	"runtime"
	"testing"

	"treecast/internal/events"
)

// BenchmarkListMemory prints the bytes that a listing has for each entry.
func BenchmarkListMemory(b *testing.B) {
	const n = 100_000
	root := b.TempDir()
	for i := range n {
		write(b, fmt.Sprintf("%s/file-name-%d.html", root, i), "")
	}
	tree, err := Open(Options{Root: root})
	must(b, err)
	defer tree.Close()
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		l, err := tree.List(events.Path{})
		must(b, err)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(l.Children)), "B/entry")
	}
}
