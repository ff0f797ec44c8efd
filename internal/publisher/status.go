package publisher

import (
	"strings"
	"time"

	"treecast/internal/stream"
)

// A Status is what a publisher says of its source to who asks. Paths are quoted
// as in Go.
type Status struct {
	Version  string         `json:"version"`
	Time     time.Time      `json:"time"`
	Epoch    uint64         `json:"epoch"`
	Seq      uint64         `json:"seq"`      // the last one that was acknowledged
	Paths    int            `json:"paths"`    // published
	Bytes    int64          `json:"bytes"`    // of their files
	Dirty    int            `json:"dirty"`    // paths to be looked at
	Unstable int            `json:"unstable"` // of Late, for what moves under every read
	Late     []stream.Cause `json:"late"`     // the first of those that are tried again
	LateAll  int            `json:"late_count"`
	Skipped  []stream.Cause `json:"skipped"` // the first of those that only a change of the path can help
	SkipAll  int            `json:"skipped_count"`
	Watches  int            `json:"watches"`   // directories
	Polled   []string       `json:"polled"`    // the tops of the subtrees that are not watched
	LastScan time.Time      `json:"last_scan"` // of the whole tree; zero: the first goes on
	Halted   string         `json:"halted,omitempty"`
}

// facts are what only the goroutine that runs rounds knows, as of the last one.
type facts struct {
	paths   int
	bytes   int64
	seq     uint64
	scanned time.Time
}

// remember makes the facts known.
func (s *session) remember() {
	s.facts.Store(&facts{s.index.Len(), s.index.Bytes(), s.lease.LastSeq(), s.lastScan})
}

// status may be called from any goroutine.
func (s *session) status() Status {
	f, watch := s.facts.Load(), s.watcher.State()
	now := Status{
		Version: s.Version, Time: time.Now().UTC(), Epoch: s.lease.Epoch(), Seq: f.seq,
		Paths: f.paths, Bytes: f.bytes, Dirty: s.dirty.Len(),
		Watches: watch.Watches, Polled: watch.Polled, LastScan: f.scanned, Halted: s.report.Halted(),
	}
	now.Late, now.LateAll = s.report.Causes(func(r reason) bool { return !r.final })
	now.Skipped, now.SkipAll = s.report.Causes(func(r reason) bool { return r.final })
	_, now.Unstable = s.report.Causes(func(r reason) bool { return strings.HasPrefix(r.text, settleStep) })
	return now
}
