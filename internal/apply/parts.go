package apply

import (
	"encoding/hex"
	"errors"
	"sync"
	"syscall"
	"time"

	"treecast/internal/events"
)

// parts are the large bodies under construction: one file a path, in parts/ of
// the staging. One that is left by an error, a kill or a power cut gives its
// chunks to the next try, which believes none without its digest.
type parts struct {
	dir directory

	mu    sync.Mutex
	names map[string]bool // that are there
}

const (
	partsName = "parts"
	// partKeep is how long a part waits for another try.
	partKeep = 24 * time.Hour
)

// partName owes nothing to the length of the path's own name.
func partName(p events.Path) string {
	sum := events.Sum([]byte(p.String()))
	return hex.EncodeToString(sum[:16])
}

// open opens the part of p, which is made if it is missing.
func (ps *parts) open(p events.Path) (file, error) {
	ps.note(p, true)
	return ps.dir.openRecord(partName(p))
}

func (ps *parts) note(p events.Path, there bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if there {
		ps.names[partName(p)] = true
	} else {
		delete(ps.names, partName(p))
	}
}

// takeBack makes a temp the part again that it was.
func (ps *parts) takeBack(tmp directory, t *temp) error {
	err := tmp.rename(t.name, ps.dir, t.part, replacing)
	if err == nil {
		ps.mu.Lock()
		ps.names[t.part] = true
		ps.mu.Unlock()
	}
	return err
}

// remove removes the part of p, if there is one: nothing is to be built of it
// any more.
func (ps *parts) remove(p events.Path) error {
	ps.mu.Lock()
	idle := len(ps.names) == 0
	there := !idle && ps.names[partName(p)]
	ps.mu.Unlock()
	if !there {
		return nil
	}
	err := ps.dir.remove(partName(p), false)
	if err == nil || errors.Is(err, syscall.ENOENT) {
		ps.note(p, false)
		return nil
	}
	return err
}

// expire removes the parts that nobody came back for, and learns which are
// left.
func (ps *parts) expire(now time.Time) error {
	names, err := ps.dir.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		st, err := ps.dir.lstat(name)
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		if err != nil {
			return err
		}
		old := now.Sub(time.Unix(st.ctime.Sec, 0)) > partKeep
		if old {
			if err := ps.dir.remove(name, st.kind == events.Dir); err != nil && !errors.Is(err, syscall.ENOENT) {
				return err
			}
		}
		ps.mu.Lock()
		if old {
			delete(ps.names, name)
		} else {
			ps.names[name] = true
		}
		ps.mu.Unlock()
	}
	return nil
}
