package apply

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"syscall"
	"time"

	"treecast/internal/events"
)

// A Scrub says how far a node has got with reading its whole tree.
type Scrub struct {
	Due  time.Time   // when the next one begins; in the past, the one under way did
	At   events.Path // the one under way has looked at all up to it; the root: at nothing yet
	Done time.Time   // when the last one ended; zero: none did
}

// Decayed is how a file looks whose size, time and attributes are right and
// whose bytes are not, or cannot be read.
const Decayed = ">fc........"

// checkBlock is what Check reads at once, and says to pace before.
const checkBlock = 128 << 10

// Check says how what stands at e's path differs from e, itemized as in a
// [Difference]; "" if it does not, or if something happens to the file while
// it is read. It is Compare with checksum of one path, for who has time: pace is
// called before so many bytes are read, and may wait, and the page cache is
// left as it was. A tombstone is not looked at.
//
// The difference may be of a Commit under way, or of a newer entry that was
// committed: Stage and Commit, which look again, have the last word. They do not
// believe what is remembered of a file that Check found decayed.
//
// Errors are *[StepError], of what could not be looked at, or pace's.
func (t *Tree) Check(ctx context.Context, e *events.Entry, pace func(ctx context.Context, bytes int) error) (string, error) {
	if e.Kind == events.Tombstone || t.unwanted(e.Kind) {
		return "", nil
	}
	st, err := t.root.lstat(e.Path.String())
	switch {
	case absent(err):
		if (e.Kind == events.CharDevice || e.Kind == events.BlockDevice) && !t.rights.mknod {
			return "", nil
		}
		return creation(e.Kind), nil
	case err == nil && st.dev != t.rootDev:
		err = ErrMount
	}
	var item string
	if err == nil {
		item, err = t.itemize(st, e, false)
	}
	if err == nil && item == "" && e.Kind == events.File {
		item, err = t.checkBytes(ctx, st, e, pace)
	}
	return item, step("check", e.Path, err)
}

// checkBytes reads the file at e's path, which looked right when it was st.
func (t *Tree) checkBytes(ctx context.Context, st stat, e *events.Entry, pace func(context.Context, int) error) (string, error) {
	f, err := t.root.openFile(e.Path.String())
	if absent(err) || errors.Is(err, syscall.EINVAL) {
		return "", nil // it was right a moment ago
	}
	if err != nil {
		return "", err
	}
	defer f.close()
	h := sha256.New()
	buf := make([]byte, min(e.Size, checkBlock))
	for off := int64(0); off < e.Size; {
		b := buf[:min(e.Size-off, checkBlock)]
		if err := pace(ctx, len(b)); err != nil {
			return "", err
		}
		n, err := f.readCold(b, off)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EIO) {
			return "", err
		}
		h.Write(b[:n])
		if off += int64(n); err != nil {
			break // it is short, or the disk has lost it
		}
	}
	now, err := f.stat()
	if err != nil || !now.same(st) || events.Digest(h.Sum(nil)) == e.Digest {
		return "", err
	}
	t.known.forget(st)
	return Decayed, nil
}

// scrubbing is the durable [Scrub].
type scrubbing struct {
	mu    sync.Mutex
	slots *slots
	now   Scrub
}

// scrubRecord is a Scrub as it is kept; At is quoted as in Go.
type scrubRecord struct {
	Due  time.Time `json:"due"`
	At   string    `json:"at"`
	Done time.Time `json:"done,omitzero"`
}

func newScrubbing(staging directory) *scrubbing {
	return &scrubbing{slots: &slots{dir: staging, places: [2]place{{"scrub.0", 0}, {"scrub.1", 0}}}}
}

// load reads the record at Open; one that cannot be read is as none.
func (k *scrubbing) load() error {
	record, err := k.slots.load()
	if err != nil || record == nil {
		return err
	}
	var r scrubRecord
	if err := json.Unmarshal(record, &r); err != nil {
		return err
	}
	name, err := strconv.Unquote(r.At)
	if err != nil {
		return fmt.Errorf("%q: %w", r.At, err)
	}
	at, err := events.ParsePath(name)
	if err == nil {
		k.now = Scrub{r.Due, at, r.Done}
	}
	return err
}

// Scrub returns what [Tree.MarkScrub] made durable last; the zero Scrub if it
// was never called.
//
// Scrub and MarkScrub may be called while other methods run.
func (t *Tree) Scrub() Scrub {
	t.scrubbing.mu.Lock()
	defer t.scrubbing.mu.Unlock()
	return t.scrubbing.now
}

// MarkScrub keeps s, durably on return. Errors are *[StepError].
func (t *Tree) MarkScrub(s Scrub) error {
	k := t.scrubbing
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.slots == nil {
		return step("scrub", events.Path{}, ErrReadOnly)
	}
	record, err := json.Marshal(scrubRecord{s.Due, strconv.Quote(s.At.String()), s.Done})
	if err == nil {
		err = k.slots.write(record)
	}
	if err != nil {
		return step("scrub", events.Path{}, err)
	}
	k.now = s
	return nil
}
