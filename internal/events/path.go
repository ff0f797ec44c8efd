package events

import (
	"errors"
	"fmt"
	"strings"
)

// ErrPath reports a path that is not canonical, too long, reserved or outside
// the tree. Permanent: the same bytes again cannot help.
var ErrPath = errors.New("unacceptable path")

// ReservedName is the name at the top of a tree that belongs to treecast: a
// node keeps its staging there where the root is a mount point. No entry may
// be at or under it.
const ReservedName = ".treecast"

// A Path names one place in a tree, relative to its root. Its segments are
// arbitrary bytes without "/" and NUL, never empty, "." or "..": a Path can be
// joined to a held directory without leaving it. The zero Path is the root.
//
// Only [ParsePath] and [Path.Join] make one, so that having a Path is the
// proof that it was checked.
type Path struct{ s string }

// ParsePath checks s and returns it as a Path; "." is the root. It refuses,
// with [ErrPath], what it would otherwise have to clean.
func ParsePath(s string) (Path, error) {
	if s == "." {
		return Path{}, nil
	}
	if len(s) > MaxPathBytes {
		return Path{}, fmt.Errorf("%w: %d bytes, the limit is %d", ErrPath, len(s), MaxPathBytes)
	}
	first := true
	for segment := range strings.SplitSeq(s, "/") {
		if err := checkSegment(segment); err != nil {
			return Path{}, fmt.Errorf("%w in %q", err, clip(s))
		}
		if first && segment == ReservedName {
			return Path{}, fmt.Errorf("%w: %q is reserved", ErrPath, ReservedName)
		}
		first = false
	}
	return Path{s}, nil
}

func checkSegment(segment string) error {
	switch {
	case segment == "":
		return fmt.Errorf("%w: empty segment", ErrPath)
	case segment == ".", segment == "..":
		return fmt.Errorf("%w: segment %q", ErrPath, segment)
	case len(segment) > MaxSegmentBytes:
		return fmt.Errorf("%w: segment of %d bytes, the limit is %d", ErrPath, len(segment), MaxSegmentBytes)
	case strings.IndexByte(segment, 0) >= 0:
		return fmt.Errorf("%w: NUL", ErrPath)
	}
	return nil
}

// clip shortens what a hostile peer may have made long.
func clip(s string) string {
	if len(s) > 128 {
		return s[:128] + "..."
	}
	return s
}

// Join returns the path of name inside p. name is one segment; a "/" in it is
// refused like any other bad path.
func (p Path) Join(name string) (Path, error) {
	if err := checkSegment(name); err != nil {
		return Path{}, fmt.Errorf("%w in %q", err, clip(name))
	}
	switch {
	case strings.IndexByte(name, '/') >= 0:
		return Path{}, fmt.Errorf("%w: %q is not one segment", ErrPath, clip(name))
	case p.s == "" && name == ReservedName:
		return Path{}, fmt.Errorf("%w: %q is reserved", ErrPath, ReservedName)
	case p.s == "":
		return Path{name}, nil
	case len(p.s)+1+len(name) > MaxPathBytes:
		return Path{}, fmt.Errorf("%w: %d bytes, the limit is %d", ErrPath, len(p.s)+1+len(name), MaxPathBytes)
	}
	return Path{p.s + "/" + name}, nil
}

// String returns the path as its bytes, "." for the root.
func (p Path) String() string {
	if p.s == "" {
		return "."
	}
	return p.s
}

// IsRoot reports whether p is the root of the tree.
func (p Path) IsRoot() bool { return p.s == "" }

// Parent returns the directory that p is in; the root is its own parent.
func (p Path) Parent() Path {
	if i := strings.LastIndexByte(p.s, '/'); i >= 0 {
		return Path{p.s[:i]}
	}
	return Path{}
}

// Base returns p's last segment, "." for the root.
func (p Path) Base() string {
	if p.s == "" {
		return "."
	}
	return p.s[strings.LastIndexByte(p.s, '/')+1:]
}

// Depth counts p's segments; the root has none.
func (p Path) Depth() int {
	if p.s == "" {
		return 0
	}
	return 1 + strings.Count(p.s, "/")
}

// Within reports whether p is dir or lies under it.
func (p Path) Within(dir Path) bool {
	if dir.s == "" || p.s == dir.s {
		return true
	}
	return len(p.s) > len(dir.s) && p.s[len(dir.s)] == '/' && p.s[:len(dir.s)] == dir.s
}

// Kin reports whether one of p and q is the other or an ancestor of it: the
// pairs whose entries must be applied in order.
func (p Path) Kin(q Path) bool { return p.Within(q) || q.Within(p) }

// Compare orders paths by their bytes, segment by segment, so that a
// directory comes before what is in it and a subtree is one run.
func (p Path) Compare(q Path) int {
	a, b := p.s, q.s
	n := min(len(a), len(b))
	for i := range n {
		if a[i] == b[i] {
			continue
		}
		switch { // "/" sorts before every other byte
		case a[i] == '/':
			return -1
		case b[i] == '/':
			return 1
		case a[i] < b[i]:
			return -1
		default:
			return 1
		}
	}
	return len(a) - len(b)
}
