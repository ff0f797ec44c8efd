package publisher

import (
	"log/slog"
	"strconv"
	"sync"

	"treecast/internal/source"
)

// A report keeps what is not published and why (P5): each path once, logged
// when its reason is new. It may be used from many goroutines.
type report struct {
	log *slog.Logger

	mu      sync.Mutex
	reasons map[string]string // by path
}

func newReport(log *slog.Logger) *report {
	return &report{log: log, reasons: make(map[string]string)}
}

// Skipped notes a path that is there but not for publishing. What the filter
// excludes is not noted: that was asked for.
func (r *report) Skipped(skip *source.SkipError) {
	if skip.Reason == source.Excluded || skip.Reason == source.Reserved {
		return
	}
	if r.note(skip.Path, skip.Reason.String()) {
		r.log.Warn("skipped, nodes keep what they have", "path", strconv.Quote(skip.Path), "err", skip)
	}
}

// Failed notes a path that could not be looked at or read, and is tried again.
func (r *report) Failed(step, path string, err error) {
	if r.note(path, step+": "+err.Error()) {
		r.log.Warn("will try again, nodes keep what they have", "step", step, "path", strconv.Quote(path), "err", err)
	}
}

// Cleared forgets what was noted of path.
func (r *report) Cleared(path string) {
	r.mu.Lock()
	delete(r.reasons, path)
	r.mu.Unlock()
}

func (r *report) note(path, reason string) (isNew bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reasons[path] == reason {
		return false
	}
	r.reasons[path] = reason
	return true
}

// Counts returns how many paths there are for each reason.
func (r *report) Counts() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := make(map[string]int)
	for _, reason := range r.reasons {
		counts[reason]++
	}
	return counts
}
