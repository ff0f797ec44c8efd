package events_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"treecast/internal/events"
)

// site returns the site that most tests use.
func site(tb testing.TB) events.Site {
	tb.Helper()
	s, err := events.ParseSite("web")
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestSubject(t *testing.T) {
	deep := strings.Repeat("d/", 10) + "f" // 3 tokens and these 11 are the limit
	for path, want := range map[string]string{
		".":            "treecast.web.file._root",
		"a":            "treecast.web.file.a",
		"img/logo.png": "treecast.web.file.img.logo=2Epng",
		"_root":        "treecast.web.file.=5Froot",
		"_long/x":      "treecast.web.file.=5Flong.x",
		"a/_root":      "treecast.web.file.a._root",
		"_rooted":      "treecast.web.file._rooted",
		"=5Froot":      "treecast.web.file.=3D5Froot",
		"a b":          "treecast.web.file.a=20b",
		"*":            "treecast.web.file.=2A",
		">":            "treecast.web.file.=3E",
		"a.b.c":        "treecast.web.file.a=2Eb=2Ec",
		"...":          "treecast.web.file.=2E=2E=2E",
		"$JS/_INBOX":   "treecast.web.file.=24JS._INBOX",
		"\r\n\t":       "treecast.web.file.=0D=0A=09",
		"\x7f\x80\xff": "treecast.web.file.=7F=80=FF",
		"é":            "treecast.web.file.=C3=A9",
		deep:           "treecast.web.file." + strings.Repeat("d.", 10) + "f",
		// printf %s d/d/d/d/d/d/d/d/d/d/d/f | sha256sum | xxd -r -p | head -c 20 | base32
		"d/" + deep: "treecast.web.file._long.2PBYM3OB3D6KG4HRMZ5KOSBCSNUY6HN5",
	} {
		if got := site(t).Subject(mustPath(t, path)); got != want {
			t.Errorf("%q: got %s, want %s", path, got, want)
		}
	}
}

func TestSubjectLimits(t *testing.T) {
	prefix := len("treecast.web.file.")
	fits := strings.Repeat("x", events.MaxSubjectBytes-prefix)
	if got := site(t).Subject(mustPath(t, fits)); len(got) != events.MaxSubjectBytes || strings.Contains(got, "_long") {
		t.Errorf("subject of %d bytes: %s", len(got), got)
	}
	for _, path := range []string{fits + "x", fits[:len(fits)-1] + ".", longest(), strings.Repeat("a/", 2047) + "a"} {
		got := site(t).Subject(mustPath(t, path))
		digest, ok := strings.CutPrefix(got, "treecast.web.file._long.")
		if !ok || len(digest) != 32 {
			t.Errorf("%.40q: %s", path, got)
		}
	}
}

func TestSubjectsOfWeirdNames(t *testing.T) {
	seen := map[string]string{}
	for _, name := range weirdNames {
		for _, path := range []string{name, "dir/" + name, name + "/file"} {
			subject := site(t).Subject(mustPath(t, path))
			checkSubject(t, subject)
			if other, ok := seen[subject]; ok {
				t.Errorf("%q and %q share %s", path, other, subject)
			}
			seen[subject] = path
		}
	}
}

// checkSubject fails unless a server takes the subject as a literal one, within
// our limits and under the site's wildcard.
func checkSubject(t *testing.T, subject string) {
	t.Helper()
	tokens := strings.Split(subject, ".")
	if len(subject) > events.MaxSubjectBytes || len(tokens) > events.MaxSubjectTokens {
		t.Errorf("%d bytes, %d tokens: %s", len(subject), len(tokens), subject)
	}
	for _, token := range tokens {
		if token == "" || strings.Trim(token, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-=") != "" {
			t.Errorf("token %q in %q", token, subject)
		}
	}
	if !site(t).IsFile(subject) {
		t.Errorf("%q is not of the site's files", subject)
	}
}

// pathOf inverts Subject for the subjects that spell their path.
func pathOf(subject string) (string, error) {
	rest, _ := strings.CutPrefix(subject, "treecast.web.file.")
	if rest == "_root" {
		return ".", nil
	}
	var b strings.Builder
	for i := 0; i < len(rest); i++ {
		switch rest[i] {
		case '.':
			b.WriteByte('/')
		case '=':
			if len(rest) < i+3 {
				return "", errors.New("cut escape")
			}
			c, err := strconv.ParseUint(rest[i+1:i+3], 16, 8)
			if err != nil {
				return "", err
			}
			b.WriteByte(byte(c))
			i += 2
		default:
			b.WriteByte(rest[i])
		}
	}
	return b.String(), nil
}

// FuzzSubject shows that no two paths share a subject: those that spell their
// path can be read back, and the others live under a token that these never
// have.
func FuzzSubject(f *testing.F) {
	f.Add("_root", ".")
	f.Add("_long/x", "=5Flong/x")
	f.Add("a.b", "a/b")
	f.Add("a=2Eb", "a.b")
	f.Add(strings.Repeat("a/", 20)+"b", strings.Repeat("a/", 20)+"c")
	f.Add(strings.Repeat(".", 60), strings.Repeat("é", 30))
	f.Fuzz(func(t *testing.T, a, b string) {
		p, errP := events.ParsePath(a)
		q, errQ := events.ParsePath(b)
		if errP != nil || errQ != nil {
			return
		}
		subject := site(t).Subject(p)
		checkSubject(t, subject)
		if !strings.HasPrefix(subject, "treecast.web.file._long.") {
			if back, err := pathOf(subject); err != nil || back != p.String() {
				t.Fatalf("%q on %s reads as %q, %v", p, subject, back, err)
			}
		}
		if p != q && subject == site(t).Subject(q) {
			t.Fatalf("%q and %q share %s", p, q, subject)
		}
	})
}

func TestSiteNames(t *testing.T) {
	for _, s := range []string{"web", "W-e_b-0", strings.Repeat("x", events.MaxSiteBytes)} {
		if got, err := events.ParseSite(s); err != nil || string(got) != s {
			t.Errorf("%q: %q, %v", s, got, err)
		}
	}
	for _, s := range []string{"", " ", "a.b", "*", ">", "a b", "é", "a\n", "a/b", "$JS", "a\x00", "\x1b[2J",
		strings.Repeat("x", events.MaxSiteBytes+1), strings.Repeat("x", 1<<20)} {
		got, err := events.ParseSite(s)
		if !errors.Is(err, events.ErrSite) || got != "" {
			t.Errorf("%.40q: %.40q, %v", s, got, err)
			continue
		}
		if len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\n\x1b\x00") {
			t.Errorf("error %.100q", err.Error())
		}
	}
}

