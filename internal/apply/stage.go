package apply

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

// A Staged is one entry that is ready to be committed. It keeps the payload,
// so that Commit can stage it again if the tree changed meanwhile, or if what
// was staged was lost to a failed sync.
type Staged struct {
	t       *Tree
	e       *events.Entry
	payload []byte
	list    events.ChunkList // of a body in chunks, which Commit cannot stage again
	trail   events.Trail     // of that body; nil: not known
	keep    bool             // what it replaces goes to the trash
	skip    bool             // nothing is to be done, it was reported
	right   bool             // the path was right when it was staged; seen says what it was
	seen    stat
	temp    *temp  // nil: none is needed, or it is used up
	item    string // see Result.Itemized; set by Commit
}

// temp is what stands in tmp, with all of its attributes, to be renamed into
// the tree.
type temp struct {
	name   string
	kind   events.Kind
	file   file // of a File, open for its fsync; nil if it was closed
	synced bool
	part   string // its name in parts, to go back to when it is not committed
}

// Entry returns the entry as it was given to Stage.
func (s *Staged) Entry() *events.Entry { return s.e }

// Keep has Commit put what it replaces into the trash, if that is not a
// directory, which goes there anyway. What cannot be kept is replaced all the same.
func (s *Staged) Keep() { s.keep = true }

// Discard removes what was staged, but for a body in chunks, which is kept for
// the next try; it may be called any number of times, also
// after Commit. It must not be called during one.
func (s *Staged) Discard() {
	if s.temp != nil {
		s.t.dropTemp(s.temp)
		s.temp = nil
	}
}

// Stage readies e: it opens and verifies the body and writes it beside the
// tree with its owner, mode and mtime, unless the path has all of that
// already. Nothing visible is touched. The result is to be committed or
// discarded; e and payload must not change before.
//
// Stage may be called from many goroutines at once.
//
// Errors are *[StepError] with step "stage"; [Permanent] ones say that e or
// payload is bad. After an error nothing is left behind.
func (t *Tree) Stage(ctx context.Context, e *events.Entry, payload []byte) (*Staged, error) {
	s := &Staged{t: t, e: e, payload: payload}
	err := t.stageable(ctx, e)
	if err == nil {
		err = s.stage()
	}
	if err != nil {
		return nil, step("stage", e.Path, err)
	}
	return s, nil
}

// stageable says what keeps e from being staged at all.
func (t *Tree) stageable(ctx context.Context, e *events.Entry) error {
	switch err := ctx.Err(); {
	case err != nil:
		return err
	case t.tmp == nil:
		return ErrReadOnly
	}
	return checkEntry(e)
}

// checkEntry refuses what [events.Decode] would not have made.
func checkEntry(e *events.Entry) error {
	switch {
	case e.Kind < events.File || e.Kind > events.BlockDevice:
		return fmt.Errorf("%w: kind %d", events.ErrVersion, e.Kind)
	case e.Path.IsRoot() && e.Kind != events.Dir:
		return fmt.Errorf("%w: the root as a %s", events.ErrEntry, e.Kind)
	case e.Kind == events.Symlink && (e.Target == "" || len(e.Target) > events.MaxTargetBytes || strings.IndexByte(e.Target, 0) >= 0):
		return fmt.Errorf("%w: symlink's target", events.ErrEntry)
	}
	return nil
}

func (s *Staged) stage() error {
	t, e := s.t, s.e
	if e.Kind == events.Tombstone {
		return nil
	}
	if t.unwanted(e.Kind) {
		t.deny(&t.denied.skipped, "special file is skipped, specials are not enabled", e.Path, ErrSpecial)
		s.skip = true
		return nil
	}
	st, err := t.root.lstat(e.Path.String())
	switch {
	case err == nil && e.Kind == events.Dir && st.kind == events.Dir:
		return nil // its attributes are set in Commit, where its children are too
	case err == nil && t.shows(st, e) && t.holds(e.Path, st, e):
		s.right, s.seen = true, st
		return nil
	case err != nil && !absent(err) && !errors.Is(err, syscall.EACCES):
		return err
	}
	return s.makeTemp()
}

