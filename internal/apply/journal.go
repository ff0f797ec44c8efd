package apply

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"treecast/internal/events"
)

// dirState is what a group must leave a directory with, though its own work
// in the directory alters it: a rename moves the mtime, and a mode without
// write permission may have to be lifted for a moment.
type dirState struct {
	mode  uint16
	mtime events.Time
}

// A journal durably lists directories with the states that they have when no
// group is under way, so that a crash in the middle of one does not leave
// wrong modes and times for ever: a file that is delivered again is found
// right and not written again, and nothing else would mend its directory.
//
// Once a group is done its list stays in force, which costs nothing: it says
// what is true. The invariant is that whatever gives a listed directory another
// state first replaces the list durably; [journal.covers] tells. So a restore
// after any crash repeats the last state that was applied, or the one about to
// be. (A directory that is made at a listed path on the way to something else
// may be given the old one's state; its own entry follows.)
//
// Owned by the goroutine in Commit.
type journal struct {
	slots  *slots
	listed map[events.Path]dirState // what a crash now would restore
	doubt  bool                     // a list was written, and may or may not be durable
}

// maxListed bounds the list; a group that touches more directories lists what
// it needs and no more.
const maxListed = 256

// journalRoom is taken at the start: with it a delete works on a full disk.
const journalRoom = 64 << 10

func newJournal(staging directory) *journal {
	return &journal{
		slots:  &slots{dir: staging, places: [2]place{{"journal.0", 0}, {"journal.1", 0}}},
		listed: map[events.Path]dirState{},
	}
}

// covers reports whether a crash would give the directory at p that state, or
// leave it alone where that is enough: where the directory's own entry is in
// the group and will come again.
func (j *journal) covers(p events.Path, want dirState, comesAgain bool) bool {
	have, ok := j.listed[p]
	switch {
	case j.doubt:
		return false
	case !ok:
		return comesAgain
	}
	return have == want
}

// put writes a list that has need beside what it has already, and returns what
// makes it durable, as [slots.put] does.
func (j *journal) put(need map[events.Path]dirState) (flush func() error, done func(), err error) {
	next := maps.Clone(need)
	if len(j.listed)+len(need) <= maxListed {
		for p, s := range j.listed {
			if _, ok := next[p]; !ok {
				next[p] = s
			}
		}
	}
	j.doubt = true
	flush, slotDone, err := j.slots.put(marshalDirs(next))
	if err != nil {
		return nil, nil, err
	}
	return flush, func() { slotDone(); j.listed, j.doubt = next, false }, nil
}

// clear makes the empty list durable.
func (j *journal) clear() error {
	j.doubt = true
	if err := j.slots.write(nil); err != nil {
		return err
	}
	j.listed, j.doubt = map[events.Path]dirState{}, false
	return nil
}

// load reads the list that was in force when the tree was last held.
func (j *journal) load() error {
	record, err := j.slots.load()
	if err != nil {
		return err
	}
	j.listed, err = parseDirs(record)
	return err
}

// marshalDirs has a line for each directory: mode, mtime, quoted path.
func marshalDirs(dirs map[events.Path]dirState) []byte {
	var b bytes.Buffer
	for _, p := range slices.SortedFunc(maps.Keys(dirs), events.Path.Compare) {
		fmt.Fprintf(&b, "%04o %s %s\n", dirs[p].mode, dirs[p].mtime, strconv.QuoteToASCII(p.String()))
	}
	return b.Bytes()
}

func parseDirs(record []byte) (map[events.Path]dirState, error) {
	dirs := map[events.Path]dirState{}
	for line := range strings.Lines(string(record)) {
		mode, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		mtime, quoted, _ := strings.Cut(rest, " ")
		m, err := strconv.ParseUint(mode, 8, 12)
		if err != nil {
			return nil, fmt.Errorf("journal's line %q: %w", line, err)
		}
		t, err := events.ParseTime(mtime)
		if err != nil {
			return nil, fmt.Errorf("journal's line %q: %w", line, err)
		}
		name, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, fmt.Errorf("journal's line %q: %w", line, err)
		}
		p, err := events.ParsePath(name)
		if err != nil {
			return nil, fmt.Errorf("journal's line %q: %w", line, err)
		}
		dirs[p] = dirState{uint16(m), t}
	}
	return dirs, nil
}
