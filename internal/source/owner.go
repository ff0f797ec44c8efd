package source

import (
	"errors"
	"os/user"
	"strconv"
	"sync"
	"time"
)

// names are the names of accounts, remembered. A number that has no name is
// asked about again once a minute, for the account may be made later; one that
// has keeps it until the process ends, so that an account database that does
// not answer for a while does not look like a change of every entry.
type names struct {
	none   bool // nothing has a name here
	mu     sync.RWMutex
	owners map[uint32]accountName
	groups map[uint32]accountName
}

type accountName struct {
	name  string
	until time.Time // zero: for good
}

const namelessFor = time.Minute

func newNames(none bool) *names {
	return &names{none: none, owners: map[uint32]accountName{}, groups: map[uint32]accountName{}}
}

// owner returns the name of uid, "" if it has none.
func (n *names) owner(uid uint32) string {
	return n.get(n.owners, uid, func(id string) (string, error) {
		u, err := user.LookupId(id)
		if err != nil {
			return "", err
		}
		return u.Username, nil
	})
}

// group returns the name of gid, "" if it has none.
func (n *names) group(gid uint32) string {
	return n.get(n.groups, gid, func(id string) (string, error) {
		g, err := user.LookupGroupId(id)
		if err != nil {
			return "", err
		}
		return g.Name, nil
	})
}

func (n *names) get(in map[uint32]accountName, id uint32, lookup func(string) (string, error)) string {
	if n.none {
		return ""
	}
	n.mu.RLock()
	known, ok := in[id]
	n.mu.RUnlock()
	if ok && (known.until.IsZero() || time.Now().Before(known.until)) {
		return known.name
	}
	name, err := lookup(strconv.FormatUint(uint64(id), 10))
	fresh := accountName{name: name}
	if err != nil || name == "" {
		fresh.until = time.Now().Add(namelessFor)
		var noUser user.UnknownUserIdError
		var noGroup user.UnknownGroupIdError
		if err != nil && !errors.As(err, &noUser) && !errors.As(err, &noGroup) {
			fresh.until = time.Now().Add(time.Second)
		}
	}
	n.mu.Lock()
	in[id] = fresh
	n.mu.Unlock()
	return fresh.name
}