// unwanted reports whether entries of that kind are skipped.
func (t *Tree) unwanted(k events.Kind) bool { return k.Special() && !t.opts.Specials }

// makeTemp makes s.temp, or, if this process may not make such a thing, sets
// s.skip.
func (s *Staged) makeTemp() error {
	t, e := s.t, s.e
	tmp := &temp{name: t.tempName(), kind: e.Kind}
	var err error
	switch e.Kind {
	case events.File:
		if s.list != nil {
			return errGone
		}
		err = t.writeTemp(tmp, e, s.payload)
	case events.Dir:
		mode := e.Mode
		if t.rights.uid != 0 {
			mode |= 0o700 // to be moved, and to be filled; Commit settles it
		}
		if err = t.tmp.mkdir(tmp.name); err == nil {
			err = t.dress(&named{t.tmp, tmp.name}, e, mode)
		}
	case events.Symlink:
		if err = t.tmp.symlink(e.Target, tmp.name); err == nil {
			err = t.dress(&named{t.tmp, tmp.name}, e, e.Mode)
		}
	default:
		if err = t.tmp.mknod(tmp.name, e); err == nil {
			err = t.dress(&named{t.tmp, tmp.name}, e, e.Mode)
		} else if errors.Is(err, syscall.EPERM) {
			t.deny(&t.denied.devices, "device is skipped, making it takes CAP_MKNOD", e.Path, err)
			s.skip = true
			return nil
		}
	}
	if err != nil {
		t.dropTemp(tmp)
		return err
	}
	s.temp = tmp
	return nil
}

// maxOpenTemps is how many temps keep their file open for an fsync of their
// own; beyond that a group is large enough for a syncfs.
const maxOpenTemps = 64

// writeTemp makes tmp a file with e's bytes, or a second name of one that has
// them.
func (t *Tree) writeTemp(tmp *temp, e *events.Entry, payload []byte) error {
	room, ok := t.bodies.Get().(*[]byte)
	if !ok {
		room = new([]byte)
	}
	defer t.bodies.Put(room)
	if e.From != nil && e.Body == events.InlineBody && t.linkTemp(tmp, e, room) {
		return nil
	}
	body, err := t.opts.Codec.Body(e, payload, *room)
	if err != nil {
		return err
	}
	if cap(body) > cap(*room) {
		*room = body
	}
	f, err := t.tmp.create(tmp.name)
	if err != nil {
		return err
	}
	defer t.keepFile(tmp, f)
	if len(body) > 0 {
		if _, err := f.Write(body); err != nil {
			return err
		}
	}
	return t.dress(f, e, e.Mode)
}

// linkTemp makes tmp a second name of the file at e.From, if that is all that e
// wants, as link does for a large file: of a rename at the source, whose old
// name goes with its tombstone. To read it is cheaper than to unpack the
// payload and write that. With false nothing is there, and the payload is to be
// written.
func (t *Tree) linkTemp(tmp *temp, e *events.Entry, room *[]byte) bool {
	f, err := t.root.openFile(e.From.String())
	if err != nil {
		return false
	}
	st, err := f.stat()
	if err == nil && (e.Size > events.MaxDecodedBytes || !t.shows(st, e)) {
		err = errGone
	}
	if err == nil {
		if int64(cap(*room)) < e.Size {
			*room = make([]byte, e.Size)
		}
		body := (*room)[:e.Size]
		if _, err = f.ReadAt(body, 0); err == nil && events.Sum(body) != e.Digest {
			err = events.ErrDigest
		}
	}
	if err == nil {
		var now stat
		if now, err = f.stat(); err == nil && !now.same(st) {
			err = errGone
		}
	}
	if err == nil {
		err = f.link(t.tmp, tmp.name)
	}
	if err != nil {
		t.log.Debug("not linked, will be written", "path", quote(e.Path), "err", err)
		f.close()
		return false
	}
	t.keepFile(tmp, f)
	return true
}

