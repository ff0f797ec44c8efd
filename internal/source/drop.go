package source

import (
	"strings"

	"treecast/internal/events"
)

// drop forgets n, which is at p, and all under it, with their watches.
func (w *Watcher) drop(n *node, p events.Path) {
	if n.parent != nil {
		delete(n.parent.children, n.name)
	}
	w.dropAll(n, w.name(p))
	w.fence.drop(p) // after its watches: what comes after the mark is of others
	w.full = false
}

func (w *Watcher) dropAll(n *node, name string) {
	for _, c := range n.children {
		w.dropAll(c, name+"/"+c.name)
	}
	n.parent, n.children = nil, nil
	w.releaseName(n, name)
}

// release takes the watch from a node that stays.
func (w *Watcher) release(n *node, p events.Path) { w.releaseName(n, w.name(p)) }

func (w *Watcher) releaseName(n *node, name string) {
	delete(w.polling, n)
	w.changed = true
	if n.state == watched {
		w.unwatchName(name)
		w.watches--
		if w.inodes[n.ino] == n {
			delete(w.inodes, n.ino)
		}
	}
	n.state = queued
}

// unwatch removes a watch that no node has.
func (w *Watcher) unwatch(p events.Path) { w.unwatchName(w.name(p)) }

func (w *Watcher) unwatchName(name string) {
	if w.fsn != nil {
		// The kernel may have removed it before us: that is as good.
		_ = w.fsn.Remove(name)
	}
}

// name is p as fsnotify knows it. It goes through the held root, so that what
// is put in the root's place is never watched.
func (w *Watcher) name(p events.Path) string {
	if p.IsRoot() {
		return w.base
	}
	return w.base + "/" + p.String()
}

// relative is the inverse of name, false for what is not below the root.
func (w *Watcher) relative(name string) (string, bool) {
	return strings.CutPrefix(name, w.base+"/")
}
