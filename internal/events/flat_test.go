package events

import (
	"bytes"
	"encoding/json"
	"reflect"
	"runtime"
	"testing"
	"unicode/utf8"
)

var flatHeaders = []string{
	`{"v":1,"path":"a/b.html","kind":"file","mode":"0644","uid":0,"gid":4294967295,"owner":"www-data","group":"é","mtime":"1600000001.5","ctime":"-1","size":9223372036854775807,"digest":"sha256:0","body":"chunks","average":524288,"list":"sha256:1","epoch":18446744073709551615}`,
	`{"v":1,"path":".","kind":"dir","mode":"1777","uid":0,"gid":0,"mtime":"0","ctime":"0","whole":true,"epoch":1}`,
	`{"v":1,"path":"l","kind":"symlink","target":"../x","from":"k","device":"1:3","epoch":0}`,
	`{"v":1,"path":"a","path":"b","uid":1,"uid":2,"kind":"tombstone","epoch":1}`,
}

// What is read the short way is what package json reads.
func FuzzFlat(f *testing.F) {
	for _, s := range flatHeaders {
		f.Add(s)
	}
	for _, s := range []string{
		`{"v":1,}`, `{}`, `{"v":01}`, `{"v":-1}`, `{"v":1.0}`, `{"v":1e2}`, `{"v":2147483648}`, `{"v":1}}`, `{"v":1} `, `{ "v":1}`, `{"v":1,"epoch":18446744073709551616}`,
		`{"V":1}`, `{"path":"\u0061"}`, `{"path":"a` + "\n" + `"}`, `{"path":null}`, `{"whole":false}`, `{"whole":truex}`, `{"uid":4294967296}`, `{"x":1}`, `{"v":1`, `{"v":}`, `{"v"`, `{"size":9223372036854775808}`,
		`{"path64":"YQ=="}`, `{"v":1,"v":2}`, `{"path":"a""kind":"file"}`, `{"average":5`, `{"gid":00}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if !utf8.ValidString(header) {
			return // is refused before
		}
		var got, want wire
		if !got.parseFlat(header) {
			return
		}
		if err := json.Unmarshal([]byte(header), &want); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s\ngot  %+v\nwant %+v, %v", header, got, want, err)
		}
	})
}

// What is written the short way is what package json writes.
func FuzzFlatIsWritten(f *testing.F) {
	for _, s := range flatHeaders {
		f.Add(s)
	}
	for _, s := range []string{
		`{}`, `{"v":-1,"size":-9223372036854775808}`, `{"path":"<&>\u007f"}`, `{"path":"\""}`, `{"path":"\\"}`, `{"path":"\u0001"}`, `{"path":"\u001f"}`, `{"path":"\u2028"}`, `{"owner":"\u2029"}`, `{"group":"\ud800"}`,
		`{"target":"€ ‰"}`, `{"path64":"/w=="}`, `{"target64":"/w=="}`, `{"from64":"/w=="}`, `{"path64":""}`, `{"kind":"a\tb"}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		var w wire
		if json.Unmarshal([]byte(header), &w) != nil {
			return
		}
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(&w); err != nil {
			t.Fatal(err)
		}
		if got, ok := w.appendFlat([]byte("x")); ok && string(got)+"\n" != "x"+want.String() {
			t.Errorf("got  %s\nwant %s", got, want.String())
		}
	})
}

// Ordinary entries are read and written the short way.
func TestOrdinaryHeadersAreFlat(t *testing.T) {
	for _, s := range flatHeaders {
		if !new(wire).parseFlat(s) {
			t.Error(s)
		}
		var w wire
		if err := json.Unmarshal([]byte(s), &w); err != nil {
			t.Fatal(err)
		}
		if _, ok := w.appendFlat(nil); !ok {
			t.Error(s)
		}
	}
	path, err := ParsePath("wp-content/uploads/2026/Ünïcode & <more>.jpg")
	if err != nil {
		t.Fatal(err)
	}
	e := Entry{Path: path, Kind: File, Mode: 0o644, UID: 33, GID: 33, Owner: "www-data", Group: "www-data", Mtime: Time{Sec: 1, Nsec: 5}, Ctime: Time{Sec: 2}, Size: 3, Digest: Sum([]byte("abc")), Body: InlineBody, Epoch: 7}
	header, err := e.MarshalHeader()
	if err != nil {
		t.Fatal(err)
	}
	if !new(wire).parseFlat(header) {
		t.Error(header)
	}
}

// An entry that is kept does not keep its header.
func TestEntriesLetGoOfTheirHeaders(t *testing.T) {
	kept := make([]Entry, 10_000)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	header, err := (&Entry{
		Path: Path{"dir/file.html"}, Kind: File, Owner: "www-data", Group: "www-data", Mtime: Time{Sec: 1e9}, Ctime: Time{Sec: 1e9}, Size: 1, Digest: Sum(nil), Body: InlineBody,
	}).MarshalHeader()
	if err != nil {
		t.Fatal(err)
	}
	before := heap()
	for i := range kept {
		if kept[i], err = ParseEntry(string([]byte(header))); err != nil {
			t.Fatal(err)
		}
	}
	if got := int(heap()-before) / len(kept); got >= len(header)/2 {
		t.Errorf("%d bytes for each entry, its header has %d", got, len(header))
	}
	runtime.KeepAlive(kept)
}
