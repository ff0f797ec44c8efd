package events_test

import (
	"testing"

	"treecast/internal/events"
)

// anEntry returns a good entry of each kind.
func anEntry(tb testing.TB, kind events.Kind) events.Entry {
	tb.Helper()
	e := events.Entry{Path: mustPath(tb, "img/logo.png"), Kind: kind, Epoch: 7}
	if kind == events.Tombstone {
		return e
	}
	e.Mode = 0o644
	e.UID, e.GID = 33, 33
	e.Owner, e.Group = "www-data", "www-data"
	e.Mtime = events.Time{Sec: 1_759_000_000, Nsec: 123_456_789}
	e.Ctime = events.Time{Sec: 1_759_000_001}
	switch kind {
	case events.File:
		e.Body, e.Size, e.Digest = events.InlineBody, 5, events.Sum([]byte("hello"))
	case events.Symlink:
		e.Target = "../x"
	case events.CharDevice, events.BlockDevice:
		e.Major, e.Minor = 8, 1
	}
	return e
}

// kinds are all kinds of entries.
var kinds = []events.Kind{events.File, events.Dir, events.Symlink, events.Tombstone,
	events.FIFO, events.Socket, events.CharDevice, events.BlockDevice}

func TestKinds(t *testing.T) {
	special := map[events.Kind]bool{events.FIFO: true, events.Socket: true, events.CharDevice: true, events.BlockDevice: true}
	names := map[string]bool{}
	for _, k := range kinds {
		names[k.String()] = true
		if k.Special() != special[k] {
			t.Errorf("%s is special: %t", k, k.Special())
		}
	}
	if len(names) != len(kinds) || names["unknown"] {
		t.Errorf("names: %v", names)
	}
	for _, k := range []events.Kind{0, events.BlockDevice + 1, 255} {
		if k.String() != "unknown" {
			t.Errorf("kind %d is called %s", k, k)
		}
	}
}

func TestSame(t *testing.T) {
	from := mustPath(t, "old")
	for name, alter := range map[string]func(*events.Entry){
		"nothing": func(*events.Entry) {},
		"ctime":   func(e *events.Entry) { e.Ctime.Nsec++ },
		"epoch":   func(e *events.Entry) { e.Epoch++ },
		"from":    func(e *events.Entry) { e.From = &from },
		"body":    func(e *events.Entry) { e.Body = events.ChunksBody },
	} {
		e, o := anEntry(t, events.File), anEntry(t, events.File)
		alter(&o)
		if !e.Same(&o) || !o.Same(&e) {
			t.Errorf("%s: should be the same", name)
		}
	}
	for name, alter := range map[string]func(*events.Entry){
		"path":   func(e *events.Entry) { e.Path = from },
		"kind":   func(e *events.Entry) { e.Kind = events.Dir },
		"mode":   func(e *events.Entry) { e.Mode ^= 0o4000 },
		"uid":    func(e *events.Entry) { e.UID++ },
		"gid":    func(e *events.Entry) { e.GID++ },
		"owner":  func(e *events.Entry) { e.Owner = "root" },
		"group":  func(e *events.Entry) { e.Group = "" },
		"major":  func(e *events.Entry) { e.Major++ },
		"minor":  func(e *events.Entry) { e.Minor++ },
		"mtime":  func(e *events.Entry) { e.Mtime.Nsec++ },
		"size":   func(e *events.Entry) { e.Size++ },
		"digest": func(e *events.Entry) { e.Digest[31] ^= 1 },
		"target": func(e *events.Entry) { e.Target = "x" },
	} {
		e, o := anEntry(t, events.File), anEntry(t, events.File)
		alter(&o)
		if e.Same(&o) || o.Same(&e) {
			t.Errorf("%s: should differ", name)
		}
	}
}

func TestOrdered(t *testing.T) {
	for _, c := range []struct {
		a, b         string
		kindA, kindB events.Kind
		want         bool
	}{
		{"a", "a", events.File, events.File, true},
		{"a", "a", events.Dir, events.Dir, true},
		{"a/b", "a", events.File, events.Dir, false},
		{"a/b/c", "a", events.Tombstone, events.Dir, false},
		{"a/b", "a", events.Dir, events.File, true},
		{"a/b", "a", events.File, events.Tombstone, true},
		{"a/b", "a", events.Tombstone, events.Tombstone, true},
		{"a/b", "a", events.Tombstone, events.Symlink, true},
		{"a", ".", events.File, events.Dir, false},
		{"a/b", "a/c", events.Tombstone, events.Tombstone, false},
		{"ab", "a", events.Tombstone, events.Tombstone, false},
	} {
		a, b := events.Entry{Path: mustPath(t, c.a), Kind: c.kindA}, events.Entry{Path: mustPath(t, c.b), Kind: c.kindB}
		if events.Ordered(&a, &b) != c.want || events.Ordered(&b, &a) != c.want {
			t.Errorf("%s %s and %s %s: want %t", c.kindA, c.a, c.kindB, c.b, c.want)
		}
	}
}
