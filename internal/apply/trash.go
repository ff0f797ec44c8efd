package apply

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"treecast/internal/events"
)

// The trash is trash/<time>-<n>/<path as it was in the tree>, so that what
// was taken away is found again by its name. A batch is never added to by
// another process, and n makes each one new.
const trashStamp = "20060102T150405Z"

// A batch is one directory in the trash.
type batch struct {
	directory
	name string
}

// newBatch makes a batch. The caller makes it durable with a syncFS after
// renaming into it, and closes it.
func (t *Tree) newBatch() (*batch, error) {
	stamp := time.Now().UTC().Format(trashStamp)
	for {
		t.batches++
		name := stamp + "-" + strconv.Itoa(t.batches)
		err := t.trash.mkdir(name)
		if errors.Is(err, syscall.EEXIST) {
			continue
		}
		if err != nil {
			return nil, err
		}
		d, err := t.trash.openDir(name)
		if err != nil {
			return nil, err
		}
		return &batch{d, name}, nil
	}
}

// rename moves name of from to rel in the batch.
func (b *batch) rename(from directory, name, rel string) error {
	return b.put(rel, func(to directory, toName string) error {
		return from.rename(name, to, toName, replacing)
	})
}

// put calls name to give something the name rel in the batch, and makes the
// directories on the way. Nothing may stand at rel.
func (b *batch) put(rel string, name func(to directory, toName string) error) error {
	at := b.directory
	for {
		segment, rest, more := strings.Cut(rel, "/")
		if !more {
			err := name(at, segment)
			if at != b.directory {
				at.close()
			}
			return err
		}
		err := at.mkdir(segment)
		var next directory
		if err == nil || errors.Is(err, syscall.EEXIST) {
			next, err = at.openDir(segment)
		}
		if at != b.directory {
			at.close()
		}
		if err != nil {
			return err
		}
		at, rel = next, rest
	}
}

// ExpireTrash removes what has been in the trash for longer than
// Options.TrashKeep, and returns how many batches that were; and the parts of
// large bodies that nobody came back for in a day. Open does it too; a process that runs for long calls this now and then.
func (t *Tree) ExpireTrash(ctx context.Context) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.journal == nil {
		return 0, step("trash", events.Path{}, ErrReadOnly)
	}
	if err := ctx.Err(); err != nil {
		return 0, step("trash", events.Path{}, err)
	}
	now := time.Now()
	n, err := t.expireTrash(now)
	err = errors.Join(err, t.parts.expire(now))
	return n, step("trash", events.Path{}, err)
}

func (t *Tree) expireTrash(now time.Time) (int, error) {
	names, err := t.trash.names()
	if err != nil {
		return 0, err
	}
	n := 0
	for _, name := range names {
		stamp, _, _ := strings.Cut(name, "-")
		made, err := time.Parse(trashStamp, stamp)
		if err != nil || now.Sub(made) < t.opts.TrashKeep {
			continue // what we did not put there is not ours to remove
		}
		if err := t.removeAll(t.trash, name); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// removeAll removes name of d and all that is in it. Directories in it are
// first moved out to tmp, which leaves only one level to see to at a time:
// no recursion, however deep it is.
func (t *Tree) removeAll(d directory, name string) error {
	err := d.remove(name, true)
	switch {
	case err == nil, errors.Is(err, syscall.ENOENT):
		return nil
	case errors.Is(err, syscall.ENOTDIR):
		return d.remove(name, false)
	case !notEmpty(err):
		return err
	}
	flat := []string{t.tempName()}
	if err := t.moveDir(d, name, flat[0]); err != nil {
		return err
	}
	for len(flat) > 0 {
		name := flat[len(flat)-1]
		flat = flat[:len(flat)-1]
		more, err := t.flatten(name)
		if err == nil {
			err = t.tmp.remove(name, true)
		}
		if err != nil {
			return err
		}
		flat = append(flat, more...)
	}
	return nil
}

// flatten empties a directory in tmp; the directories in it become its
// neighbours, whose names it returns.
func (t *Tree) flatten(name string) ([]string, error) {
	d, err := openLifted(t.tmp, name)
	if err != nil {
		return nil, err
	}
	defer d.close()
	names, err := d.names()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, child := range names {
		err := d.remove(child, false)
		if errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.EPERM) {
			if err = d.remove(child, true); notEmpty(err) {
				neighbour := t.tempName()
				if err = t.moveDir(d, child, neighbour); err == nil {
					dirs = append(dirs, neighbour)
				}
			}
		}
		if err != nil {
			return dirs, err
		}
	}
	return dirs, nil
}

// moveDir moves a directory in the trash to tmp. To move a directory to
// another parent takes the right to write it, since its ".." changes.
func (t *Tree) moveDir(from directory, name, to string) error {
	err := from.rename(name, t.tmp, to, replacing)
	if !errors.Is(err, syscall.EACCES) {
		return err
	}
	d, err := openLifted(from, name)
	if err != nil {
		return err
	}
	d.close()
	return from.rename(name, t.tmp, to, replacing)
}

// openLifted opens a directory that is no longer in the tree and makes it
// ours to read and write. By descriptor, not by name: a process that still
// works in it could put a symlink there.
func openLifted(parent directory, name string) (directory, error) {
	d, err := parent.openDir(name)
	if err != nil {
		return nil, err
	}
	if st, err := d.stat(); err == nil && st.mode&0o700 == 0o700 {
		return d, nil
	}
	err = d.chmod("", 0o700)
	d.close()
	if err != nil {
		return nil, err
	}
	return parent.openDir(name)
}

func pid() int { return os.Getpid() }

// quote returns p as it is logged: no byte of it can fake a line or drive a
// terminal.
func quote(p events.Path) string { return strconv.Quote(p.String()) }
