package apply

import (
	"os"
	"os/user"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

// rights is what the process may do to files, as it was at Open.
type rights struct {
	uid                          uint32
	groups                       map[uint32]bool // also the effective one
	chown, fowner, fsetid, mknod bool
}

// processRights asks the kernel; where it cannot say, root may do everything
// and others nothing.
func processRights() rights {
	r := rights{uid: uint32(os.Geteuid()), groups: map[uint32]bool{uint32(os.Getegid()): true}}
	if gids, err := os.Getgroups(); err == nil {
		for _, g := range gids {
			r.groups[uint32(g)] = true
		}
	}
	root := r.uid == 0
	r.chown, r.fowner, r.fsetid, r.mknod = root, root, root, root
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) == nil {
		has := func(c int) bool { return data[c/32].Effective&(1<<(c%32)) != 0 }
		r.chown, r.fowner = has(unix.CAP_CHOWN), has(unix.CAP_FOWNER)
		r.fsetid, r.mknod = has(unix.CAP_FSETID), has(unix.CAP_MKNOD)
	}
	return r
}

// ownerRight reports whether a path that has uid and gid is as near to the
// wanted owner as this process can bring it.
func (r *rights) ownerRight(st stat, uid, gid uint32) bool {
	if r.chown {
		return st.uid == uid && st.gid == gid
	}
	if st.uid != uid && uid == r.uid && st.kind != events.Dir {
		return false // a file of our own can replace it
	}
	return st.gid == gid || !r.groups[gid] || st.kind == events.Dir && st.uid != r.uid
}

// modeRight does the same for the mode. The kernel drops setgid from a file
// whose group we are not in, chmod(2).
func (r *rights) modeRight(st stat, mode uint16) bool {
	if st.mode == mode || st.kind == events.Symlink {
		return true
	}
	if !r.fsetid && st.mode == mode&^unix.S_ISGID && !r.groups[st.gid] {
		return true
	}
	return st.kind == events.Dir && !r.owns(st)
}

// owns reports whether the process may change mode and times of a path.
func (r *rights) owns(st stat) bool { return r.fowner || st.uid == r.uid }

// accounts finds the numbers of owners and groups by name. Its methods may be
// called from many goroutines at once.
type accounts struct {
	numeric bool

	mu     sync.Mutex
	users  map[string]account
	groups map[string]account
}

type account struct {
	id    uint32
	found bool
	until time.Time
}

// An account that is added or changed is noticed within accountTTL.
const accountTTL = time.Minute

func newAccounts(numeric bool) *accounts {
	return &accounts{numeric: numeric, users: map[string]account{}, groups: map[string]account{}}
}

// owner returns the numbers that e's owner has on this host: by name, else as
// the source has them. As with rsync, the source's 0 is always 0 here.
func (a *accounts) owner(e *events.Entry) (uid, gid uint32) {
	uid, gid = e.UID, e.GID
	if a.numeric {
		return uid, gid
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if uid != 0 {
		uid = look(a.users, e.Owner, uid, func(name string) (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		})
	}
	if gid != 0 {
		gid = look(a.groups, e.Group, gid, func(name string) (string, error) {
			g, err := user.LookupGroup(name)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		})
	}
	return uid, gid
}

func look(known map[string]account, name string, number uint32, lookup func(string) (string, error)) uint32 {
	if name == "" {
		return number
	}
	now := time.Now()
	acc, ok := known[name]
	if !ok || now.After(acc.until) {
		acc = account{until: now.Add(accountTTL)}
		if text, err := lookup(name); err == nil {
			if id, err := strconv.ParseUint(text, 10, 32); err == nil && id != 1<<32-1 {
				acc.id, acc.found = uint32(id), true
			}
		}
		if len(known) >= 10_000 { // names come from the wire
			clear(known)
		}
		known[name] = acc
	}
	if !acc.found {
		return number
	}
	return acc.id
}
