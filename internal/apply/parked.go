package apply

import (
	"encoding/json"
	"slices"
	"sync"
	"time"

	"treecast/internal/events"
)

// A Parked is an entry that was refused for good.
type Parked struct {
	Seq     uint64    `json:"seq"` // in the stream
	Subject string    `json:"subject"`
	Path    string    `json:"path"` // as the entry had it, empty if that could not be read
	Reason  string    `json:"reason"`
	Time    time.Time `json:"time"`
}

// maxParked is how many refused entries are kept; the oldest go first. A
// stream that is under attack must not fill a node's disk.
const maxParked = 1000

// parking is the durable list of what was refused.
type parking struct {
	mu    sync.Mutex
	slots *slots
	list  []Parked
}

func newParking(staging directory) *parking {
	return &parking{slots: &slots{dir: staging, places: [2]place{{"parked.0", 0}, {"parked.1", 0}}}}
}

// load reads the list at Open; one that cannot be read is begun anew, as the
// entries are still in the stream.
func (k *parking) load() error {
	record, err := k.slots.load()
	if err != nil || record == nil {
		return err
	}
	return json.Unmarshal(record, &k.list)
}

// Park adds p to the durable list of refused entries; an older one of the same
// sequence is replaced. It is durable on return, so that the entry may be
// acked. Errors are *[StepError] with step "park".
//
// Park, Unpark and Parked may be called from many goroutines at once.
func (t *Tree) Park(p Parked) error {
	return t.repark(func(list []Parked) []Parked {
		list = slices.DeleteFunc(list, func(q Parked) bool { return q.Seq == p.Seq })
		list = append(list, p)
		return list[max(0, len(list)-maxParked):]
	})
}

// Unpark takes off the list what was refused of path: a newer entry of it was
// applied.
func (t *Tree) Unpark(path events.Path) error {
	name := path.String()
	t.parking.mu.Lock()
	known := slices.ContainsFunc(t.parking.list, func(q Parked) bool { return q.Path == name })
	t.parking.mu.Unlock()
	if !known {
		return nil
	}
	return t.repark(func(list []Parked) []Parked {
		return slices.DeleteFunc(list, func(q Parked) bool { return q.Path == name })
	})
}

func (t *Tree) repark(change func([]Parked) []Parked) error {
	k := t.parking
	k.mu.Lock()
	defer k.mu.Unlock()
	list := change(slices.Clone(k.list))
	record, err := json.Marshal(list)
	if err == nil {
		err = k.slots.write(record)
	}
	if err != nil {
		return step("park", events.Path{}, err)
	}
	k.list = list
	return nil
}

// Parked returns the refused entries, the oldest first. It is empty for a tree
// from [OpenReadOnly].
func (t *Tree) Parked() []Parked {
	t.parking.mu.Lock()
	defer t.parking.mu.Unlock()
	return slices.Clone(t.parking.list)
}
