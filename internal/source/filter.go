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
	segments []name
	again    bool // "!": takes back in
	dirOnly  bool
	anywhere bool // no "/" in it: matched against the last segment alone
}

// A name is a pattern of one segment; most are one of the simple forms.
type name struct {
	many           bool   // "**": any number of segments
	pattern        string // of path.Match; "" if it is simple
	text           string
	prefix, suffix bool // "text*", "*text"; else all of it
}

func newName(pattern string) name {
	if pattern == "**" {
		return name{many: true}
	}
	text, prefix := strings.CutSuffix(pattern, "*")
	text, suffix := strings.CutPrefix(text, "*")
	if prefix && suffix || strings.ContainsAny(text, `*?[\`) {
		return name{pattern: pattern}
	}
	return name{text: text, prefix: prefix, suffix: suffix}
}

func (n *name) matches(s string) bool {
	switch {
	case n.pattern != "":
		ok, err := path.Match(n.pattern, s)
		return ok && err == nil // the pattern was checked when it was compiled
	case n.prefix:
		return strings.HasPrefix(s, n.text)
	case n.suffix:
		return strings.HasSuffix(s, n.text)
	}
	return s == n.text
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
		if n := len(r.segments); pattern == "**" && n > 0 && r.segments[n-1].many {
			continue
		}
		r.segments = append(r.segments, newName(pattern))
	}
	// At the end it is all that is in a directory, not that itself.
	if n := len(r.segments) - 1; r.segments[n].many {
		r.segments = append(r.segments[:n], newName("*"), newName("**"))
	}
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
	for first := n; n < len(rest) && (rest[n] != ']' || n == first); n++ {
		switch {
		case strings.HasPrefix(rest[n:], "[:"):
			return 0, fmt.Errorf("classes like [:alpha:] are not supported")
		case rest[n] == ']', rest[n] == '-' && (n == first || strings.HasPrefix(rest[n:], "-]")):
			b.WriteByte('\\') // stands for itself there, for git
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
		case r.anywhere:
			match = r.segments[0].matches(base)
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

// matchPath matches segment by segment; "**" stands for any number of them. It
// is enough to go back to the last one: any match of what is before it serves.
func matchPath(patterns []name, segments []string) bool {
	p, s := 0, 0
	star, from := -1, 0
	for s < len(segments) {
		switch {
		case p < len(patterns) && patterns[p].many:
			star, from = p, s
			p++
		case p < len(patterns) && patterns[p].matches(segments[s]):
			p++
			s++
		case star >= 0:
			from++
			p, s = star+1, from
		default:
			return false
		}
	}
	return p == len(patterns) || p == len(patterns)-1 && patterns[p].many
}
