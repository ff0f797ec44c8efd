package events_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"treecast/internal/events"
)

var update = flag.Bool("update", false, "rewrite the golden files; a changed one breaks nodes that run")

type message struct {
	entry events.Entry
	body  []byte
}

// goldenList is of a body of 1 GiB and five bytes, most of it a hole.
var goldenList = events.ChunkList{
	{Digest: events.Sum([]byte("a")), Size: 1 << 20},
	{Size: 1<<30 - 1<<20},
	{Digest: events.Sum([]byte("12345")), Size: 5},
}

// goldenMessages are one of each kind and the forms that a kind can have. The
// files of their names in testdata/golden are what every release must write
// and, for ever, read.
func goldenMessages(t *testing.T) map[string]message {
	alter := func(kind events.Kind, f func(*events.Entry)) message {
		e := anEntry(t, kind)
		f(&e)
		return message{entry: e}
	}
	at := func(path string) func(*events.Entry) {
		return func(e *events.Entry) { e.Path = mustPath(t, path) }
	}
	from := mustPath(t, "img/old.png")

	page := alter(events.File, at("index.html"))
	page.body = []byte("<!doctype html>\n<title>treecast</title>\n" + strings.Repeat("<p>hello</p>\n", 20))
	page.entry.Size, page.entry.Digest = int64(len(page.body)), events.Sum(page.body)

	renamed := page
	renamed.entry.Path, renamed.entry.From = mustPath(t, "img/new.png"), &from

	weird := page
	weird.entry.Path = mustPath(t, "a b/\xff\n*.>")
	weird.entry.Owner, weird.entry.Group = "", "ñ\"<&>"

	chunked := alter(events.File, func(e *events.Entry) {
		e.Body, e.Size, e.Average = events.ChunksBody, 1<<30+5, 512<<10
	})
	chunked.body = goldenList.AppendText(nil)

	return map[string]message{
		"file":    page,
		"renamed": renamed,
		"weird":   weird,
		"file-empty": alter(events.File, func(e *events.Entry) {
			e.Body, e.Size, e.Digest = events.NoBody, 0, events.Sum(nil)
		}),
		"file-chunks": chunked,
		"file-long-list": alter(events.File, func(e *events.Entry) {
			list := events.Sum([]byte("list"))
			e.Body, e.Size, e.Average, e.List = events.ChunksBody, 40<<30, 2<<20, &list
		}),
		"file-long": alter(events.File, func(e *events.Entry) {
			e.Path = mustPath(t, strings.Repeat("deep/", 20)+"file")
			e.Body, e.Size, e.Digest = events.NoBody, 0, events.Sum(nil)
		}),
		"dir":        alter(events.Dir, func(e *events.Entry) { e.Path, e.Mode = mustPath(t, "img"), 0o2775 }),
		"root":       alter(events.Dir, func(e *events.Entry) { e.Path, e.Mode = events.Path{}, 0o755 }),
		"root-whole": alter(events.Dir, func(e *events.Entry) { e.Path, e.Mode, e.Whole = events.Path{}, 0o755, true }),
		"symlink": alter(events.Symlink, func(e *events.Entry) {
			e.Path, e.Mode, e.Mtime = mustPath(t, "_root"), 0o777, events.Time{Sec: -1, Nsec: 5}
		}),
		"symlink-bytes": alter(events.Symlink, func(e *events.Entry) { e.Mode, e.Target = 0o777, "\xfe/x" }),
		"tombstone":     alter(events.Tombstone, at("img/old.png")),
		"fifo":          alter(events.FIFO, at("run/fifo")),
		"socket":        alter(events.Socket, at("run/socket")),
		"char":          alter(events.CharDevice, at("dev/char")),
		"block":         alter(events.BlockDevice, at("dev/block")),
	}
}

// TestGoldenFiles checks both ways: the entry makes these very bytes, and the
// bytes make the entry. Compressed bytes may differ from one version of the
// compressor to the next; what is in them may not.
func TestGoldenFiles(t *testing.T) {
	c := newCodec(t)
	messages := goldenMessages(t)
	for name, m := range messages {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join("testdata", "golden", name)
			header, err := m.entry.MarshalHeader()
			if err != nil {
				t.Fatal(err)
			}
			subject := site(t).Subject(m.entry.Path)
			if *update {
				writeGolden(t, file, subject, header, c, m.body)
			}
			wantSubject, wantHeader, payload := readGolden(t, file)
			if subject != wantSubject {
				t.Errorf("got subject\n%s, want\n%s", subject, wantSubject)
			}
			if header != wantHeader {
				t.Errorf("got header\n%s, want\n%s", header, wantHeader)
			}
			e, err := events.Decode(site(t), wantSubject, wantHeader)
			if err != nil || !reflect.DeepEqual(e, m.entry) {
				t.Errorf("got entry\n%+v, want\n%+v, %v", e, m.entry, err)
			}
			if e.Body == events.ChunksBody {
				if e.List != nil {
					return
				}
				if list, err := c.List(&e, payload); err != nil || !slices.Equal(list, goldenList) {
					t.Errorf("got list %v, want %v, %v", list, goldenList, err)
				}
				return
			}
			if body, err := c.Body(&e, payload, nil); err != nil || !bytes.Equal(body, m.body) {
				t.Errorf("got body %q, want %q, %v", body, m.body, err)
			}
		})
	}
	files, err := os.ReadDir(filepath.Join("testdata", "golden"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, ok := messages[f.Name()]; !ok {
			t.Errorf("no message makes %s", f.Name())
		}
	}
}

// A golden file has the subject, the header as on the wire, and the payload in
// lines of hexadecimal digits.
func writeGolden(t *testing.T, file, subject, header string, c *events.Codec, body []byte) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s: %s\n", subject, events.Header, header)
	if len(body) > 0 {
		digits := hex.EncodeToString(c.Compress(body))
		for len(digits) > 0 {
			n := min(len(digits), 80)
			fmt.Fprintln(&b, digits[:n])
			digits = digits[n:]
		}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readGolden(t *testing.T, file string) (subject, header string, payload []byte) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(lines) < 2 || !strings.HasPrefix(lines[1], events.Header+": ") {
		t.Fatalf("%s is not a golden file", file)
	}
	payload, err = hex.DecodeString(strings.Join(lines[2:], ""))
	if err != nil {
		t.Fatal(err)
	}
	return lines[0], strings.TrimPrefix(lines[1], events.Header+": "), payload
}
