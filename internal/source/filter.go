package source

import (
	"fmt"
	"path"
	"strings"

	"treecast/internal/events"
)

// A Filter says which paths are left out, by rules in the syntax of
// .gitignore, and with its meaning: the last rule that matches a path wins, a
// rule with "!" takes back in, and nothing can be taken back in below a
// directory that is out. A nil Filter leaves out nothing. It is immutable.
//
// The matching is this package's own, since that of go-git lets through what
// git ignores: with "**/secret/key" it does not match secret/x/secret/key, it
// does not know [!a], and "!keep" takes back in all of what is below keep.
// POSIX classes like [[:alpha:]] are refused, not misread.
type Filter struct{ rules []rule }

type rule struct {
	segments []string // patterns of path.Match, or "**"
	again    bool     // "!": takes back in
	dirOnly  bool
	anywhere bool // no "/" in it: matched against the last segment alone
	literal  bool // of an anywhere rule: no wildcards
}

// DefaultRules are the rules to put before the operator's own: what no web
// server should show, and what editors leave for a moment.
func DefaultRules() []string {
	return []string{
		".git", ".svn", ".hg",
		".env*",
		"*.swp", "*.swx", "*~", "4913", ".#*", `\#*#`,
		"lost+found",
		events.ReservedName,
	}
}

// NewFilter compiles rules. A rule is one line of a .gitignore file; blank
// ones are ignored. A leading "#" is not a comment here, that is for
// [ReadRules]. The error is [ErrRule].
func NewFilter(rules ...string) (*Filter, error) {
	f := new(Filter)
	for _, text := range rules {
		if trimRule(text) == "" {
			continue
		}
		r, err := parseRule(text)
		if err != nil {
			return nil, err
		}
		f.rules = append(f.rules, r)
	}
	return f, nil
}

func parseRule(text string) (rule, error) {
	var r rule
	rest := trimRule(text)
	rest, r.again = strings.CutPrefix(rest, "!")
	rest, r.dirOnly = strings.CutSuffix(rest, "/")
	r.anywhere = !strings.Contains(rest, "/")
	rest = strings.TrimPrefix(rest, "/")
	for segment := range strings.SplitSeq(rest, "/") {
		pattern, err := parseSegment(segment)
		if err != nil {
			return rule{}, fmt.Errorf("%w %q: %w", ErrRule, text, err)
		}
		if n := len(r.segments); pattern == "**" && n > 0 && r.segments[n-1] == "**" {
			continue
		}
		r.segments = append(r.segments, pattern)
	}
	if r.anywhere && r.segments[0] == "**" {
		r.segments[0] = "*"
	}
	r.literal = r.anywhere && !strings.ContainsAny(r.segments[0], `*?[\`)
	return r, nil
}

// parseSegment turns one segment of git's into one of path.Match's.
func parseSegment(segment string) (string, error) {
	switch {
	case segment == "":
		return "", fmt.Errorf("empty segment")
	case segment == ".", segment == "..":
		return "", fmt.Errorf("segment %q can match no path", segment)
	case segment == "**":
		return segment, nil
	}
	var b strings.Builder
	for i := 0; i < len(segment); i++ {
		c := segment[i]
		b.WriteByte(c)
		switch {
		case c == '\\' && i+1 < len(segment):
			i++
			b.WriteByte(segment[i])
		case c == '[':
			n, err := parseClass(&b, segment[i+1:])
			if err != nil {
				return "", err
			}
			i += n
		}
	}
	if _, err := path.Match(b.String(), ""); err != nil {
		return "", err
	}
	return b.String(), nil
}

// parseClass writes what follows a "[" and returns how much that was, up to
// where the segment's own bytes go on.
func parseClass(b *strings.Builder, rest string) (int, error) {
	n := 0
	if strings.HasPrefix(rest, "!") || strings.HasPrefix(rest, "^") {
		b.WriteByte('^')
		n = 1
	}
	if strings.HasPrefix(rest[n:], "]") { // the first one stands for itself
		b.WriteString(`\]`)
		n++
	}
	for ; n < len(rest) && rest[n] != ']'; n++ {
		if strings.HasPrefix(rest[n:], "[:") {
			return 0, fmt.Errorf("classes like [:alpha:] are not supported")
		}
		b.WriteByte(rest[n])
		if rest[n] == '\\' && n+1 < len(rest) {
			n++
			b.WriteByte(rest[n])
		}
	}
	return n, nil
}

// Excluded reports whether p, a directory or not, is left out: itself, or a
// directory that it is in. The root never is.
func (f *Filter) Excluded(p events.Path, dir bool) bool {
	if f == nil || len(f.rules) == 0 || p.IsRoot() {
		return false
	}
	s := p.String()
	for i := range len(s) {
		if s[i] == '/' && f.out(s[:i], true) {
			return true
		}
	}
	return f.out(s, dir)
}

// excludes is Excluded of a p whose parent is known not to be.
func (f *Filter) excludes(p events.Path, dir bool) bool {
	return f != nil && !p.IsRoot() && f.out(p.String(), dir)
}

// out reports what the last rule says that matches p itself.
func (f *Filter) out(p string, dir bool) bool {
	base := p[strings.LastIndexByte(p, '/')+1:]
	var segments []string
	for i := len(f.rules) - 1; i >= 0; i-- {
		r := &f.rules[i]
		var match bool
		switch {
		case r.dirOnly && !dir:
		case r.literal:
			match = r.segments[0] == base
		case r.anywhere:
			match = matchSegment(r.segments[0], base)
		default:
			if segments == nil {
				segments = strings.Split(p, "/")
			}
			match = matchPath(r.segments, segments)
		}
		if match {
			return !r.again
		}
	}
	return false
}

// matchPath matches segment by segment. "**" stands for any number of them,
// but for at least one at the end: "a/**" is all that is in a, not a itself.
func matchPath(patterns, segments []string) bool {
	for len(patterns) > 0 {
		if patterns[0] == "**" {
			if len(patterns) == 1 {
				return len(segments) > 0
			}
			for n := range segments {
				if matchPath(patterns[1:], segments[n:]) {
					return true
				}
			}
			return false
		}
		if len(segments) == 0 || !matchSegment(patterns[0], segments[0]) {
			return false
		}
		patterns, segments = patterns[1:], segments[1:]
	}
	return len(segments) == 0
}

func matchSegment(pattern, segment string) bool {
	ok, err := path.Match(pattern, segment)
	return ok && err == nil // the pattern was checked when it was compiled
}
