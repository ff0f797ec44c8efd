package events_test

import (
	"testing"

	"treecast/internal/events"
)

func TestItemize(t *testing.T) {
	for kind, want := range map[events.Kind]string{
		events.File:        ">f+++++++++",
		events.Dir:         "cd+++++++++",
		events.Symlink:     "cL+++++++++",
		events.FIFO:        "cS+++++++++",
		events.Socket:      "cS+++++++++",
		events.CharDevice:  "cD+++++++++",
		events.BlockDevice: "cD+++++++++",
		events.Tombstone:   "*deleting  ",
	} {
		e := anEntry(t, kind)
		if got := events.Itemize(nil, &e); got != want {
			t.Errorf("new %s: %q, want %q", kind, got, want)
		}
		if got := events.Itemize(&e, nil); got != "*deleting  " {
			t.Errorf("deleted %s: %q", kind, got)
		}
	}
	for _, c := range []struct {
		kind  events.Kind
		want  string
		alter func(*events.Entry)
	}{
		{events.File, ".f.........", func(*events.Entry) {}},
		{events.File, ".f.........", func(e *events.Entry) { e.Epoch++; e.Ctime.Nsec++ }},
		{events.File, ">f.s.......", func(e *events.Entry) { e.Size++ }},
		{events.File, ">fc........", func(e *events.Entry) { e.Digest[0] ^= 1 }},
		{events.File, ".f..t......", func(e *events.Entry) { e.Mtime.Nsec++ }},
		{events.File, ".f...p.....", func(e *events.Entry) { e.Mode = 0o600 }},
		{events.File, ".f....o....", func(e *events.Entry) { e.UID++ }},
		{events.File, ".f....o....", func(e *events.Entry) { e.Owner = "nobody" }},
		{events.File, ".f.....g...", func(e *events.Entry) { e.GID++ }},
		{events.File, ".f.....g...", func(e *events.Entry) { e.Group = "nobody" }},
		{events.Dir, ".d..tp.....", func(e *events.Entry) { e.Mtime.Nsec++; e.Mode = 0o700 }},
		{events.Symlink, "cLc........", func(e *events.Entry) { e.Target = "other" }},
		{events.BlockDevice, "cDc........", func(e *events.Entry) { e.Major++ }},
		{events.CharDevice, "cDc........", func(e *events.Entry) { e.Minor++ }},
		{events.File, "cd+++++++++", func(e *events.Entry) { e.Kind = events.Dir }},
	} {
		was, wanted := anEntry(t, c.kind), anEntry(t, c.kind)
		c.alter(&wanted)
		if got := events.Itemize(&was, &wanted); got != c.want {
			t.Errorf("%s: %q, want %q", c.kind, got, c.want)
		}
	}
}