func TestSiteSubjects(t *testing.T) {
	s := site(t)
	for got, want := range map[string]string{
		s.FileSubjects():   "treecast.web.file.>",
		s.LeaseSubject():   "treecast.web.lease",
		s.HolderSubject():  "treecast.web.holder",
		s.BarrierSubject(): "treecast.web.barrier",
		s.SourceSubject():  "treecast.web.source",
		s.NodeSubject("b"): "treecast.web.node.b",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for subject, want := range map[string]bool{
		"treecast.web.file.a":       true,
		"treecast.web.file._root":   true,
		"treecast.web.lease":        false,
		"treecast.web.files.a":      false,
		"treecast.webb.file.a":      false,
		"treecast.other.file.a":     false,
		"x.treecast.web.file.a":     false,
		"":                          false,
		fmt.Sprint(s) + ".file.a":   false,
		"treecast.web":              false,
		"treecast.web.file.a.b=2Ec": true,
	} {
		if got := s.IsFile(subject); got != want {
			t.Errorf("%q is a file's: %t", subject, got)
		}
	}
}

// TestPathOf: the inverse, for every subject that spells its path.
func TestPathOf(t *testing.T) {
	site := events.Site("web")
	for _, s := range []string{".", "a", "a b/c.html", "_root", "_long/x", "x/_root", "\xff\n*.>=", "=41"} {
		p := mustPath(t, s)
		if got, ok := site.PathOf(site.Subject(p)); !ok || got != p {
			t.Errorf("%q: %v, %v", s, got, ok)
		}
	}
	for _, subject := range []string{
		"treecast.web.lease", "treecast.other.file.a", "treecast.web.file.", "treecast.web.file.a=2", "treecast.web.file.a=2g",
		"treecast.web.file.a=41", "treecast.web.file.=2E=2E.x", site.Subject(mustPath(t, strings.Repeat("d/", 20)+"x")),
	} {
		if p, ok := site.PathOf(subject); ok {
			t.Errorf("%q has the path %v", subject, p)
		}
	}
}
