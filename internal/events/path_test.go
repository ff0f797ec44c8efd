package events_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"treecast/internal/events"
)

// mustPath parses a path that the test knows to be good.
func mustPath(tb testing.TB, s string) events.Path {
	tb.Helper()
	p, err := events.ParsePath(s)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// longest returns a path of exactly MaxPathBytes.
func longest() string {
	return strings.Repeat(strings.Repeat("d", events.MaxSegmentBytes)+"/", 15) + strings.Repeat("f", events.MaxSegmentBytes)
}

// weirdNames are file names of any bytes, each of which must arrive as it is.
var weirdNames = []string{
	"a", " ", "  ", "\n", "\r", "\r\n", "\t", "\"", "'", "\\", "`", "$(id)", "-rf", "--",
	"\U0001F333", "naïve", "nai\u0308ve", "\xff", "\xc3\x28", "\x80", "\x9f", "\x7f", "\x1b[2J", "\u2028", "\ufffd",
	"*", ">", "a.b.c", ".a", "a.", "...", "....", "..a", "a..", "$JS", "_INBOX", "$SYS.>", "=2E", "=", "%2F",
	"_root", "_long", "_rooted", "_", "=5Froot", "A", "index.html", ".Treecast", "treecast",
	strings.Repeat("n", events.MaxSegmentBytes), strings.Repeat("\xff", events.MaxSegmentBytes),
	strings.Repeat("\n", events.MaxSegmentBytes),
}

// badPaths are refused, never cleaned.
var badPaths = map[string]string{
	"empty":             "",
	"absolute":          "/etc/passwd",
	"root of the disk":  "/",
	"two slashes":       "a//b",
	"trailing slash":    "a/",
	"only slashes":      "//",
	"dot first":         "./a",
	"dot inside":        "a/./b",
	"dot last":          "a/.",
	"parent":            "..",
	"parent first":      "../x",
	"parent inside":     "a/../../x",
	"parent last":       "a/..",
	"NUL":               "\x00",
	"NUL inside":        "a\x00b",
	"NUL after a name":  "a/b\x00",
	"segment too long":  strings.Repeat("n", events.MaxSegmentBytes+1),
	"segment inside":    "a/" + strings.Repeat("n", events.MaxSegmentBytes+1) + "/b",
	"path too long":     longest() + "/",
	"path too long, ok": longest()[:events.MaxPathBytes-255] + "/" + strings.Repeat("f", 255),
	"a million slashes": strings.Repeat("/", 1<<20),
	"reserved":          events.ReservedName,
	"under reserved":    events.ReservedName + "/tmp/1",
}

func TestParsePathRefusesWhatItWouldHaveToClean(t *testing.T) {
	for name, s := range badPaths {
		t.Run(name, func(t *testing.T) {
			p, err := events.ParsePath(s)
			if !errors.Is(err, events.ErrPath) {
				t.Fatalf("got %v, want ErrPath", err)
			}
			if !p.IsRoot() {
				t.Errorf("a path comes with the error: %q", p)
			}
			if len(err.Error()) > 1000 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
			for _, c := range []byte(err.Error()) {
				if c < ' ' || c == 0x7f {
					t.Errorf("control byte in the error: %q", err.Error())
				}
			}
		})
	}
}

func TestParsePathKeepsEveryByte(t *testing.T) {
	for _, name := range weirdNames {
		for _, s := range []string{name, "dir/" + name, name + "/file", "a/" + name + "/" + name} {
			p, err := events.ParsePath(s)
			if err != nil {
				t.Errorf("%q: %v", s, err)
			} else if p.String() != s {
				t.Errorf("%q became %q", s, p)
			}
		}
	}
	if s := longest(); mustPath(t, s).String() != s || len(s) != events.MaxPathBytes {
		t.Errorf("the longest path has %d bytes", len(s))
	}
	if p := mustPath(t, "a/"+events.ReservedName); p.Base() != events.ReservedName {
		t.Errorf("the reserved name is free below the top, got %q", p)
	}
}

func TestPathParts(t *testing.T) {
	for _, c := range []struct {
		path, parent, base string
		depth              int
	}{
		{".", ".", ".", 0},
		{"a", ".", "a", 1},
		{"a/b", "a", "b", 2},
		{"a/b/c.d", "a/b", "c.d", 3},
	} {
		p := mustPath(t, c.path)
		if got := p.Parent().String(); got != c.parent {
			t.Errorf("parent of %q is %q, want %q", p, got, c.parent)
		}
		if got := p.Base(); got != c.base {
			t.Errorf("base of %q is %q, want %q", p, got, c.base)
		}
		if got := p.Depth(); got != c.depth {
			t.Errorf("depth of %q is %d, want %d", p, got, c.depth)
		}
		if got := p.IsRoot(); got != (c.depth == 0) {
			t.Errorf("%q is the root: %t", p, got)
		}
	}
	if (events.Path{}) != mustPath(t, ".") {
		t.Error("the zero path is not the root")
	}
}

func TestJoin(t *testing.T) {
	full := mustPath(t, longest()[:events.MaxPathBytes-256])
	for _, c := range []struct {
		dir  events.Path
		name string
		want string // "" if refused
	}{
		{events.Path{}, "a", "a"},
		{mustPath(t, "a"), "b", "a/b"},
		{mustPath(t, "a"), events.ReservedName, "a/" + events.ReservedName},
		{full, strings.Repeat("x", 255), full.String() + "/" + strings.Repeat("x", 255)},
		{mustPath(t, longest()), "x", ""},
		{events.Path{}, events.ReservedName, ""},
		{events.Path{}, "", ""},
		{mustPath(t, "a"), ".", ""},
		{mustPath(t, "a"), "..", ""},
		{mustPath(t, "a"), "b/c", ""},
		{mustPath(t, "a"), "/", ""},
		{mustPath(t, "a"), "\x00", ""},
		{mustPath(t, "a"), strings.Repeat("x", 256), ""},
	} {
		p, err := c.dir.Join(c.name)
		switch {
		case c.want == "" && !errors.Is(err, events.ErrPath):
			t.Errorf("%.40q joined with %.40q: got %v, want ErrPath", c.dir, c.name, err)
		case c.want != "" && (err != nil || p.String() != c.want):
			t.Errorf("%.40q joined with %.40q: got %.40q and %v", c.dir, c.name, p, err)
		}
	}
}

func TestWithinAndKin(t *testing.T) {
	for _, c := range []struct {
		p, dir      string
		within, kin bool
	}{
		{".", ".", true, true},
		{"a", ".", true, true},
		{".", "a", false, true},
		{"a", "a", true, true},
		{"a/b", "a", true, true},
		{"a", "a/b", false, true},
		{"ab", "a", false, false},
		{"a.b", "a", false, false},
		{"a/b", "a/c", false, false},
		{"a/bc", "a/b", false, false},
	} {
		p, dir := mustPath(t, c.p), mustPath(t, c.dir)
		if got := p.Within(dir); got != c.within {
			t.Errorf("%q within %q: %t", p, dir, got)
		}
		if p.Kin(dir) != c.kin || dir.Kin(p) != c.kin {
			t.Errorf("%q and %q are kin: %t and %t, want %t", p, dir, p.Kin(dir), dir.Kin(p), c.kin)
		}
	}
}

func TestComparePutsSubtreesInOneRun(t *testing.T) {
	want := []string{".", "a", "a/b", "a/b/c", "a/bc", "a\x01", "a b", "a-b", "a.b", "a.b/c", "ab", "b", "\xff"}
	var paths []events.Path
	for _, s := range want {
		paths = append(paths, mustPath(t, s))
	}
	for i, p := range paths {
		for j, q := range paths {
			if got := p.Compare(q); (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Errorf("%q to %q: %d", p, q, got)
			}
		}
	}
	slices.Reverse(paths)
	slices.SortFunc(paths, events.Path.Compare)
	for i, p := range paths {
		if p.String() != want[i] {
			t.Fatalf("sorted: %q", paths)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	for _, s := range badPaths {
		if len(s) < 1<<16 {
			f.Add(s)
		}
	}
	for _, s := range weirdNames {
		f.Add("a/" + s)
	}
	f.Add(longest())
	f.Fuzz(func(t *testing.T, s string) {
		p, err := events.ParsePath(s)
		if err != nil {
			if !errors.Is(err, events.ErrPath) {
				t.Fatalf("not ErrPath: %v", err)
			}
			return
		}
		if p.String() != s {
			t.Fatalf("%q became %q", s, p)
		}
		if p.IsRoot() {
			return
		}
		if strings.HasPrefix(s, "/") || strings.Contains("/"+s+"/", "/../") || strings.Contains("/"+s+"/", "/./") ||
			strings.Contains(s, "//") || strings.Contains(s, "\x00") || len(s) > events.MaxPathBytes {
			t.Fatalf("%q was accepted", s)
		}
		parent := p.Parent()
		again, err := parent.Join(p.Base())
		if err != nil || again != p {
			t.Fatalf("%q and %q make %q: %v", parent, p.Base(), again, err)
		}
		if !p.Within(parent) || !p.Kin(parent) || parent.Compare(p) >= 0 || p.Depth() != parent.Depth()+1 {
			t.Fatalf("%q is not in its parent", p)
		}
	})
}
