package apply_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"treecast/internal/apply"
	"treecast/internal/events"
	"treecast/internal/subscriber"
)

// A node is a subscriber's core on a real tree, whose disk and power can fail,
// and what it promised so far.
type node struct {
	t       *rapid.T
	site    *site
	scratch string // a directory for each disk that it has had
	disks   int
	top     string
	power   *apply.Power
	tree    *apply.Tree
	core    *subscriber.Replica // nil: it is down
	next    uint64              // the last message that was delivered, or a reconcile did for
	history int                 // the site's, when the session began
	began   int                 // the site's, when one began last that did not have to wait
	waits   bool                // for a publisher, to begin

	known  int                  // the newest place in the site's log that it can know
	acked  map[events.Path]int  // the newest place in the log that was acked, or is below the watermark
	stands map[events.Path]int  // what stood there when it was looked at last: the place in the log that it is of, or -1
	others map[events.Path]bool // what an operator had his hands on: nothing is promised of it
}

func (n *node) root() string { return filepath.Join(n.top, "html") }

// start is the program's start, on the disk that is there. It may break.
func (n *node) start(kind apply.Fault, at int) {
	if n.power == nil {
		n.power = apply.NewPower(n.t, n.top)
	}
	n.power.Arm(kind, at)
	for n.core == nil {
		o := apply.Options{Root: n.root(), Site: siteName, Node: "b", NumericIDs: true, Specials: true, Codec: n.site.codec}
		tree, err := apply.OpenOn(o, n.power)
		if err == nil {
			n.tree = tree
			so := subscriber.Options{Site: siteName, Node: "b", Root: n.root(), NumericIDs: true, Specials: true, Log: slog.New(slog.DiscardHandler)}
			n.core, err = subscriber.NewReplica(n.site, n.site, tree, so, n.ack)
			must(n.t, err)
			if n.begin() {
				return
			}
			continue
		}
		n.broke(err)
	}
}

// begin finds out where the node stands; false means that it is down, or waits.
func (n *node) begin() bool {
	n.known, n.history = len(n.site.log)-1, n.site.history
	next, err := n.core.Begin(n.t.Context())
	n.known = len(n.site.log) - 1 // a snapshot may have seen what came meanwhile
	n.next = next
	if err == nil {
		n.began = n.history
	}
	return n.session(err)
}

// session does what follows an error; false means that the node is down, or
// waits.
func (n *node) session(err error) bool {
	n.waits = errors.Is(err, subscriber.ErrUnvouched) && !n.power.Dead()
	if n.waits && n.began == n.history {
		n.t.Fatalf("it waits, and the stream did not go back: %v", err)
	}
	if n.waits {
		return false
	}
	if err == nil && !n.power.Dead() {
		return true
	}
	if errors.Is(err, subscriber.ErrAgain) {
		return n.begin()
	}
	if n.power.Dead() {
		n.stop()
		n.broke(err)
		return false
	}
	if !errors.Is(err, syscall.EIO) {
		n.t.Fatalf("neither disk nor power failed: %v", err)
	}
	n.power.Arm(apply.FailBefore, 0)
	return n.begin()
}

// broke puts the power on again after it failed: or it was only the process that
// was killed.
func (n *node) broke(err error) {
	switch {
	case !n.power.Dead() && !errors.Is(err, syscall.EIO):
		n.t.Fatal(err)
	case n.power.Dead() && rapid.Bool().Draw(n.t, "only killed"):
		n.power.Revive()
	case n.power.Dead():
		n.newDisk()
	}
	n.power.Arm(apply.FailBefore, 0)
	n.stands = nil
	n.check("after a crash")
}

// newDisk is what a power cut leaves.
func (n *node) newDisk() {
	n.disks++
	top := filepath.Join(n.scratch, fmt.Sprint(n.disks))
	n.power.Survive(n.t, top)
	n.top = top
	n.power = apply.NewPower(n.t, top)
}

func (n *node) stop() {
	if n.core != nil {
		_ = n.core.Close() // of a dead disk, perhaps
		n.core = nil
	}
}

func (n *node) ack(seq uint64) {
	if n.history != n.site.history {
		return // there is no one to hear it
	}
	// What is superseded may be acked without being had: the newer one comes.
	if m, ok := n.site.bySeq(seq); ok && m.entry.Kind != 0 {
		n.acked[m.entry.Path] = max(n.acked[m.entry.Path], m.place)
	}
}

// deliver hands over at most most messages in a group, some of those before it
// again.
func (n *node) deliver(most, again int) {
	if (n.history != n.site.history || n.waits) && !n.begin() {
		return
	}
	group := n.site.next(n.next)
	group = group[:min(most, len(group))]
	if len(group) == 0 {
		return
	}
	last := group[len(group)-1].Seq
	m, _ := n.site.bySeq(last)
	n.known = max(n.known, m.place)
	old := n.site.next(0)
	for i := range min(again, len(old)) {
		if old[i].Seq <= n.next {
			group = append(group, old[i])
		}
	}
	n.next = last
	n.session(n.core.Deliver(n.t.Context(), group))
}

func (n *node) retry() {
	if n.waits {
		n.begin()
		return
	}
	n.session(n.core.Retry(n.t.Context()))
}

// scrub reads the tree; meanwhile the stream goes on. It is of a session.
func (n *node) scrub(meanwhile func()) {
	if n.history != n.site.history || n.waits {
		return
	}
	core := n.core
	same := func() bool { return n.core == core && !n.waits }
	err := core.Scrub(n.t.Context(), func() bool {
		meanwhile()
		return same()
	})
	if same() {
		n.session(err)
	}
}

