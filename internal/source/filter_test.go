package source

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"treecast/internal/events"
)

func TestFilter(t *testing.T) {
	for _, c := range []struct {
		rules string // a line each
		out   string // paths, "/" at the end of a directory
		in    string
	}{
		{"secret", "secret secret/ a/secret secret/x a/secret/b/c", "secrets a/b"},
		{"logs/", "logs/ a/logs/ logs/x", "logs a/logs"},
		{"/top", "top top/x", "a/top"},
		{"a/b", "a/b a/b/c", "x/a/b a/x/b"},
		{"*.tmp", "x.tmp d/x.tmp .tmp x.tmp/y", "x.tmpl tmp"},
		{"*.tmp\n!keep.tmp", "x.tmp", "keep.tmp d/keep.tmp"},
		{"!keep.tmp\n*.tmp", "keep.tmp", "keep"},
		{"secret\n!secret/pub", "secret/pub secret/", "pub"}, // nothing comes back below what is out
		{"*.txt\n!keep", "keep/a.txt a.txt", "keep/ keep/b"},
		{"/*\n!/pub", "x x/y", "pub/ pub/x pub/y/z"},
		{"**/secret/key", "secret/key a/secret/key secret/x/secret/key a/secret/key/z", "secret/x/key key"},
		{"a/**", "a/x a/x/y", "a/ b/a"},
		{"a/**\n!a/keep", "a/x", "a/keep"},
		{"a/**/b", "a/b a/x/b a/x/y/b", "a/bb x/a/b"},
		{"**", "a a/b", ""},
		{"**/x", "x a/x", "xx"},
		{"foo*/**b", "foox/ab foo/b", "foo/x/ab"},
		{"[!a]x", "bx \xffx", "ax x"},
		{"[^a]x", "bx", "ax"},
		{"[]-]x", "]x -x", "ax"},
		{"[!]a]x", "bx", "]x ax"},
		{`[-a\]]x`, "-x ax ]x", "bx"},
		{"[a-c]?", "ab cé", "a db"},
		{`\!x` + "\n" + `\#y`, "!x #y", "x y"},
		{`a\*b`, "a*b", "axb"},
		{`sp\ ` + "\nx  ", "sp\u00a0 x", "sp"},
		{"...", "... a/...", "a"},
		{".git", ".git/ .git/config a/.git", ".gitignore git"},
		{".env*", ".env .envrc .env.local a/.env", "env x.env"},
		{"new\nline", "new line", "newline"},
	} {
		f, err := NewFilter(strings.Split(c.rules, "\n")...)
		must(t, err)
		check := func(names string, want bool) {
			for name := range strings.FieldsSeq(names) {
				p, dir := strings.CutSuffix(name, "/")
				if got := f.Excluded(pathOf(t, p), dir); got != want {
					t.Errorf("rules %q, path %q: excluded %v", c.rules, name, got)
				}
			}
		}
		check(strings.ReplaceAll(c.out, "sp\u00a0", ""), true)
		check(c.in, false)
		if f.Excluded(events.Path{}, true) {
			t.Errorf("rules %q exclude the root", c.rules)
		}
	}
	if f, err := NewFilter(`sp\ `); err != nil || !f.Excluded(pathOf(t, "sp "), false) || f.Excluded(pathOf(t, "sp"), false) {
		t.Errorf("a trailing space behind a backslash: %v", err)
	}
	var none *Filter
	if none.Excluded(pathOf(t, ".git"), true) || none.excludes(pathOf(t, ".git"), true) {
		t.Error("no filter excludes")
	}
}

func TestDefaultRules(t *testing.T) {
	f, err := NewFilter(DefaultRules()...)
	must(t, err)
	for _, s := range []string{
		".git", "a/.git/config", ".svn", ".hg", ".env", "app/.env.production", ".index.html.swp", ".x.swx", "page.html~",
		"4913", ".#page.html", "#page.html#", "lost+found", "sub/.treecast",
	} {
		if !f.Excluded(pathOf(t, s), false) {
			t.Errorf("%s is not excluded", s)
		}
	}
	for _, s := range []string{".gitignore", ".well-known/x", "env", "49131", "a#b", "index.html", ".htaccess"} {
		if f.Excluded(pathOf(t, s), false) {
			t.Errorf("%s is excluded", s)
		}
	}
}

