package source

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

// visit watches the directory at p, unless it is watched, and then looks for
// directories in it.
func (w *Watcher) visit(v visit, p events.Path) {
	fd, err := w.tree.openat2(p, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		w.unvisited(v.node, p, err)
		return
	}
	defer unix.Close(fd)
	var stx unix.Statx_t
	if err := statx(fd, "", unix.AT_EMPTY_PATH, &stx); err != nil {
		w.unvisited(v.node, p, err)
		return
	}
	if !p.IsRoot() && w.tree.foreign(&stx) {
		w.unvisited(v.node, p, unix.EXDEV)
		return
	}
	if v.node.state == watched && v.node.ino != stx.Ino {
		// Another directory stands there; an event will tell, or was lost.
		w.replace(v, p)
		return
	}
	if v.node.state != watched {
		if err := w.watch(v, p, stx.Ino); err != nil {
			w.unvisited(v.node, p, err)
			return
		}
	}
	if err := w.subdirectories(v, p, fd); err != nil {
		w.unvisited(v.node, p, err)
	}
}

var errMoved = errors.New("another directory stands at the path")

// watch adds the watch of the directory p, which had the inode ino.
//
// inotify follows symlinks on its way to p; that it did not is checked
// afterwards. A watch that went astray for a moment makes wrong hints, and
// those are harmless.
func (w *Watcher) watch(v visit, p events.Path, ino uint64) error {
	if w.full {
		return ErrWatchLimit // until something is dropped
	}
	if other := w.inodes[ino]; other != nil && other != v.node {
		w.yield(other, ino)
		if !v.node.attached(w.root) {
			return errMoved // it was under the other's old name
		}
	}
	if err := w.fsn.Add(w.name(p)); err != nil {
		return watchError(err)
	}
	var stx unix.Statx_t
	fd, err := w.tree.openat2(p, unix.O_PATH|unix.O_DIRECTORY)
	if err == nil {
		err = statx(fd, "", unix.AT_EMPTY_PATH, &stx)
		_ = unix.Close(fd)
	}
	if err == nil && (stx.Ino != ino || w.tree.foreign(&stx) && !p.IsRoot()) {
		err = errMoved
	}
	if err != nil {
		w.unwatch(p)
		return err
	}
	delete(w.polling, v.node)
	v.node.state, v.node.ino = watched, ino
	w.inodes[ino] = v.node
	w.watches++
	w.changed = true
	return nil
}

// yield drops the watch that another name has on the inode: it was renamed, and
// the event of that is still to come. If it was not (a file system that gives
// one number to two directories), the other keeps it.
func (w *Watcher) yield(other *node, ino uint64) {
	q, ok := other.path(w.root)
	if !ok {
		delete(w.inodes, ino)
		return
	}
	if m, err := w.tree.lstat(q); err == nil && m.Entry.Kind == events.Dir && m.Ino == ino {
		return
	}
	w.drop(other, q)
	w.fence.went(q, true)
}

// replace watches what stands at p now, with all that is under it.
func (w *Watcher) replace(v visit, p events.Path) {
	parent := v.node.parent
	if v.node == w.root {
		return // its inode is held; Check tells what happened to its name
	}
	w.drop(v.node, p)
	w.push(parent.add(p.Base()), &job{top: p})
}

// subdirectories pushes a visit for each directory in p, which fd is open on.
func (w *Watcher) subdirectories(v visit, p events.Path, fd int) error {
	var dirs []string
	err := w.tree.readNames(fd, func(name []byte, kind uint8) {
		if kind == unix.DT_DIR || kind == unix.DT_UNKNOWN {
			dirs = append(dirs, string(name))
			if kind == unix.DT_UNKNOWN && !isDirAt(fd, dirs[len(dirs)-1]) {
				dirs = dirs[:len(dirs)-1]
			}
		}
	})
	if err != nil {
		return err
	}
	for _, name := range dirs {
		q, err := p.Join(name)
		if err != nil || w.tree.opts.Filter.excludes(q, true) {
			continue
		}
		child := v.node.children[name]
		switch {
		case child == nil && !v.job.checks:
			w.push(v.node.add(name), v.job)
		case child == nil:
			w.log.Warn("directory was not watched", "path", strconv.Quote(q.String()))
			w.push(v.node.add(name), &job{top: q})
		case v.job.checks && child.state == watched:
			w.push(child, v.job)
		case v.job.checks && child.state != queued:
			w.push(child, &job{top: q})
		}
	}
	if v.job.checks {
		w.forget(v.node, p, dirs)
	}
	return nil
}

// forget drops the children of n that its listing has not.
func (w *Watcher) forget(n *node, p events.Path, dirs []string) {
	if len(n.children) == 0 {
		return
	}
	there := make(map[string]bool, len(dirs))
	for _, name := range dirs {
		there[name] = true
	}
	for name, child := range n.children {
		if there[name] {
			continue
		}
		if q, err := p.Join(name); err == nil {
			w.drop(child, q)
			w.burst.add(q, true)
		}
	}
}

// unvisited answers that the directory at p could not be watched or listed.
func (w *Watcher) unvisited(n *node, p events.Path, err error) {
	if !n.attached(w.root) {
		return
	}
	if errors.Is(err, errMoved) {
		w.replace(visit{node: n}, p)
		return
	}
	if absent(err) || errors.Is(err, unix.EXDEV) {
		if n == w.root {
			return // tick asks what became of it
		}
		w.drop(n, p)
		w.burst.add(p, true)
		return
	}
	w.release(n, p)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		n.state = denied
		return
	}
	n.state = polled
	w.polling[n] = true
	w.full = w.full || errors.Is(err, ErrWatchLimit)
	if !w.warned {
		w.warned = true
		w.log.Warn("directory cannot be watched, polling it", "path", strconv.Quote(p.String()), "err", err)
	}
}

// isDir reports whether a directory of this tree's file system is at p.
func (t *Tree) isDir(p events.Path) bool {
	fd, err := t.openat2(p, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}

func isDirAt(fd int, name string) bool {
	var stx unix.Statx_t
	return statx(fd, name, 0, &stx) == nil && stx.Mode&unix.S_IFMT == unix.S_IFDIR
}
