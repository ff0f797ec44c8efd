package source

import (
	"strings"

	"treecast/internal/events"
)

// A node is a directory that the watcher knows. 100,000 of them are normal, so
// that a node has its own name only.
type node struct {
	name     string
	parent   *node // nil of the root, and of a node that was dropped
	children map[string]*node
	ino      uint64 // valid if watched
	state    state
	seen     bool // by the check that is under way
}

type state uint8

const (
	queued  state = iota // to be watched by a visit that is queued
	watched              // has a watch
	polled               // has none, and is looked at from time to time
	denied               // may not be read; a change of its mode brings it back
)

// find returns the node of p, nil if there is none.
func (n *node) find(p events.Path) *node {
	if p.IsRoot() {
		return n
	}
	for name := range strings.SplitSeq(p.String(), "/") {
		if n = n.children[name]; n == nil {
			return nil
		}
	}
	return n
}

// nearest returns the deepest known node at or above p, and its path.
func (n *node) nearest(p events.Path) (*node, events.Path) {
	for {
		if known := n.find(p); known != nil {
			return known, p
		}
		p = p.Parent()
	}
}

// add puts a child into the tree.
func (n *node) add(name string) *node {
	c := &node{name: strings.Clone(name), parent: n}
	if n.children == nil {
		n.children = make(map[string]*node)
	}
	n.children[c.name] = c
	return c
}

// attached reports whether the node is in the tree still.
func (n *node) attached(root *node) bool { return n == root || n.parent != nil }

// path returns the node's path, false if it was dropped. root is the tree's.
func (n *node) path(root *node) (events.Path, bool) {
	if n == root {
		return events.Path{}, true
	}
	var names []string
	for ; n != root; n = n.parent {
		if n == nil || n.parent == nil {
			return events.Path{}, false
		}
		names = append(names, n.name)
	}
	var b strings.Builder
	for i := len(names) - 1; i >= 0; i-- {
		b.WriteString(names[i])
		if i > 0 {
			b.WriteByte('/')
		}
	}
	p, err := events.ParsePath(b.String())
	return p, err == nil
}
