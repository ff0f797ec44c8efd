package stream

import (
	"strings"
	"testing"
	"time"

	"treecast/internal/events"
)

func TestWants(t *testing.T) {
	s, c := newSite(t, nil)
	l := acquire(t, c, "a")
	heard := make(chan Want, 10)
	stop, err := l.Wants(func(w Want) { heard <- w })
	if err != nil {
		t.Fatal(err)
	}
	node := s.connect("b")
	one := `"` + events.Sum(nil).String() + `"`
	for _, junk := range []string{
		"", "{", "[]", `{"node":"b","path":"x"}`,
		`{"node":"b","path":"../x","digests":[` + one + `]}`,
		`{"node":"b","digests":[` + one + `]}`,
		`{"node":"b","path":"x","path64":"/w==","digests":[` + one + `]}`,
		`{"node":"b","path64":"eA==","digests":[` + one + `]}`,
		`{"node":"b b","path":"x","digests":[` + one + `]}`,
		`{"path":"x","digests":[` + one + `]}`,
		`{"node":"b","path":"x","digests":["sha256:ab"]}`,
		`{"node":"b","path":"x","digests":[` + strings.Repeat(one+",", wantDigests) + one + `]}`,
		`{"node":"b","path":"x","digests":[` + one + `],"pad":"` + strings.Repeat("x", maxWantBytes) + `"}`,
	} {
		if err := node.nc.Publish(site.WantSubject(), []byte(junk)); err != nil {
			t.Fatal(err)
		}
	}
	digests := make([]events.Digest, wantDigests+1)
	for i := range digests {
		digests[i] = events.Sum([]byte{byte(i), byte(i >> 8)})
	}
	long := path(t, strings.Repeat(strings.Repeat("\xff", 250)+"/", 16)+"x")
	if err := node.Bodies(site).Want(t.Context(), "b", long, digests); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{wantDigests, 1} {
		select {
		case w := <-heard:
			if w.Node != "b" || w.Path != long || len(w.Digests) != n {
				t.Errorf("heard %d of %q by %q", len(w.Digests), w.Path, w.Node)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("not heard")
		}
	}
	if w := <-heardAfter(t, node, heard); w.Digests[0] != events.Sum(nil) {
		t.Errorf("heard %+v", w)
	}
	stop()
	stop()
	if err := node.Bodies(site).Want(t.Context(), "b", long, digests[:1]); err != nil {
		t.Fatal(err)
	}
	if err := c.flush(t.Context(), func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if len(heard) != 0 {
		t.Error("heard after the stop")
	}
}

// heardAfter sends one more want, so that whatever came before it was heard.
func heardAfter(t *testing.T, node *Conn, heard <-chan Want) <-chan Want {
	t.Helper()
	if err := node.Bodies(site).Want(t.Context(), "b", path(t, "last"), []events.Digest{events.Sum(nil)}); err != nil {
		t.Fatal(err)
	}
	return heard
}