// keepFile leaves f, the file of tmp, open for an fsync, or closes it if many are.
func (t *Tree) keepFile(tmp *temp, f file) {
	if t.open.Add(1) <= maxOpenTemps {
		tmp.file = f
		return
	}
	t.open.Add(-1)
	f.close()
}

// closeFile closes the file of a temp that keeps it open.
func (t *Tree) closeFile(tmp *temp) {
	if tmp.file != nil {
		tmp.file.close()
		tmp.file = nil
		t.open.Add(-1)
	}
}

// dropTemp removes a temp that is not needed, or makes it a part again. What
// cannot be removed is removed by the next Open.
func (t *Tree) dropTemp(tmp *temp) {
	t.closeFile(tmp)
	var err error
	if tmp.part != "" {
		err = t.parts.takeBack(t.tmp, tmp)
	} else {
		err = t.tmp.remove(tmp.name, tmp.kind == events.Dir)
	}
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		t.log.Debug("temporary file could not be removed", "err", err)
	}
}

// tempName returns a name that nothing in tmp has. It owes nothing to the
// path's name, which may be as long as a name can be.
func (t *Tree) tempName() string {
	return t.prefix + strconv.FormatUint(t.temps.Add(1), 36)
}

// newPrefix is random, so that a name from before a crash is not met again.
func newPrefix() string {
	b := make([]byte, 4)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b) + "-"
}

// wearer is something that attributes can be put on.
type wearer interface {
	stat() (stat, error)
	chown(uid, gid uint32) error
	chmod(mode uint16) error
	chtimes(mtime events.Time) error
}

// named wears attributes by its name in a directory of ours, or, with the
// empty name, is that directory.
type named struct {
	d    directory
	name string
}

func (n *named) chown(uid, gid uint32) error     { return n.d.chown(n.name, uid, gid) }
func (n *named) chmod(mode uint16) error         { return n.d.chmod(n.name, mode) }
func (n *named) chtimes(mtime events.Time) error { return n.d.chtimes(n.name, mtime) }
func (n *named) stat() (stat, error) {
	if n.name == "" {
		return n.d.stat()
	}
	return n.d.lstat(n.name)
}

// dress gives something new in tmp its attributes: owner, then mode, since
// chown(2) clears setuid, then times. What this process has no right to set
// it leaves, counts, and logs once.
func (t *Tree) dress(w wearer, e *events.Entry, mode uint16) error {
	gid, err := t.giveOwner(w, e, t.newUID, t.newGID)
	if err != nil {
		return err
	}
	if e.Kind != events.Symlink {
		if err := w.chmod(mode); err != nil {
			return err
		}
		if mode&unix.S_ISGID != 0 && !t.rights.fsetid && !t.rights.groups[gid] {
			t.deny(&t.denied.modes, "setgid could not be set for a group that we are not in", e.Path, syscall.EPERM)
		}
	}
	return t.giveTime(w, e)
}

// giveOwner sets owner and group of what has uid and gid now, and returns the
// group that it has then.
func (t *Tree) giveOwner(w wearer, e *events.Entry, hasUID, hasGID uint32) (gid uint32, err error) {
	const leave = 1<<32 - 1
	uid, gid := t.accounts.owner(e)
	if uid == hasUID && gid == hasGID {
		return gid, nil
	}
	err = syscall.EPERM
	if t.rights.chown {
		err = w.chown(uid, gid)
	} else if gid != hasGID && t.rights.groups[gid] {
		if err = w.chown(leave, gid); err == nil {
			hasGID = gid
			if uid != hasUID {
				err = syscall.EPERM
			}
		}
	}
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL) { // EINVAL: an id that this user namespace has not
		t.deny(&t.denied.owners, "owner or group could not be set, it takes CAP_CHOWN", e.Path, err)
		return hasGID, nil
	}
	return gid, err
}

func (t *Tree) giveTime(w wearer, e *events.Entry) error {
	mtime := t.clock.hold(e.Mtime)
	if mtime.Sec != e.Mtime.Sec {
		t.deny(&t.denied.times, "time is out of the file system's range", e.Path, syscall.ERANGE)
	}
	return w.chtimes(mtime)
}
