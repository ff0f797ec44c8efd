package apply

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"syscall"

	"treecast/internal/events"
)

// What is in a staging directory.
const (
	lockName  = "lock"
	tmpName   = "tmp"
	trashName = "trash"
)

// openStaging finds the staging directory, or makes it, and locks it:
// <parent>/.<name>.treecast beside the root, since what is in the root is
// served; or .treecast in the root where the root is a mount point, so that a
// rename from beside it would not work, or where we may not write beside it.
// One that is there already is preferred: it has the watermark.
func (t *Tree) openStaging(fsys fileSystem, path string) error {
	type candidate struct {
		parent directory
		name   string
	}
	inside := candidate{t.root, events.ReservedName}
	candidates := []candidate{inside}
	mount := mountPoint{base: filepath.Base(path), name: "." + filepath.Base(path) + ".treecast"}
	if parent, err := fsys.open(filepath.Dir(path)); err == nil {
		defer parent.close()
		if path != "/" && len(mount.name) <= events.MaxSegmentBytes {
			mount.parent = parent
			if err := t.checkMounted(mount); err != nil {
				return err
			}
			if st, err := parent.stat(); err == nil && st.dev == t.rootDev {
				candidates = []candidate{{parent, mount.name}, inside}
			}
		}
	}
	reason := fmt.Errorf("%w beside or in %q", ErrStaging, path)
	for _, create := range []bool{false, true} {
		for _, c := range candidates {
			staging, err := t.tryStaging(c.parent, c.name, create)
			if err == nil {
				t.staging = staging
				if c.name == inside.name {
					t.markMounted(mount)
				}
				return t.openInside()
			}
			if !create && errors.Is(err, syscall.ENOENT) {
				continue
			}
			reason = fmt.Errorf("%w; %q: %w", reason, c.name, err)
		}
	}
	return reason
}

// openInside locks the staging and opens what is in it.
func (t *Tree) openInside() error {
	err := t.lock()
	if err == nil {
		t.tmp, err = t.openSubdir(tmpName)
	}
	if err == nil {
		t.trash, err = t.openSubdir(trashName)
	}
	if err == nil {
		t.parts.dir, err = t.openSubdir(partsName)
	}
	return err
}

// tryStaging opens name in parent as the staging directory, if files can be
// renamed from it into the root.
func (t *Tree) tryStaging(parent directory, name string, create bool) (directory, error) {
	before, err := parent.stat()
	if err != nil {
		return nil, err
	}
	made := false
	if create {
		switch err := parent.mkdir(name); {
		case err == nil:
			made = true
		case !errors.Is(err, syscall.EEXIST):
			return nil, err
		}
	}
	staging, err := parent.openDir(name)
	if err != nil {
		return nil, err
	}
	err = t.checkStaging(staging)
	if err == nil && made {
		err = parent.sync()
		if before.ino == t.rootIno && before.dev == t.rootDev {
			_ = parent.chtimes("", before.mtime) // in vain where the root is not ours; its own entry comes
		}
	}
	if err != nil {
		staging.close()
		if made {
			_ = parent.remove(name, true) // best effort; an empty directory does no harm
		}
		return nil, err
	}
	return staging, nil
}

func (t *Tree) checkStaging(staging directory) error {
	st, err := staging.stat()
	if err != nil {
		return err
	}
	if st.uid != t.rights.uid {
		return fmt.Errorf("belongs to uid %d, we are uid %d: chown or remove it", st.uid, t.rights.uid)
	}
	if st.dev != t.rootDev {
		return fmt.Errorf("on another file system than the root: %w", syscall.EXDEV)
	}
	if st.mode != 0o700 {
		if err := staging.chmod("", 0o700); err != nil {
			return err
		}
	}
	// Renaming what does not exist: the kernel refuses to cross mounts, which
	// may be of one device, before it looks for the name.
	err = staging.rename("none", t.root, "none", replacing)
	if !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("a rename from it into the root does not work: %w", err)
	}
	return nil
}

