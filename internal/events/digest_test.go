package events_test

import (
	"errors"
	"strings"
	"testing"

	"treecast/internal/events"
)

const emptyDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestDigest(t *testing.T) {
	if got := events.Sum(nil).String(); got != emptyDigest {
		t.Errorf("digest of nothing: %s", got)
	}
	got, err := events.ParseDigest(emptyDigest)
	if err != nil || got != events.Sum(nil) {
		t.Errorf("%s, %v", got, err)
	}
}

func TestParseDigestRefuses(t *testing.T) {
	for _, s := range []string{"", "sha256:", emptyDigest[7:], emptyDigest[:70], emptyDigest + "0", emptyDigest + "\n",
		strings.ToUpper(emptyDigest), "sha256:" + strings.ToUpper(emptyDigest[7:]), "sha512" + emptyDigest[6:],
		"SHA256" + emptyDigest[6:], " " + emptyDigest, "sha256:" + strings.Repeat("g", 64),
		"sha256:" + strings.Repeat("\u212a", 21) + "0", "sha256:" + strings.Repeat("0", 1<<20)} {
		_, err := events.ParseDigest(s)
		if !errors.Is(err, events.ErrEntry) {
			t.Errorf("%.80q: got %v, want ErrEntry", s, err)
		} else if len(err.Error()) > 1000 {
			t.Errorf("error of %d bytes", len(err.Error()))
		}
	}
}

func FuzzParseDigest(f *testing.F) {
	f.Add(emptyDigest)
	f.Add(strings.ToUpper(emptyDigest))
	f.Add("sha256:")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := events.ParseDigest(s)
		if err == nil && d.String() != s {
			t.Fatalf("%q became %s", s, d)
		}
		if err != nil && !errors.Is(err, events.ErrEntry) {
			t.Fatalf("not ErrEntry: %v", err)
		}
		sum := events.Sum([]byte(s))
		if back, err := events.ParseDigest(sum.String()); err != nil || back != sum {
			t.Fatalf("%s became %s: %v", sum, back, err)
		}
	})
}
