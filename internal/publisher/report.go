package publisher

import (
	"cmp"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"

	"treecast/internal/events"
	"treecast/internal/source"
	"treecast/internal/stream"
)

// A report keeps what is at the source and not in the stream as it is, and why
// (P5): each path once, logged when its reason is new. It may be used from
// many goroutines.
type report struct {
	log *slog.Logger

	mu      sync.Mutex
	reasons map[string]reason // by path
	version int               // counts the changes
	halted  string            // why nothing is published at all
}

// A reason says why a path is not published, and what that means for nodes.
type reason struct {
	text    string
	unknown unknown
	final   bool // no retry is due: only a change of the path can help
}

// unknown is what cannot be told from the stream for a path with a reason.
type unknown int

const (
	nothing     unknown = iota // no node can have it
	arriving                   // for the moment, that the path exists
	unpublished                // that the path exists, unless it was published before
	below                      // what is under it
)

func newReport(log *slog.Logger) *report {
	return &report{log: log, reasons: make(map[string]reason)}
}

// Skipped notes a path that is there but not for publishing. What the filter
// excludes is not noted: that was asked for.
func (r *report) Skipped(skip *source.SkipError, of unknown) {
	switch skip.Reason {
	case source.Excluded, source.Reserved:
		return
	case source.Special:
		of = nothing
	case source.OtherDevice, source.BadName:
		of = below
	}
	if r.note(skip.Path, reason{skip.Reason.String(), of, true}) {
		r.log.Warn("skipped, nodes keep what they have", "path", strconv.Quote(skip.Path), "err", skip)
	}
}

// Failed notes a path that could not be looked at or read, and is tried again.
func (r *report) Failed(step, path string, err error, of unknown) {
	if r.note(path, reason{step + ": " + err.Error(), of, false}) {
		r.log.Warn("will try again, nodes keep what they have", "step", step, "path", strconv.Quote(path), "err", err)
	}
}

// Late notes a path that is on its way, as many are, and what it waits for; that
// is not logged.
func (r *report) Late(path string, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.reasons[path]; !known {
		r.reasons[path] = reason{"on its way: " + why.Error(), arriving, false}
		r.version++
	}
}

// Cleared forgets what was noted of e's path, which is published as e. What is
// under a directory only a listing tells.
func (r *report) Cleared(e *events.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Kind != events.Dir || r.reasons[e.Path.String()].unknown != below {
		r.forget(e.Path.String())
	}
}

// Listed forgets what was noted of a directory.
func (r *report) Listed(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(path)
}

func (r *report) forget(path string) {
	if _, known := r.reasons[path]; known {
		delete(r.reasons, path)
		r.version++
	}
}

// Gone forgets what was noted of path and all under it.
func (r *report) Gone(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.reasons {
		if p == path || strings.HasPrefix(p, path+"/") {
			delete(r.reasons, p)
			r.version++
		}
	}
}

// Prune forgets what was noted of paths that are gone.
func (r *report) Prune(gone func(path string) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for path := range r.reasons {
		if gone(path) {
			r.forget(path)
		}
	}
}

func (r *report) note(path string, why reason) (isNew bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reasons[path] == why {
		return false
	}
	r.reasons[path] = why
	r.version++
	return true
}

// Version changes whenever the report does.
func (r *report) Version() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.version
}

// Whole reports whether x has all that is known to be at the source. A stream
// that was whole before stays so while paths are only arriving: else each new
// file would be told of twice.
func (r *report) Whole(x *index, before bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for path, why := range r.reasons {
		switch {
		case why.unknown == below:
			return false
		case why.unknown == unpublished, why.unknown == arriving && !before:
			if p, err := events.ParsePath(path); err != nil || !x.Has(p) {
				return false
			}
		}
	}
	return true
}

// Halt notes why nothing is published at all, "" that this is over. It returns
// whether that is new.
func (r *report) Halt(why string) (isNew bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	isNew = r.halted != why
	r.halted = why
	return isNew
}

// Halted returns why nothing is published at all, "" if that is not so.
func (r *report) Halted() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.halted
}

// reportCauses is how many paths an answer names.
const reportCauses = 20

// Causes returns the first of the paths whose reason is asked for, by name, and
// how many there are.
func (r *report) Causes(of func(reason) bool) (causes []stream.Cause, count int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for path, why := range r.reasons {
		if of(why) {
			causes = append(causes, stream.Cause{Path: strconv.Quote(path), Reason: why.text})
		}
	}
	slices.SortFunc(causes, func(a, b stream.Cause) int { return cmp.Compare(a.Path, b.Path) })
	return causes[:min(len(causes), reportCauses)], len(causes)
}

// Counts returns how many paths there are for each reason.
func (r *report) Counts() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := make(map[string]int)
	for _, why := range r.reasons {
		counts[why.text]++
	}
	return counts
}
