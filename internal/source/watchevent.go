package source

import (
	"errors"
	"strings"

	"github.com/fsnotify/fsnotify"

	"treecast/internal/events"
)

// event answers one event of fsnotify.
func (w *Watcher) event(ev fsnotify.Event) {
	switch {
	case ev.Name == w.fence.path:
		if err := w.fsn.trouble(); err != nil {
			w.trouble(err) // events before the mark may be lost: a new watcher gets a new one
			return
		}
		w.markCame()
		return
	case ev.Name == w.base:
		w.rootEvent(ev)
		return
	}
	rel, inside := w.relative(ev.Name)
	if !inside {
		return // nothing that was asked for
	}
	p, err := events.ParsePath(rel)
	if err != nil {
		// Too long or reserved: never published, but its parent's time is.
		if i := strings.LastIndexByte(rel, '/'); i > 0 {
			if parent, err := events.ParsePath(rel[:i]); err == nil {
				w.burst.add(parent, false)
			}
		} else {
			w.burst.add(events.Path{}, false)
		}
		return
	}
	parent := w.root.find(p.Parent())
	if parent == nil || parent.state != watched && parent.state != queued {
		w.stray(p)
		return
	}
	if ev.Has(fsnotify.Create) || ev.Has(fsnotify.Remove) || ev.Has(fsnotify.Rename) {
		w.nameEvent(p, parent, ev)
		return
	}
	child := parent.children[p.Base()]
	if w.tree.opts.Filter.excludes(p, child != nil) {
		return
	}
	// A change of mode may have opened what was closed.
	if child != nil && ev.Has(fsnotify.Chmod) && child.closed() {
		w.reopen(child, p)
		return
	}
	w.burst.add(p, false)
}

// nameEvent answers that a name came, went, or stands for something else.
//
// Which of the three is not believed: by now another may be true, and an
// exchange of two directories tells the going of a name after its coming.
// Whatever was watched at the name is dropped; if a directory is there it is
// watched anew.
func (w *Watcher) nameEvent(p events.Path, parent *node, ev fsnotify.Event) {
	w.burst.add(p.Parent(), false)
	old := parent.children[p.Base()]
	if old != nil {
		w.drop(old, p)
	}
	if old != nil || ev.Has(fsnotify.Create) {
		if w.tree.isDir(p) {
			if !w.tree.opts.Filter.excludes(p, true) {
				w.push(parent.add(p.Base()), &job{top: p})
			}
			return
		}
	}
	switch excluded := w.tree.opts.Filter.excludes(p, old != nil); {
	case excluded:
	case old != nil || ev.Has(fsnotify.Rename):
		w.fence.went(p, old != nil)
	case w.isGone(p) && !ev.Has(fsnotify.Create): // the directory's own watch tells it again
	default:
		w.burst.add(p, false)
	}
}

// rootEvent answers an event of the root itself.
func (w *Watcher) rootEvent(ev fsnotify.Event) {
	w.burst.add(events.Path{}, false)
	if ev.Has(fsnotify.Rename) || ev.Has(fsnotify.Remove) {
		// fsnotify has dropped its watch. If the root is back already, all is
		// watched anew; if not, tick waits for it.
		if err := w.tree.Check(); errors.Is(err, ErrRootLost) {
			w.loseRoot(err)
		} else {
			w.trouble(errRootMoved)
		}
	}
	if ev.Has(fsnotify.Chmod) && w.root.closed() {
		w.reopen(w.root, events.Path{})
	}
}

var errRootMoved = errors.New("the root was moved away and back")

// stray answers an event in a directory that is not known.
func (w *Watcher) stray(p events.Path) {
	if w.fence.stale(p) {
		// Of a watch that was dropped meanwhile; if its directory still is in
		// the tree, a deep hint follows at the name that it has now.
		w.burst.add(p, false)
		return
	}
	known, at := w.root.nearest(p.Parent())
	w.unwatch(p.Parent()) // its watch has no owner
	w.burst.add(at, true)
	w.push(known, &job{top: at})
}

// closed reports whether a change of the directory's mode should be followed
// by another visit.
func (n *node) closed() bool {
	if n.state == denied || n.state == polled {
		return true
	}
	for _, c := range n.children {
		if c.state == denied {
			return true
		}
	}
	return false
}

// reopen visits n and its children that were denied again.
func (w *Watcher) reopen(n *node, p events.Path) {
	j := &job{top: p}
	for _, c := range n.children {
		if c.state == denied {
			w.push(c, j)
		}
	}
	w.push(n, j)
}