func TestRulesThatCannotBeMeant(t *testing.T) {
	for _, s := range []string{"[", "a/[b", "[[:alpha:]]", "/", "!", "//", "a//b", "../x", "a/./b", `x\`} {
		if _, err := NewFilter(s); !errors.Is(err, ErrRule) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestReadRules(t *testing.T) {
	text := "\ufeff# comment\r\n*.log\r\n\n  \n\\#kept\n!x  \ny\\ \n/last"
	rules, err := ReadRules(strings.NewReader(text))
	must(t, err)
	if want := []string{"*.log", `\#kept`, "!x", `y\ `, "/last"}; !slices.Equal(rules, want) {
		t.Errorf("%q", rules)
	}
	if _, err := ReadRules(strings.NewReader(strings.Repeat("x", 1<<20))); err == nil {
		t.Error("a line of a megabyte is no rule")
	}
}

// git is the authority on what its syntax means.
func TestFilterAgreesWithGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git here")
	}
	repo := t.TempDir()
	must(t, exec.Command("git", "init", "-q", repo).Run())
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	random := func(parts []string, levels int) string {
		s := pick(parts...)
		for range r.IntN(levels) {
			s += "/" + pick(parts...)
		}
		return s
	}
	// Real ones: git takes what is not there for a file.
	var paths []string
	for range 400 {
		p := random([]string{"a", "b", "ab", "aa", "abc", "a.b"}, 5)
		if r.IntN(2) == 0 {
			_ = os.MkdirAll(repo+"/"+p, 0o755)
		} else if i := strings.LastIndexByte(p, '/'); i < 0 || os.MkdirAll(repo+"/"+p[:i], 0o755) == nil {
			_ = os.WriteFile(repo+"/"+p, nil, 0o644)
		}
		if _, err := os.Lstat(repo + "/" + p); err == nil {
			paths = append(paths, p)
		}
	}
	in := strings.Join(paths, "\n") + "\n"
	for range 40 {
		var rules []string
		for range 1 + r.IntN(5) {
			rules = append(rules, pick("", "", "!")+pick("", "", "/")+
				random([]string{"a", "b", "ab", "*", "a*", "?b", "**", "[ab]", "[!a]*", "*b*", "[a-b]*", "[]a-]?"}, 4)+pick("", "", "/"))
		}
		f, err := NewFilter(rules...)
		must(t, err)
		must(t, os.WriteFile(repo+"/.gitignore", []byte(strings.Join(rules, "\n")), 0o644))
		cmd := exec.Command("git", "-C", repo, "-c", "core.excludesFile=", "check-ignore", "--no-index", "--stdin")
		cmd.Stdin = strings.NewReader(in)
		out, err := cmd.Output()
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
			t.Fatal(err)
		}
		ignored := map[string]bool{}
		for name := range strings.Lines(string(out)) {
			ignored[strings.TrimSuffix(name, "\n")] = true
		}
		for _, name := range paths {
			info, err := os.Lstat(repo + "/" + name)
			must(t, err)
			if got := f.Excluded(pathOf(t, name), info.IsDir()); got != ignored[name] {
				t.Fatalf("rules %q, path %q, directory %v: excluded %v, git says %v", rules, name, info.IsDir(), got, ignored[name])
			}
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add("!a/**/[b-c]*/", "a/x/bc")
	f.Add(`[]\]x`, "]x")
	f.Fuzz(func(t *testing.T, rule, name string) {
		filter, err := NewFilter(rule)
		p, perr := events.ParsePath(name)
		if err != nil || perr != nil {
			return
		}
		if filter.Excluded(p.Parent(), true) && !filter.Excluded(p, false) {
			t.Errorf("rule %q takes %q out, but not %q in it", rule, p.Parent(), name)
		}
	})
}

func BenchmarkFilter(b *testing.B) {
	f, err := NewFilter(append(DefaultRules(), "/cache/**/*.tmp", "!/cache/keep")...)
	must(b, err)
	p := pathOf(b, "cache/a/b/c/file.html")
	for b.Loop() {
		f.excludes(p, false)
	}
}
