package treecast_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go"

	"treecast/internal/events"
)

// A forged message: its header is JSON as given, its subject the path's unless
// one is given.
type forged struct {
	name    string
	subject string
	path    string
	fields  map[string]any // over those of a valid entry
	raw     string         // instead of all that
	payload []byte
}

// TestHostileEntries sends what no publisher would, each row of the attacks
// that need no key: all are parked with a report, nothing outside of the root
// is touched, and the stream goes on.
func TestHostileEntries(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "b")
	c.write(t, "good", []byte("good"))
	c.must(t, c.judge(nil))
	outside := c.path("outside")
	c.must(t, os.Mkdir(outside, 0o755))
	c.must(t, os.WriteFile(outside+"/sentinel", []byte("untouched"), 0o600))

	frame := func(b []byte) []byte {
		enc, err := zstd.NewWriter(nil)
		c.must(t, err)
		defer enc.Close()
		return enc.EncodeAll(b, nil)
	}
	body := frame([]byte("evil"))
	bomb := frame(make([]byte, 64<<20))
	long := strings.Repeat("x", 256)
	messages := []forged{
		{name: "parent", path: "../x", payload: body},
		{name: "inner parent", path: "a/../../x", payload: body},
		{name: "absolute", path: "/etc/x", payload: body},
		{name: "double slash", path: "a//b", payload: body},
		{name: "trailing slash", path: "a/", payload: body},
		{name: "dot", path: "a/./b", payload: body},
		{name: "root as a file", path: ".", payload: body},
		{name: "empty path", path: "", payload: body},
		{name: "NUL", path: "a\x00b", payload: body},
		{name: "long segment", path: long, payload: body},
		{name: "long path", path: strings.Repeat("d/", 2048) + "x", payload: body},
		{name: "reserved", path: ".treecast/watermark", payload: body},
		{name: "root's tombstone", path: ".", fields: map[string]any{"kind": "tombstone"}},
		{name: "hard link", path: "h", fields: map[string]any{"kind": "hardlink", "target": "/etc/passwd"}},
		{name: "version", path: "v", fields: map[string]any{"v": 2}, payload: body},
		{name: "mode", path: "m", fields: map[string]any{"mode": "100644"}, payload: body},
		{name: "owner -1", path: "o", fields: map[string]any{"uid": 4294967295}, payload: body},
		{name: "bomb", path: "z1", fields: map[string]any{"size": 64 << 20}, payload: bomb},
		{name: "bomb that says little", path: "z2", payload: bomb},
		{name: "not a frame", path: "z3", payload: []byte("evil")},
		{name: "truncated frame", path: "z4", payload: body[:len(body)-2]},
		{name: "two frames", path: "z5", payload: append(bytes.Clone(body), body...)},
		{name: "negative size", path: "s1", fields: map[string]any{"size": -1}, payload: body},
		{name: "huge size", path: "s2", fields: map[string]any{"size": int64(1) << 62}, payload: body},
		{name: "wrong size", path: "s3", fields: map[string]any{"size": 5}, payload: body},
		{name: "wrong digest", path: "d1", payload: frame([]byte("live"))},
		{name: "bad digest", path: "d2", fields: map[string]any{"digest": "md5:00"}, payload: body},
		{name: "unknown body", path: "b1", fields: map[string]any{"body": "elsewhere"}, payload: body},
		{name: "time", path: "t1", fields: map[string]any{"mtime": "9999999999999999999999999999"}, payload: body},
		{name: "symlink without target", path: "l1", fields: map[string]any{"kind": "symlink"}},
		{name: "symlink with NUL", path: "l2", fields: map[string]any{"kind": "symlink", "target": "a\x00b"}},
		{name: "another path's subject", subject: "treecast.web.file.good", path: "other", payload: body},
		{name: "no JSON", raw: "}{", subject: "treecast.web.file.raw1"},
		{name: "trailing garbage", raw: `{"v":1}{"v":1}`, subject: "treecast.web.file.raw2"},
		{name: "deep nesting", raw: strings.Repeat("[", 20000), subject: "treecast.web.file.raw3"},
		{name: "no header", raw: "", subject: "treecast.web.file.raw4", payload: body},
		{name: "terminal escape", path: "\x1b[2J../x", fields: map[string]any{"mode": "bad"}, payload: body},
	}
	nc, err := nats.Connect(c.url)
	c.must(t, err)
	defer nc.Close()
	js, err := nc.JetStream()
	c.must(t, err)
	for i, m := range messages {
		subject := m.subject
		if subject == "" {
			subject = fmt.Sprintf("treecast.web.file.forged%d", i)
			if p, err := events.ParsePath(m.path); err == nil {
				subject = events.Site("web").Subject(p)
			}
		}
		msg := nats.NewMsg(subject)
		msg.Data = m.payload
		header := m.raw
		if m.raw == "" && m.subject == "" || m.path != "" {
			header = m.header(t)
		}
		if header != "" {
			msg.Header.Set(events.Header, header)
		}
		if _, err := js.PublishMsg(msg); err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
	}

	// The attack of two messages: a symlink out of the tree, then through it.
	for _, m := range []forged{
		{path: "out", fields: map[string]any{"kind": "symlink", "target": outside}},
		{path: "out/sentinel", payload: body},
		{path: "out/new", payload: body},
		{path: "out2", fields: map[string]any{"kind": "symlink", "target": outside}},
		{path: "out2/sentinel", fields: map[string]any{"kind": "tombstone"}},
	} {
		p, err := events.ParsePath(m.path)
		c.must(t, err)
		msg := nats.NewMsg(events.Site("web").Subject(p))
		msg.Header.Set(events.Header, m.header(t))
		msg.Data = m.payload
		_, err = js.PublishMsg(msg)
		c.must(t, err)
	}

	// The stream goes on: what a real publisher sends next arrives.
	c.write(t, "after", []byte("after"))
	c.must(t, c.awaitFile("b", "after", []byte("after")))
	c.must(t, c.awaitFile("b", "good", []byte("good")))
	if got, err := os.ReadFile(outside + "/sentinel"); err != nil || string(got) != "untouched" {
		t.Errorf("the outside was changed: %q, %v", got, err)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("the outside has %v, %v", entries, err)
	}
	log, err := os.ReadFile(c.path("b.log"))
	c.must(t, err)
	if n := bytes.Count(log, []byte("parked: refused for good")); n != len(messages) {
		t.Errorf("%d parked, want %d", n, len(messages))
	}
	if bytes.Contains(log, []byte("\x1b[2J")) {
		t.Error("a name wrote a terminal's escape into the log")
	}

	// A restart replays from the watermark: nothing hostile comes twice.
	c.must(t, c.stop("b", 15))
	c.must(t, c.node("b"))
	c.write(t, "again", []byte("again"))
	c.must(t, c.awaitFile("b", "again", []byte("again")))
}

// header is a valid file's entry with some fields forged.
func (m *forged) header(t *testing.T) string {
	t.Helper()
	sum := sha256.Sum256([]byte("evil"))
	fields := map[string]any{
		"v": 1, "path": m.path, "kind": "file", "mode": "0644", "uid": 0, "gid": 0, "mtime": "0", "ctime": "0",
		"size": 4, "digest": fmt.Sprintf("sha256:%x", sum), "body": "inline", "epoch": 1,
	}
	for k, v := range m.fields {
		fields[k] = v
	}
	b, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
