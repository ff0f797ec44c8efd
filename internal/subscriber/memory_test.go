package subscriber

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"treecast/internal/events"
	"treecast/internal/stream"
)

// many is a stream of so many files.
type many struct {
	Stream
	tb testing.TB
	n  int
}

func (m many) Snapshot(_ context.Context, site events.Site, fn func(uint64, string, string) error) (stream.Info, error) {
	for i := range m.n {
		p, err := events.ParsePath(fmt.Sprintf("some/directory%d/page-number-%d.html", i/100, i))
		if err != nil {
			m.tb.Fatal(err)
		}
		e := events.Entry{
			Path: p, Kind: events.File, Body: events.InlineBody, Mode: 0o644, Owner: "www-data", Group: "www-data", Size: 1234,
			Mtime: events.Time{Sec: 1700000000, Nsec: int32(i)}, Ctime: events.Time{Sec: 1700000000, Nsec: int32(i)}, Digest: events.Sum([]byte{byte(i)}),
		}
		header, err := e.MarshalHeader()
		if err != nil {
			m.tb.Fatal(err)
		}
		if err := fn(uint64(i+1), site.Subject(p), header); err != nil {
			return stream.Info{}, err
		}
	}
	return stream.Info{LastSeq: uint64(m.n), Created: time.Unix(1, 0)}, nil
}

// A node that compares its tree has an entry of each path in memory.
func TestSnapshotIsSmall(t *testing.T) {
	const n, most = 20000, 330
	live := func() int64 {
		runtime.GC()
		runtime.GC() // what pools and cleanups held
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := live()
	s, _, err := takeSnapshot(t.Context(), many{tb: t, n: n}, "web", func(_ uint64, subject string) { t.Errorf("refused: %s", subject) })
	if err != nil {
		t.Fatal(err)
	}
	each := (live() - before) / n
	if runtime.KeepAlive(s); len(s) != n || each > most {
		t.Errorf("%d bytes for each of %d paths, %d are allowed", each, len(s), most)
	}
	t.Logf("%d bytes a path", each)
}
