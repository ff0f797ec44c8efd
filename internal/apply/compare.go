package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"treecast/internal/events"
)

// A Difference is one path at which the tree is not as it should be. Want is
// what should be there; nil where the source has nothing and never told of
// it: something foreign. Itemized is the difference as rsync -i has it:
// eleven characters, such as ">f+++++++++" (missing, or of another kind),
// ">fcst......", ".d..t......", "cL.........", or "*deleting".
type Difference struct {
	Path     events.Path
	Want     *events.Entry
	Itemized string
}

// An UnseenError names the paths that Compare could not look at; what is under
// them was not compared either. Err is the first cause.
type UnseenError struct {
	Paths []events.Path
	Err   error
}

// Error counts the paths beside the first, which its step names.
func (e *UnseenError) Error() string {
	if len(e.Paths) > 1 {
		return fmt.Sprintf("%v (and %d more that could not be looked at)", e.Err, len(e.Paths)-1)
	}
	return e.Err.Error()
}

// Unwrap returns the first cause.
func (e *UnseenError) Unwrap() error { return e.Err }

// Compare walks the tree, changing nothing, and reports every difference from
// want, ordered by path. want has all that the source has, sorted by path, each
// once; a tombstone in it wants nothing at its path. With checksum every file's bytes are read,
// without it a file that has the wanted size and mtime is taken for right, as
// with rsync.
//
// Not reported is what this process could not mend for want of a right (see
// [Denied]), specials if they are not enabled, and the staging.
//
// An error of report ends the walk and is returned as it is. If anything could
// not be looked at, the walk goes on and Compare returns a *[StepError] of an
// *[UnseenError] at the end: the reported differences are then true, but
// perhaps not all.
// Compare may run during a Commit; it then sees some of its work.
func (t *Tree) Compare(ctx context.Context, want []*events.Entry, checksum bool, report func(Difference) error) error {
	if t.root == nil {
		return step("compare", events.Path{}, ErrReadOnly)
	}
	c := &comparison{t: t, ctx: ctx, checksum: checksum, report: report, wanted: want}
	if st, err := t.root.stat(); err != nil {
		c.blind(events.Path{}, err)
		c.skip(events.Path{})
	} else if err := c.visit(events.Path{}, st); err != nil {
		return err
	}
	if err := c.missingBefore(nil); err != nil {
		return err
	}
	if c.unseen != nil {
		return step("compare", c.unseen.Paths[0], c.unseen)
	}
	return nil
}

// comparison merges two sequences in the order of paths: what is wanted, and
// what is there.
type comparison struct {
	t        *Tree
	ctx      context.Context
	checksum bool
	report   func(Difference) error
	wanted   []*events.Entry // still to come

	unseen *UnseenError // nil: all could be looked at
}

// visit compares p, at which st stands, and all under it.
func (c *comparison) visit(p events.Path, st stat) error {
	if err := c.ctx.Err(); err != nil {
		return step("compare", p, err)
	}
	if err := c.missingBefore(&p); err != nil {
		return err
	}
	var e *events.Entry
	if len(c.wanted) > 0 && c.wanted[0].Path == p {
		e = c.wanted[0]
		c.wanted = c.wanted[1:]
	}
	if err := c.compare(p, st, e); err != nil {
		return err
	}
	if st.kind != events.Dir {
		return nil
	}
	return c.descend(p, st)
}

func (c *comparison) compare(p events.Path, st stat, e *events.Entry) error {
	switch {
	case e == nil && c.wantedIn(p):
		return nil // a directory without an entry, but with one in it
	case e == nil && p.IsRoot():
		return nil
	case e == nil || e.Kind == events.Tombstone:
		if c.t.unwanted(st.kind) {
			return nil
		}
		return c.report(Difference{p, e, events.Itemize(nil, nil)})
	case c.t.unwanted(e.Kind):
		return nil
	}
	item, err := c.t.itemize(st, e, c.checksum)
	if err != nil {
		c.blind(p, err)
		return nil
	}
	if item == "" {
		return nil
	}
	return c.report(Difference{p, e, item})
}

// wantedIn reports whether something is to be in p, which comes before what is
// still to come.
func (c *comparison) wantedIn(p events.Path) bool {
	for _, e := range c.wanted {
		if !e.Path.Within(p) {
			return false
		}
		if e.Kind != events.Tombstone {
			return true
		}
	}
	return false
}

// descend visits what is in the directory at p. It opens the directory from
// the root and closes it before it goes on, so that no depth takes more than
// one descriptor.
func (c *comparison) descend(p events.Path, st stat) error {
	if st.dev != c.t.rootDev {
		c.blind(p, ErrMount)
		c.skip(p)
		return nil
	}
	type child struct {
		name string
		st   stat
	}
	var children []child
	d, err := c.t.root.openDir(p.String())
	if err == nil {
		var names []string
		if names, err = d.names(); err == nil {
			slices.Sort(names)
			children = make([]child, 0, len(names))
			for _, name := range names {
				if p.IsRoot() && name == events.ReservedName {
					continue
				}
				st, err := d.lstat(name)
				if errors.Is(err, syscall.ENOENT) {
					continue
				}
				if err != nil {
					c.blind(p, err)
					continue
				}
				children = append(children, child{name, st})
			}
		}
		d.close()
	}
	switch {
	case absent(err):
		return nil // it went away meanwhile; what is wanted in it is missing
	case err != nil:
		c.blind(p, err)
		c.skip(p)
		return nil
	}
	for _, ch := range children {
		q, err := p.Join(ch.name)
		if err != nil {
			c.blind(p, fmt.Errorf("%q in it: %w", ch.name, err))
			continue
		}
		if err := c.visit(q, ch.st); err != nil {
			return err
		}
	}
	return nil
}

// missingBefore reports what is wanted before p, nil being the end, and so is
// not there.
func (c *comparison) missingBefore(p *events.Path) error {
	for len(c.wanted) > 0 && (p == nil || c.wanted[0].Path.Compare(*p) < 0) {
		e := c.wanted[0]
		c.wanted = c.wanted[1:]
		device := e.Kind == events.CharDevice || e.Kind == events.BlockDevice
		if e.Kind == events.Tombstone || c.t.unwanted(e.Kind) || device && !c.t.rights.mknod {
			continue
		}
		if err := c.report(Difference{e.Path, e, creation(e.Kind)}); err != nil {
			return err
		}
	}
	return nil
}

// skip passes over what is wanted under p, which could not be looked at.
func (c *comparison) skip(p events.Path) {
	for len(c.wanted) > 0 && c.wanted[0].Path.Within(p) {
		c.wanted = c.wanted[1:]
	}
}

// blind notes that something at or in p could not be looked at.
func (c *comparison) blind(p events.Path, err error) {
	if c.unseen == nil {
		c.unseen = &UnseenError{Err: err}
	}
	c.unseen.Paths = append(c.unseen.Paths, p)
}
