package apply

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"treecast/internal/events"
)

// Foreign is what becomes of things on a node that the source does not have.
type Foreign int

// What to do with foreign things that stand in the way of a tombstone.
const (
	TrashForeign Foreign = iota // a deleted directory goes to the trash with all that is in it
	KeepForeign                 // it stays, and is reported once
)

// DefaultTrashKeep is how long the trash is kept if the options do not say.
const DefaultTrashKeep = 7 * 24 * time.Hour

// Options says which tree to apply to, and how.
type Options struct {
	Root       string        // must exist and be a directory
	Site       events.Site   // whose entries are applied
	Node       string        // this node's name; for the lock's message
	NumericIDs bool          // owner and group by number only, not by name
	Specials   bool          // FIFOs, sockets and devices are made; else they are skipped
	Foreign    Foreign       // what a tombstone does to a directory that is not empty
	TrashKeep  time.Duration // 0: DefaultTrashKeep
	Codec      *events.Codec // opens bodies; not closed
	Log        *slog.Logger  // nil: nowhere
}

// A Tree is a root directory that entries are applied to, held exclusively,
// and its staging.
//
// Stage, Compare, Check, Mark, Watermark and Denied may be called from many
// goroutines at once and during a Commit. Commit, RemoveForeign and
// ExpireTrash wait for one another. Close must be the last call.
type Tree struct {
	// Constant after Open.
	opts     Options
	log      *slog.Logger
	rights   rights
	accounts *accounts
	clock    timeRange // what the file system can hold
	root     directory
	rootIno  uint64
	rootDev  uint64
	staging  directory // nil: read only, as are the next five
	tmp      directory
	trash    directory
	lockFile file
	newUID   uint32 // of what is made in tmp
	newGID   uint32
	prefix   string // of this process's temps

	temps  atomic.Uint64 // temps made
	open   atomic.Int64  // temps whose file is kept open
	bodies sync.Pool     // *[]byte, room for bodies on their way into temps
	denied denied

	// Of whoever holds mu: Commit, RemoveForeign, ExpireTrash.
	mu       sync.Mutex
	journal  *journal
	owed     map[events.Path]dirState // directories that a group could not settle
	mustSync bool                     // a sync went wrong: what the last groups did may not be durable
	syncedAt events.Time              // all that was changed before this is durable
	batches  int                      // trash batches made
	kept     map[events.Path]bool     // directories that keep was told of

	parking   *parking
	scrubbing *scrubbing
	parts     *parts
	known     *known

	markMu sync.Mutex
	marks  *slots // nil: read only
	mark   *Watermark
}

// Open holds the tree at o.Root for changes: it finds or makes the staging,
// locks it, and mends what a crash left (see the package's comment). The root
// itself is not created.
//
// Errors are *[StepError] with step "open": [ErrRoot], [ErrUnmounted],
// [ErrLocked], [ErrStaging], [ErrFolds], or an errno.
func Open(o Options) (*Tree, error) { return open(o, kernel{}) }

// OpenReadOnly opens the tree at o.Root for [Tree.Compare] and nothing else.
// It takes no lock, needs no staging and changes nothing, so that it may be
// used while another process holds the tree.
func OpenReadOnly(o Options) (*Tree, error) {
	t, _, err := openRoot(o, kernel{})
	return t, step("open", events.Path{}, err)
}

func open(o Options, fsys fileSystem) (*Tree, error) {
	t, path, err := openRoot(o, fsys)
	if err == nil {
		if err = t.hold(fsys, path); err != nil {
			t.release()
		}
	}
	if err != nil {
		return nil, step("open", events.Path{}, err)
	}
	return t, nil
}

