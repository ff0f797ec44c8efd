package subscriber

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"treecast/internal/apply"
	"treecast/internal/events"
	"treecast/internal/stream"
)

// A Status is what a node says of itself, in the bucket <site>-nodes and, as it
// is at that moment, to who asks. Paths are
// quoted as in Go, so that no name can forge a line on a terminal.
type Status struct {
	Instance string         `json:"instance"` // of this run
	Version  string         `json:"version"`
	Time     time.Time      `json:"time"`
	Stream   time.Time      `json:"stream"` // when the stream was created that the rest is of
	Epoch    uint64         `json:"epoch"`  // the newest lease at or before Seq
	Seq      uint64         `json:"seq"`    // all up to it is durable here, or parked
	Known    time.Time      `json:"known"`  // when the newest message was stored that it knows of
	Applied  uint64         `json:"applied"`
	LastPath string         `json:"last_path,omitempty"`
	Held     []stream.Cause `json:"held,omitempty"` // the first of them
	HeldAll  int            `json:"held_count,omitempty"`
	Parked   []stream.Cause `json:"parked,omitempty"`
	ParkAll  int            `json:"parked_count,omitempty"`
	Drift    []stream.Cause `json:"drifted,omitempty"`       // the last of them, the reason as rsync -i has it
	DriftAll int            `json:"drifted_count,omitempty"` // paths that had changed here and were mended, in this run
	Scrubbed time.Time      `json:"scrubbed,omitzero"`       // when all of the tree had been read last
	Halted   string         `json:"halted,omitempty"`
	FreeSize int64          `json:"free_bytes"`
}

const (
	statusCauses   = 20 // of each sort that a status names
	statusInterval = 2 * time.Second
)

// status gathers a node's status. It may be used from many goroutines.
type status struct {
	site    events.Site
	node    string
	root    string
	log     *slog.Logger
	tree    *apply.Tree
	changed chan struct{} // cap 1

	mu     sync.Mutex
	now    Status
	causes map[events.Path]string // held paths whose cause was logged
}

func newStatus(o *Options, tree *apply.Tree) *status {
	s := &status{
		site: o.Site, node: o.Node, root: o.Root, log: o.Log, tree: tree, changed: make(chan struct{}, 1),
		now:    Status{Instance: rand.Text(), Version: o.Version, Scrubbed: tree.Scrub().Done},
		causes: make(map[events.Path]string),
	}
	s.signal()
	return s
}

func (s *status) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *status) setHalted(cause string) {
	s.mu.Lock()
	changed := s.now.Halted != cause
	s.now.Halted = cause
	s.mu.Unlock()
	if changed {
		s.signal()
	}
}

// applied notes that path holds what its newest entry says.
func (s *status) applied(path events.Path) {
	s.mu.Lock()
	s.now.Applied++
	s.now.LastPath = strconv.Quote(path.String())
	delete(s.causes, path)
	s.mu.Unlock()
}

// drifted notes that path had changed on this node, and is mended.
func (s *status) drifted(path events.Path, item string) {
	s.mu.Lock()
	s.now.DriftAll++
	s.now.Drift = append(s.now.Drift, stream.Cause{Path: strconv.Quote(path.String()), Reason: item})
	s.now.Drift = s.now.Drift[max(0, len(s.now.Drift)-statusCauses):]
	s.mu.Unlock()
	s.signal()
}

// scrubbed notes when a scrub ended.
func (s *status) scrubbed(at time.Time) {
	s.mu.Lock()
	s.now.Scrubbed = at
	s.mu.Unlock()
	s.signal()
}

// held notes why path waits, and logs it once per cause.
func (s *status) held(path events.Path, cause error) {
	s.mu.Lock()
	known := s.causes[path] == cause.Error()
	s.causes[path] = cause.Error()
	s.mu.Unlock()
	if !known {
		s.log.Warn("held, will try again; other paths go on", "path", strconv.Quote(path.String()), "err", cause)
	}
}

// follow notes where the node stands.
func (s *status) follow(mark apply.Watermark, held []*hold) {
	s.mu.Lock()
	s.now.Stream, s.now.Epoch, s.now.Seq, s.now.Known = mark.Stream, mark.Epoch, mark.Seq, mark.Last
	s.now.HeldAll = len(held)
	s.now.Held = s.now.Held[:0]
	for _, x := range held[:min(len(held), statusCauses)] {
		s.now.Held = append(s.now.Held, stream.Cause{Path: strconv.Quote(x.entry.Path.String()), Reason: x.cause})
	}
	s.mu.Unlock()
	s.signal()
}

// keep publishes the status when it changed, at most every statusInterval: a
// node at rest writes nothing. A status that cannot be published is only that:
// the tree is kept all the same.
func (s *status) keep(ctx context.Context, conn *stream.Conn) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.changed:
		}
		if err := conn.PutStatus(ctx, s.site, s.node, s.encode()); err != nil && ctx.Err() == nil {
			s.log.Debug("status not published", "err", err)
		}
		if err := pause(ctx, statusInterval); err != nil {
			return err
		}
	}
}

// answer tells who asks how the node is, until ctx ends.
func (s *status) answer(ctx context.Context, conn *stream.Conn) error {
	for {
		stop, err := conn.AnswerAsNode(ctx, s.site, s.node, s.encode)
		if err == nil {
			<-ctx.Done()
			stop()
			return ctx.Err()
		}
		if errors.Is(err, stream.ErrDenied) {
			s.log.Warn("may not answer who asks how this node is: publisher wait cannot be told", "err", err)
			return nil
		}
		if err := pause(ctx, statusInterval); err != nil {
			return err
		}
	}
}

func (s *status) encode() json.RawMessage {
	parked := s.tree.Parked()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := &s.now
	now.Time = time.Now().UTC()
	now.ParkAll = len(parked)
	now.Parked = now.Parked[:0]
	for _, p := range parked[:min(len(parked), statusCauses)] {
		now.Parked = append(now.Parked, stream.Cause{Path: strconv.Quote(p.Path), Reason: p.Reason})
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(s.root, &fs); err == nil {
		now.FreeSize = int64(fs.Bavail) * fs.Bsize //nolint:gosec // a disk's size fits
	}
	b, err := json.Marshal(now)
	if err != nil { // strings and numbers alone
		s.log.Error("status not encoded", "err", err)
	}
	return b
}
