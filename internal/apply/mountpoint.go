package apply

import (
	"errors"
	"fmt"
	"strconv"
	"syscall"

	"treecast/internal/events"
)

// A mountPoint is where a root stands whose staging is in it, since it is a
// mount point: base in parent. The directory below, which is seen when nothing is
// mounted, is another tree: to fill it would fill the wrong disk, and serve from
// it. So a file beside the root, where the staging would be otherwise, says that
// the staging is in what is mounted.
type mountPoint struct {
	parent directory // nil: it cannot be looked at
	base   string
	name   string // of the mark
}

// checkMounted returns ErrUnmounted where the mark says that something was
// mounted, and nothing is. Another disk, an empty one too, may be there.
func (t *Tree) checkMounted(m mountPoint) error {
	st, err := m.parent.lstat(m.name)
	if err != nil || st.kind != events.File {
		return nil
	}
	if _, err := t.root.lstat(events.ReservedName); !errors.Is(err, syscall.ENOENT) {
		return err
	}
	if mounted, err := m.mounted(t.rootDev); mounted || err != nil {
		return err
	}
	return fmt.Errorf("%w: %q was a mount point; mount it, or if it is none any more remove the file %s beside it",
		ErrUnmounted, m.base, strconv.Quote(m.name))
}

// markMounted leaves the mark, as far as it may: where it cannot be written a
// root that is not mounted is filled.
func (t *Tree) markMounted(m mountPoint) {
	if m.parent == nil {
		return
	}
	if _, err := m.parent.lstat(m.name); !errors.Is(err, syscall.ENOENT) {
		return
	}
	mounted, err := m.mounted(t.rootDev)
	if !mounted && err == nil {
		return
	}
	if err == nil {
		err = m.mark()
	}
	if err != nil {
		t.log.Debug("no mark beside the root that it is a mount point", "path", strconv.Quote(m.name), "err", err)
	}
}

func (m mountPoint) mark() error {
	f, err := m.parent.create(m.name)
	if err != nil {
		return err
	}
	defer f.close()
	if _, err := fmt.Fprintf(f, "treecast: %q beside this file is a mount point. While nothing is mounted there, no subscriber fills it.\n", m.base); err != nil {
		return err
	}
	return errors.Join(f.sync(), m.parent.sync())
}

func (m mountPoint) mounted(rootDev uint64) (bool, error) {
	if st, err := m.parent.stat(); err != nil || st.dev != rootDev {
		return err == nil, err
	}
	return m.parent.mounts(m.base) // a bind mount of the same file system
}
