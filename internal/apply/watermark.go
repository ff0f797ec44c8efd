package apply

import (
	"encoding/json"
	"time"

	"treecast/internal/events"
)

// A Watermark is how far a node has applied a stream: the entries of Site's
// stream up to Seq are durable in the tree. Stream is when the stream was
// created, which tells a new stream of the same name from the old one; Epoch
// is of the newest lease at or before Seq, and Time is when the message at Seq
// was stored. Last is the newest time, of the server's clock, at which a message
// that the node knew was stored, and Known the highest sequence of one: Seq stays
// below what is held, while what comes after that is applied. One that is at or
// before Known and newer than Last is of another history of the stream. Unswept says that what is foreign in the tree was not told yet,
// Lacking that Seq is low for want of some entry that the last comparison of the
// whole tree could not apply yet: most of what comes after it is in the tree.
type Watermark struct {
	Site    events.Site
	Stream  time.Time
	Epoch   uint64
	Seq     uint64
	Time    time.Time
	Last    time.Time
	Known   uint64
	Unswept bool
	Lacking bool
}

// markRecord is a watermark as it is kept. Root is the inode of the root that
// it speaks of: a watermark beside a root that was replaced by another
// directory would vouch for files that are not there.
type markRecord struct {
	Site   events.Site `json:"site"`
	Stream time.Time   `json:"stream"`
	Epoch  uint64      `json:"epoch"`
	Seq    uint64      `json:"seq"`
	Time   time.Time   `json:"time"`
	Last   time.Time   `json:"last,omitzero"`
	Known  uint64      `json:"known,omitempty"`
	Root   uint64      `json:"root"`

	Unswept bool `json:"unswept,omitempty"`
	Lacking bool `json:"lacking,omitempty"`
}

const (
	markFile     = "watermark"
	markSlotSize = 4096 // a page: the two versions share none
)

func newMarkSlots(staging directory) *slots {
	return &slots{dir: staging, places: [2]place{{markFile, 0}, {markFile, markSlotSize}}, max: markSlotSize}
}

// Watermark returns the last one that [Tree.Mark] made durable. It reports
// false if there is none, if it cannot be read, or if it was made for another
// directory than the one that is the root now; the tree then has to be
// reconciled. Always false for a tree from [OpenReadOnly].
func (t *Tree) Watermark() (Watermark, bool) {
	t.markMu.Lock()
	defer t.markMu.Unlock()
	if t.mark == nil {
		return Watermark{}, false
	}
	return *t.mark, true
}

// Mark makes w the tree's watermark, durably on return. Whatever w speaks of
// must be durable before: that is, its Commit must have returned. After an
// error the watermark is the old one or w.
//
// Mark may be called while other methods run. Errors are *[StepError].
func (t *Tree) Mark(w Watermark) error {
	t.markMu.Lock()
	defer t.markMu.Unlock()
	if t.marks == nil {
		return step("mark", events.Path{}, ErrReadOnly)
	}
	record, err := json.Marshal(markRecord{w.Site, w.Stream, w.Epoch, w.Seq, w.Time, w.Last, w.Known, t.rootIno, w.Unswept, w.Lacking})
	if err == nil {
		err = t.marks.write(record)
	}
	if err != nil {
		return step("mark", events.Path{}, err)
	}
	t.mark = &w
	return nil
}

// loadMark reads the watermark at Open; one that cannot be understood counts
// as none.
func (t *Tree) loadMark() error {
	record, err := t.marks.load()
	if err != nil || record == nil {
		return err
	}
	var r markRecord
	if err := json.Unmarshal(record, &r); err != nil {
		t.log.Warn("watermark is unreadable, the tree has to be reconciled", "err", err)
		return nil
	}
	if r.Root != t.rootIno {
		t.log.Warn("watermark is of another root directory, the tree has to be reconciled")
		return nil
	}
	t.mark = &Watermark{r.Site, r.Stream, r.Epoch, r.Seq, r.Time, r.Last, r.Known, r.Unswept, r.Lacking}
	return nil
}