// lock takes the staging for this process.
func (t *Tree) lock() error {
	f, err := t.staging.openRecord(lockName)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStaging, err)
	}
	if err := f.lock(); err != nil {
		defer f.close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		b := make([]byte, lockBytes)
		n, err := f.ReadAt(b, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: %w", ErrLocked, err)
		}
		return fmt.Errorf("%w: it is held by %s; stop that first", ErrLocked, strings.TrimSpace(string(b[:n])))
	}
	t.lockFile = f
	holder := fmt.Sprintf("pid %d, node %q", pid(), t.opts.Node)
	_, err = f.WriteAt(fmt.Appendf(nil, "%-*s\n", lockBytes-1, holder), 0)
	return err
}

const lockBytes = 128

// emptyTmp removes what a crash left in tmp. What we make there is never a directory with something in it, so that
// such a one was swapped out of the tree and goes to the trash.
func (t *Tree) emptyTmp() error {
	leftovers, err := t.tmp.names()
	if err != nil {
		return err
	}
	for _, name := range leftovers {
		st, err := t.tmp.lstat(name)
		if err != nil {
			return err
		}
		err = t.tmp.remove(name, st.kind == events.Dir)
		if notEmpty(err) {
			var batch *batch
			if batch, err = t.newBatch(); err == nil {
				err = batch.rename(t.tmp, name, "recovered")
				batch.close()
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// removeTrial removes the empty file that a trial rename (see tryRename)
// leaves at the reserved name when it is cut short. It comes before the
// journal is restored, which then mends the root's mtime.
func (t *Tree) removeTrial() error {
	st, err := t.root.lstat(events.ReservedName)
	if err != nil || st.kind != events.File || st.size != 0 {
		return nil
	}
	return t.root.remove(events.ReservedName, false)
}

// openSubdir opens, or makes, a directory in staging.
func (t *Tree) openSubdir(name string) (directory, error) {
	err := t.staging.mkdir(name)
	if err == nil {
		err = t.staging.sync()
	}
	if err != nil && !errors.Is(err, syscall.EEXIST) {
		return nil, err
	}
	return t.staging.openDir(name)
}

// probe learns with one empty file what new files get by themselves, which
// times can be kept, that names are not folded, and, when the staging is new,
// that a rename into the root and back really works: quotas by directory refuse
// it on one mount.
func (t *Tree) probe() error {
	const name = "probe-\u00e9" // also as E and as e with a combining accent
	f, err := t.tmp.create(name)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStaging, err)
	}
	defer f.close()
	st, err := f.stat()
	if err == nil {
		t.newUID, t.newGID = st.uid, st.gid
		t.clock, err = probeClock(f)
	}
	if err == nil {
		err = distinct(t.tmp, "PROBE-\u00e9", "probe-e\u0301")
	}
	if err == nil {
		err = t.tryRename(name)
	}
	if err2 := t.tmp.remove(name, false); err == nil {
		err = err2
	}
	return err
}

func (t *Tree) tryRename(name string) error {
	if t.marks.counter > 0 {
		return nil // it worked before
	}
	if _, err := t.root.lstat(events.ReservedName); !errors.Is(err, syscall.ENOENT) {
		return nil // staging is in the root, and so surely on the same mount
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.begin()
	defer g.end()
	if err := g.enter(events.Path{}, t.root); err != nil {
		return err
	}
	err := g.lifted(events.Path{}, t.root, func() error {
		return t.tmp.rename(name, t.root, events.ReservedName, replacing)
	})
	if err != nil {
		return fmt.Errorf("%w: a rename from it into the root does not work: %w", ErrStaging, err)
	}
	folds := distinct(t.root, strings.ToUpper(events.ReservedName)) // ext4 can fold in some directories alone
	if err := t.root.rename(events.ReservedName, t.tmp, name, replacing); err != nil {
		return err
	}
	g.settle(nil)
	return errors.Join(folds, g.syncDirs())
}

// distinct returns ErrFolds if one of names, other spellings of one that is in d,
// is found there.
func distinct(d directory, names ...string) error {
	for _, name := range names {
		switch _, err := d.lstat(name); {
		case err == nil:
			return fmt.Errorf("%w: \"A\" and \"a\", or two forms of \"\u00e9\", are one there; "+
				"keep the tree on a file system, or in a directory, that does not fold names", ErrFolds)
		case !errors.Is(err, syscall.ENOENT):
			return err
		}
	}
	return nil
}

// notEmpty reports whether err is rmdir's refusal of a directory that has
// something in it; POSIX allows both.
func notEmpty(err error) bool {
	return errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST)
}