// look returns what stands in the tree below root, as entries.
func look(t *rapid.T, root string) map[events.Path]events.Entry {
	found := map[events.Path]events.Entry{}
	must(t, filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		must(t, err)
		if rel == events.ReservedName { // staging, where none could be had beside the root
			return fs.SkipDir
		}
		p, err := events.ParsePath(rel)
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Lstat(name, &st))
		e := events.Entry{Path: p, Mode: uint16(st.Mode & 0o7777), UID: st.Uid, GID: st.Gid, Mtime: events.Time{Sec: st.Mtim.Sec, Nsec: int32(st.Mtim.Nsec)}}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			e.Kind = events.Dir
		case unix.S_IFREG:
			e.Kind, e.Size = events.File, st.Size
			data, err := os.ReadFile(name)
			must(t, err)
			e.Digest = events.Sum(data)
		case unix.S_IFLNK:
			e.Kind = events.Symlink
			e.Target, err = os.Readlink(name)
			must(t, err)
		}
		found[p] = e
		return nil
	}))
	return found
}

// shown is e as look has it.
func shown(e events.Entry) events.Entry {
	e.Ctime, e.Body, e.Average, e.List, e.From, e.Whole, e.Epoch, e.Owner, e.Group = events.Time{}, 0, 0, nil, nil, false, 0, "", ""
	return e
}

// is returns the newest place in the log, of those that the node can know, at
// which e was wanted; -1 if it never was. Of a directory the kind counts: its
// attributes are not promised in the midst of work.
func (n *node) is(e events.Entry) int {
	places := n.site.at[e.Path]
	for i := len(places) - 1; i >= 0; i-- {
		m := n.site.log[places[i]].entry
		if places[i] <= n.known && (shown(m) == e || m.Kind == events.Dir && e.Kind == events.Dir) {
			return places[i]
		}
	}
	return -1
}

// removed reports whether the log says, after a place, that nothing stands at p.
func (n *node) removed(p events.Path, after int) bool {
	for q := p; ; q = q.Parent() {
		for _, i := range n.site.at[q] {
			kind := n.site.log[i].entry.Kind
			if i > after && (kind == events.Tombstone || q != p && kind != events.Dir) {
				return true
			}
		}
		if q.IsRoot() {
			return false
		}
	}
}

// holds reports whether something under p was wanted after a place: then p may be
// a directory that was made on the way to it.
func (n *node) holds(p events.Path, after int) bool {
	for q, places := range n.site.at {
		if q != p && q.Within(p) && places[len(places)-1] > after {
			return true
		}
	}
	return false
}

func (n *node) touched(p events.Path) bool {
	for q := range n.others {
		if p.Kin(q) {
			return true
		}
	}
	return false
}

// check looks at the tree for all that is promised at any time.
func (n *node) check(when string) {
	now := look(n.t, n.root())
	broken := func(promise string, p events.Path, args ...any) {
		n.t.Logf("%s: %q, have %+v: %v", when, p, now[p], fmt.Sprint(args...))
		for i, m := range n.site.log {
			n.t.Logf("%d: seq %d %v %q", i, m.Seq, m.entry.Kind, m.entry.Path)
		}
		n.t.Fatal(promise) // the same text each time, or it would not shrink
	}
	stands := map[events.Path]int{}
	for p, e := range now {
		if n.touched(p) {
			continue
		}
		stands[p] = n.is(e)
		if stands[p] < 0 && e.Kind != events.Dir {
			broken("P1 whole: this never was", p)
		}
		if was, ok := n.stands[p]; ok && stands[p] < was && !n.site.unseal {
			broken("older over newer", p, was, " was there, now ", stands[p])
		}
	}
	n.below()
	for p, i := range n.acked {
		if n.touched(p) {
			continue
		}
		at, ok := now[p]
		wanted := n.site.log[i].entry
		switch {
		case !ok && (wanted.Kind == events.Tombstone || n.removed(p, i)):
		case !ok && n.site.live[siteName.Subject(p)].entry.Kind == 0 && n.site.sealed():
		case ok && stands[p] >= i:
		case ok && at.Kind == events.Dir && n.holds(p, i):
		default:
			broken("P2 kept: acked", p, "wanted ", wanted.Kind, " at ", i, ", have that of ", stands[p])
		}
	}
	for p, was := range n.stands {
		if _, ok := now[p]; ok || n.touched(p) || n.removed(p, was) || n.site.unseal {
			continue
		}
		live := n.site.live[siteName.Subject(p)].entry.Kind
		if live != 0 && live != events.Tombstone || !n.site.sealed() {
			broken("P4 deleted without proof", p, was)
		}
	}
	n.stands = stands
}

// below counts what lives below the watermark as acked: it does not come again.
func (n *node) below() {
	if n.core == nil || n.waits || n.history != n.site.history || n.site.unseal {
		return
	}
	mark, ok := n.tree.Watermark()
	if !ok || !mark.Stream.Equal(n.site.created) {
		return
	}
	for _, m := range n.site.live {
		if m.Seq <= mark.Seq {
			n.ack(m.Seq)
		}
	}
}

// forget is for another stream: what it has is told anew.
func (n *node) forget() {
	clear(n.acked)
	n.stands = nil
}