// openRoot opens the root and returns it with its real path.
func openRoot(o Options, fsys fileSystem) (*Tree, string, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.TrashKeep == 0 {
		o.TrashKeep = DefaultTrashKeep
	}
	path, err := filepath.Abs(o.Root)
	if err == nil && o.Root == "" {
		err = errors.New("no path given")
	}
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return nil, "", fmt.Errorf("%w %q (is it mounted?): %w", ErrRoot, o.Root, err)
	}
	root, err := fsys.open(path)
	if err != nil {
		return nil, "", fmt.Errorf("%w %q (is it mounted?): %w", ErrRoot, o.Root, err)
	}
	st, err := root.stat()
	if err == nil {
		_, err = root.lstat(".")
	}
	if err == nil {
		var probe directory
		if probe, err = root.openDir("."); err == nil { // needs openat2
			probe.close()
		}
	}
	if err != nil {
		root.close()
		return nil, "", fmt.Errorf("%w %q: %w", ErrRoot, o.Root, err)
	}
	return &Tree{
		opts: o, log: o.Log,
		rights: processRights(), accounts: newAccounts(o.NumericIDs), clock: anyTime,
		root: root, rootIno: st.ino, rootDev: st.dev,
		owed:      map[events.Path]dirState{},
		parking:   &parking{},
		scrubbing: &scrubbing{},
		parts:     &parts{names: map[string]bool{}},
		known:     newKnown(),
	}, path, nil
}

// hold makes the tree ready for changes.
func (t *Tree) hold(fsys fileSystem, path string) error {
	if t.opts.Codec == nil {
		return errors.New("no codec")
	}
	if err := t.openStaging(fsys, path); err != nil {
		return err
	}
	t.journal = newJournal(t.staging)
	t.marks = newMarkSlots(t.staging)
	t.parking = newParking(t.staging)
	if err := t.parking.load(); err != nil {
		t.log.Warn("list of refused entries is unreadable, it is begun anew", "err", err)
	}
	t.scrubbing = newScrubbing(t.staging)
	if err := t.scrubbing.load(); err != nil {
		t.log.Warn("record of the last scrub is unreadable, a new one is begun", "err", err)
	}
	t.prefix = newPrefix()
	if err := t.removeTrial(); err != nil {
		return err
	}
	if err := t.recover(); err != nil {
		return err
	}
	if err := t.loadMark(); err != nil {
		return err
	}
	if err := t.emptyTmp(); err != nil {
		return err
	}
	if err := t.probe(); err != nil {
		return err
	}
	if err := t.parts.expire(time.Now()); err != nil {
		t.log.Warn("old parts of bodies could not be removed", "err", err)
	}
	if _, err := t.expireTrash(time.Now()); err != nil {
		t.log.Warn("old trash could not be removed", "err", err)
	}
	return nil
}

// recover mends what the last holder left in the middle of: directories get
// the states that its journal lists. Then all is made durable, since
// something found right later on is acked without being written, and the last
// holder may have been killed between its renames and their sync.
func (t *Tree) recover() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.journal.load(); err != nil {
		t.log.Warn("journal is unreadable, directory times may be wrong until reconciled", "err", err)
	}
	g := t.begin()
	defer g.end()
	for p, want := range t.journal.listed {
		g.want[p] = &wanted{before: want}
	}
	g.syncAll = true
	g.settle(nil)
	if err := g.syncDirs(); err != nil {
		return err
	}
	if err := t.journal.slots.reserve(journalRoom); err != nil {
		return err
	}
	if err := t.marks.reserve(markSlotSize); err != nil {
		return err
	}
	if len(t.owed) == 0 { // else they stay listed
		if err := t.journal.clear(); err != nil {
			return err
		}
	}
	return t.staging.sync() // the names of the records
}

// Close lets go of the tree. Staged entries must have been committed or
// discarded before. Whatever a Commit returned as done stays durable.
func (t *Tree) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var err error
	if t.journal != nil && len(t.owed) == 0 && !t.mustSync && len(t.journal.listed) > 0 {
		// So that the next Open does not undo what an operator does meanwhile.
		err = t.journal.clear()
	}
	t.release()
	return step("open", events.Path{}, err)
}

func (t *Tree) release() {
	if t.journal != nil {
		t.journal.slots.close()
		t.journal = nil
	}
	if t.parking.slots != nil {
		t.parking.slots.close()
		t.scrubbing.slots.close()
	}
	t.markMu.Lock()
	if t.marks != nil {
		t.marks.close()
		t.marks = nil
	}
	t.markMu.Unlock()
	for _, d := range []*directory{&t.tmp, &t.trash, &t.parts.dir, &t.staging, &t.root} {
		if *d != nil {
			(*d).close()
			*d = nil
		}
	}
	if t.lockFile != nil {
		t.lockFile.close() // and with it goes the lock
		t.lockFile = nil
	}
}
