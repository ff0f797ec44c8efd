package source

import (
	"strconv"

	"treecast/internal/events"
)

// check compares fsnotify's watches with the tree of directories now, and
// starts to compare that with the disk.
func (w *Watcher) check() {
	if w.fsn == nil || w.lost {
		return
	}
	for _, name := range w.fsn.WatchList() {
		if name == w.fence.path {
			continue
		}
		if n := w.known(name); n != nil {
			n.seen = true
			continue
		}
		w.log.Warn("watch without a directory", "path", strconv.Quote(name))
		w.unwatchName(name)
	}
	w.checkSeen(w.root, events.Path{})
	if w.root.state == watched {
		w.push(w.root, &job{checks: true, silent: true})
	}
}

// checkSeen makes the watches anew that fsnotify's list has not.
func (w *Watcher) checkSeen(n *node, p events.Path) {
	for name, child := range n.children {
		if q, err := p.Join(name); err == nil {
			w.checkSeen(child, q)
		}
	}
	if n.state == watched && !n.seen {
		w.log.Warn("directory has lost its watch", "path", strconv.Quote(p.String()))
		w.release(n, p)
		w.push(n, &job{top: p})
	}
	n.seen = false
}

// known returns the node that one of fsnotify's watches belongs to.
func (w *Watcher) known(name string) *node {
	if name == w.base {
		return w.root
	}
	rel, inside := w.relative(name)
	if !inside {
		return nil
	}
	p, err := events.ParsePath(rel)
	if err != nil {
		return nil
	}
	if n := w.root.find(p); n != nil && n.state == watched {
		return n
	}
	return nil
}

// pollAgain hints what is polled, and tries to watch it: all of it once one
// try succeeds.
func (w *Watcher) pollAgain() {
	if len(w.polling) == 0 {
		if w.warned {
			w.log.Info("all directories are watched again")
		}
		w.warned = false
		return
	}
	refused := false
	for n := range w.polling {
		p, ok := n.path(w.root)
		switch {
		case !ok:
			delete(w.polling, n)
		case refused:
			w.burst.add(p, true)
		default:
			w.push(n, &job{top: p})
			w.visitNext()
			refused = n.state == polled
		}
	}
}
