package events_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"treecast/internal/events"
)

// entries draws good entries of every kind, with names of any bytes.
func entries() *rapid.Generator[events.Entry] {
	segment := rapid.OneOf(
		rapid.SampledFrom(weirdNames),
		rapid.StringMatching(`[a-z]{1,8}(\.html)?`),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 1, 40), func(b []byte) string { return string(b) }))
	path := rapid.Custom(func(t *rapid.T) events.Path {
		for {
			p, err := events.ParsePath(strings.Join(rapid.SliceOfN(segment, 1, 6).Draw(t, "segments"), "/"))
			if err == nil {
				return p
			}
		}
	})
	time := rapid.Custom(func(t *rapid.T) events.Time {
		return events.Time{Sec: rapid.Int64Range(-(1<<40), 1<<40).Draw(t, "sec"),
			Nsec: rapid.Int32Range(0, 999_999_999).Draw(t, "nsec")}
	})
	id := rapid.Uint32Range(0, math.MaxUint32-1)
	return rapid.Custom(func(t *rapid.T) events.Entry {
		e := events.Entry{
			Path:  path.Draw(t, "path"),
			Kind:  rapid.SampledFrom(kinds).Draw(t, "kind"),
			Epoch: rapid.Uint64().Draw(t, "epoch"),
		}
		if rapid.Bool().Draw(t, "renamed") {
			from := path.Draw(t, "from")
			if len(from.String()) <= 1024 {
				e.From = &from
			}
		}
		if e.Kind == events.Tombstone {
			return e
		}
		e.Mode = rapid.Uint16Range(0, 0o7777).Draw(t, "mode")
		e.UID, e.GID = id.Draw(t, "uid"), id.Draw(t, "gid")
		e.Owner = rapid.StringN(0, -1, events.MaxNameBytes).Draw(t, "owner")
		e.Group = rapid.StringN(0, -1, events.MaxNameBytes).Draw(t, "group")
		e.Mtime, e.Ctime = time.Draw(t, "mtime"), time.Draw(t, "ctime")
		switch e.Kind {
		case events.Dir:
			if rapid.Bool().Draw(t, "root") {
				e.Path = events.Path{}
			}
		case events.File:
			e.Body = rapid.SampledFrom([]events.Body{events.NoBody, events.InlineBody, events.ChunksBody}).Draw(t, "body")
			switch e.Body {
			case events.NoBody:
				e.Digest = events.Sum(nil)
			case events.InlineBody:
				e.Size = rapid.Int64Range(1, events.MaxDecodedBytes).Draw(t, "size")
			case events.ChunksBody:
				e.Size = rapid.Int64Range(1, events.MaxBodyBytes).Draw(t, "size")
				e.Average = uint32(512<<10) << rapid.IntRange(0, 2).Draw(t, "average")
				if rapid.Bool().Draw(t, "long") {
					list := events.Sum([]byte("list"))
					e.List = &list
				}
			}
			if e.Body != events.NoBody {
				e.Digest = events.Sum(rapid.SliceOf(rapid.Byte()).Draw(t, "content"))
			}
		case events.Symlink:
			e.Target = strings.ReplaceAll("x"+segment.Draw(t, "target"), "\x00", "")
		case events.CharDevice, events.BlockDevice:
			e.Major, e.Minor = rapid.Uint32().Draw(t, "major"), rapid.Uint32().Draw(t, "minor")
		}
		return e
	})
}

func TestEveryEntryComesBackAsItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := entries().Draw(t, "entry")
		header, err := e.MarshalHeader()
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(header, "\r\n\x00\x1b") {
			t.Fatalf("control byte in %q", header)
		}
		back, err := events.Decode("web", events.Site("web").Subject(e.Path), header)
		if err != nil {
			t.Fatalf("%v in %s", err, header)
		}
		if !reflect.DeepEqual(e, back) {
			t.Fatalf("%+v\nbecame\n%+v\nby %s", e, back, header)
		}
	})
}

// TestLongestEntryFits draws every field out to its limit, in the bytes that
// take most room in JSON.
func TestLongestEntryFits(t *testing.T) {
	wide := strings.NewReplacer("d", "\x01", "f", "\x01").Replace(longest())
	from := mustPath(t, wide[:1024-1])
	name := strings.Repeat("\x01", events.MaxNameBytes)
	first := events.Time{Sec: -(1 << 40)}
	e := events.Entry{Path: mustPath(t, wide), Kind: events.Symlink, Mode: 0o7777,
		UID: math.MaxUint32 - 1, GID: math.MaxUint32 - 1, Owner: name, Group: name,
		Mtime: first, Ctime: first, Target: strings.Repeat("\x01", events.MaxTargetBytes), From: &from, Epoch: math.MaxUint64}
	header, err := e.MarshalHeader()
	if err != nil {
		t.Fatal(err)
	}
	if back, err := events.ParseEntry(header); err != nil || !reflect.DeepEqual(e, back) {
		t.Fatalf("%+v, %v", back, err)
	}
	if room := events.MaxHeaderBytes - len(header); room < 0 || room > 10_000 {
		t.Errorf("the longest header has %d bytes", len(header))
	}
}

// brokenEntries are entries that ParseEntry would refuse.
func brokenEntries(tb testing.TB) map[string]events.Entry {
	alter := func(kind events.Kind, f func(*events.Entry)) events.Entry {
		e := anEntry(tb, kind)
		f(&e)
		return e
	}
	root := func(e *events.Entry) { e.Path = events.Path{} }
	return map[string]events.Entry{
		"root as a file":        alter(events.File, root),
		"root as a symlink":     alter(events.Symlink, root),
		"root deleted":          alter(events.Tombstone, root),
		"root as a device":      alter(events.BlockDevice, root),
		"type bits in the mode": alter(events.File, func(e *events.Entry) { e.Mode = 0o10644 }),
		"uid -1":                alter(events.Dir, func(e *events.Entry) { e.UID = math.MaxUint32 }),
		"gid -1":                alter(events.Dir, func(e *events.Entry) { e.GID = math.MaxUint32 }),
		"size negative":         alter(events.File, func(e *events.Entry) { e.Size = -1 }),
		"size least":            alter(events.File, func(e *events.Entry) { e.Size = math.MinInt64 }),
		"size 0 inline":         alter(events.File, func(e *events.Entry) { e.Size = 0 }),
		"size over the limit":   alter(events.File, func(e *events.Entry) { e.Size = events.MaxDecodedBytes + 1 }),
		"size without a body":   alter(events.File, func(e *events.Entry) { e.Body = events.NoBody }),
		"chunks of a negative":  alter(events.File, func(e *events.Entry) { e.Body, e.Size = events.ChunksBody, -1 }),
		"empty, other digest":   alter(events.File, func(e *events.Entry) { e.Body, e.Size = events.NoBody, 0 }),
		"no target":             alter(events.Symlink, func(e *events.Entry) { e.Target = "" }),
		"NUL in the target":     alter(events.Symlink, func(e *events.Entry) { e.Target = "a\x00b" }),
		"target too long":       alter(events.Symlink, func(e *events.Entry) { e.Target = strings.Repeat("x", events.MaxTargetBytes+1) }),
		"mtime beyond":          alter(events.FIFO, func(e *events.Entry) { e.Mtime.Sec = 1<<40 + 1 }),
		"mtime before":          alter(events.Dir, func(e *events.Entry) { e.Mtime.Sec = -(1 << 40) - 1 }),
		"mtime least":           alter(events.Dir, func(e *events.Entry) { e.Mtime.Sec = math.MinInt64 }),
		"ctime beyond":          alter(events.Socket, func(e *events.Entry) { e.Ctime.Sec = math.MaxInt64 }),
	}
}

func TestMarshalRefusesWhatNoNodeWouldTake(t *testing.T) {
	broken := brokenEntries(t)
	broken["no kind"] = events.Entry{Path: mustPath(t, "a")}
	broken["unknown kind"] = events.Entry{Path: mustPath(t, "a"), Kind: 99}
	e := anEntry(t, events.File)
	e.Body = 9
	broken["unknown body"] = e
	e = anEntry(t, events.Dir)
	e.Mtime.Nsec = 1e9
	broken["nanoseconds beyond"] = e
	e.Mtime.Nsec = -1
	broken["nanoseconds negative"] = e
	for name, e := range broken {
		t.Run(name, func(t *testing.T) {
			if header, err := e.MarshalHeader(); !errors.Is(err, events.ErrEntry) {
				t.Fatalf("got %v and %s, want ErrEntry", err, header)
			}
		})
	}
}

// good is the header that hostile ones are made from.
const good = `{"v":1,"path":"a","kind":"file","mode":"0644","uid":0,"gid":0,"mtime":"1","ctime":"1","size":5,` +
	`"digest":"sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","body":"inline","epoch":7}`

func TestHostileHeaders(t *testing.T) {
	if _, err := events.ParseEntry(good); err != nil {
		t.Fatal(err)
	}
	with := func(old, replacement string) string {
		if strings.Count(good, old) != 1 {
			t.Fatalf("%q is not once in the good header", old)
		}
		return strings.Replace(good, old, replacement, 1)
	}
	size := func(s string) string { return with(`"size":5`, `"size":`+s) }
	mode := func(s string) string { return with(`"mode":"0644"`, `"mode":`+s) }
	path := func(s string) string { return with(`"path":"a"`, s) }
	link := func(s string) string { return with(`"kind":"file"`, `"kind":"symlink",`+s) }
	device := func(s string) string { return with(`"kind":"file"`, `"kind":"block",`+s) }
	in64 := base64.StdEncoding.EncodeToString

	for name, c := range map[string]struct {
		header string
		want   error
	}{
		// M5: bits and kinds that are not there
		"mode with type bits":   {mode(`"100644"`), events.ErrEntry},
		"mode of five digits":   {mode(`"00644"`), events.ErrEntry},
		"mode over":             {mode(`"8888"`), events.ErrEntry},
		"mode decimal":          {mode(`420`), events.ErrEntry},
		"mode signed":           {mode(`"+644"`), events.ErrEntry},
		"mode missing":          {mode(`""`), events.ErrEntry},
		"owner missing":         {with(`"uid":0,`, ``), events.ErrEntry},
		"owner null":            {with(`"uid":0`, `"uid":null`), events.ErrEntry},
		"owner -1":              {with(`"uid":0`, `"uid":4294967295`), events.ErrEntry},
		"owner negative":        {with(`"uid":0`, `"uid":-1`), events.ErrEntry},
		"owner over":            {with(`"gid":0`, `"gid":4294967296`), events.ErrEntry},
		"owner's name too long": {with(`"uid":0`, `"uid":0,"owner":"`+strings.Repeat("x", 256)+`"`), events.ErrEntry},
		"device without minor":  {device(`"device":"8"`), events.ErrEntry},
		"device negative":       {device(`"device":"-8:1"`), events.ErrEntry},
		"device over":           {device(`"device":"8:4294967296"`), events.ErrEntry},
		"device missing":        {device(`"x":0`), events.ErrEntry},

		// M9: sizes
		"size negative":          {size(`-5`), events.ErrEntry},
		"size missing":           {with(`"size":5,`, ``), events.ErrEntry},
		"size over the limit":    {size(`1048577`), events.ErrEntry},
		"size 2^63":              {size(`9223372036854775808`), events.ErrEntry},
		"size of 1e300":          {size(`1e300`), events.ErrEntry},
		"size of a half":         {size(`0.5`), events.ErrEntry},
		"size of 50,000 digits":  {size(strings.Repeat("9", 50_000)), events.ErrEntry},
		"size as text":           {size(`"5"`), events.ErrEntry},
		"empty with bytes":       {with(`,"body":"inline"`, ``), events.ErrEntry},
		"body unknown":           {with(`"body":"inline"`, `"body":"url"`), events.ErrVersion},
		"digest missing":         {with(`"digest"`, `"x"`), events.ErrEntry},
		"digest short":           {with(`9824"`, `"`), events.ErrEntry},
		"digest of another kind": {with(`sha256:`, `sha512:`), events.ErrEntry},
		"time missing":           {with(`"mtime":"1"`, `"mtime":""`), events.ErrEntry},
		"time as a number":       {with(`"mtime":"1"`, `"mtime":1`), events.ErrEntry},
		"time beyond":            {with(`"ctime":"1"`, `"ctime":"999999999999999999999999"`), events.ErrEntry},

		// M1, M20: paths
		"path missing":         {path(`"x":0`), events.ErrPath},
		"path empty":           {path(`"path":""`), events.ErrPath},
		"path absolute":        {path(`"path":"/etc/passwd"`), events.ErrPath},
		"path up":              {path(`"path":"a/../../x"`), events.ErrPath},
		"path up, escaped":     {path(`"path":"\u002e\u002e/x"`), events.ErrPath},
		"path up, in base64":   {path(`"path64":"` + in64([]byte("../\xff")) + `"`), events.ErrPath},
		"path with NUL":        {path(`"path":"a\u0000"`), events.ErrPath},
		"path reserved":        {path(`"path":"` + events.ReservedName + `/lock"`), events.ErrPath},
		"path reserved, 64":    {path(`"path64":"` + in64([]byte(events.ReservedName+"/\xff")) + `"`), events.ErrPath},
		"path 4096":            {path(`"path":"` + longest() + `/"`), events.ErrPath},
		"path the root":        {path(`"path":"."`), events.ErrEntry},
		"path twice":           {path(`"path":"a","path64":"` + in64([]byte("\xff")) + `"`), events.ErrEntry},
		"text in base64":       {path(`"path64":"` + in64([]byte("a")) + `"`), events.ErrEntry},
		"base64 broken":        {path(`"path64":"*"`), events.ErrEntry},
		"from up":              {path(`"path":"a","from":"../x"`), events.ErrPath},
		"from reserved":        {path(`"path":"a","from":"` + events.ReservedName + `"`), events.ErrPath},
		"from twice":           {path(`"path":"a","from":"b","from64":"` + in64([]byte("\xff")) + `"`), events.ErrEntry},
		"root deleted":         {`{"v":1,"path":".","kind":"tombstone","epoch":1}`, events.ErrEntry},
		"reserved deleted":     {`{"v":1,"path":".treecast","kind":"tombstone","epoch":1}`, events.ErrPath},
		"target missing":       {link(`"x":0`), events.ErrEntry},
		"target with NUL":      {link(`"target":"a\u0000b"`), events.ErrEntry},
		"target 4096":          {link(`"target":"` + strings.Repeat("x", 4096) + `"`), events.ErrEntry},
		"target twice":         {link(`"target":"a","target64":"` + in64([]byte("\xff")) + `"`), events.ErrEntry},
		"target, text as base": {link(`"target64":"` + in64([]byte("a")) + `"`), events.ErrEntry},

		// M4, M21: versions and garbage
		"version missing":     {with(`"v":1,`, ``), events.ErrVersion},
		"version 0":           {with(`"v":1`, `"v":0`), events.ErrVersion},
		"version 2":           {with(`"v":1`, `"v":2`), events.ErrVersion},
		"version negative":    {with(`"v":1`, `"v":-1`), events.ErrVersion},
		"version huge":        {with(`"v":1`, `"v":9223372036854775807`), events.ErrVersion},
		"version as text":     {with(`"v":1`, `"v":"1"`), events.ErrEntry},
		"version 2, new type": {strings.Replace(mode(`420`), `"v":1`, `"v":2`, 1), events.ErrVersion},
		"kind missing":        {with(`"kind":"file",`, ``), events.ErrVersion},
		"kind unknown":        {with(`"kind":"file"`, `"kind":"hardlink"`), events.ErrVersion},
		"kind unknown's name": {with(`"kind":"file"`, `"kind":"unknown"`), events.ErrVersion},
		"kind in capitals":    {with(`"kind":"file"`, `"kind":"File"`), events.ErrVersion},
		"kind of 50,000":      {with(`"kind":"file"`, `"kind":"`+strings.Repeat("x", 50_000)+`"`), events.ErrVersion},
		"kind a number":       {with(`"kind":"file"`, `"kind":1`), events.ErrEntry},
		"trailing garbage":    {good + "x", events.ErrEntry},
		"two entries":         {good + good, events.ErrEntry},
		"cut":                 {good[:len(good)-1], events.ErrEntry},
		"empty":               {"", events.ErrEntry},
		"spaces":              {"   ", events.ErrEntry},
		"null":                {"null", events.ErrVersion},
		"a list":              {"[" + good + "]", events.ErrEntry},
		"deep lists":          {strings.Repeat("[", 50_000), events.ErrEntry},
		"deep objects":        {strings.Repeat(`{"a":`, 11_000), events.ErrEntry},
		"deep in a field":     {with(`"uid":0`, `"uid":0,"x":`+strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000)), events.ErrEntry},
		"not UTF-8":           {with(`"a"`, "\"a\xff\""), events.ErrEntry},
		"NUL":                 {"\x00", events.ErrEntry},
		"BOM":                 {"\ufeff" + good, events.ErrEntry},
		"escape codes":        {"\x1b[2J" + good, events.ErrEntry},
		"escape in the kind":  {with(`"kind":"file"`, `"kind":"\u001b[2J\r\n"`), events.ErrVersion},

		// M23: huge headers
		"a byte too long": {good + strings.Repeat(" ", events.MaxHeaderBytes-len(good)+1), events.ErrEntry},
		"1 MiB":           {strings.Repeat("x", 1<<20), events.ErrEntry},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := events.ParseEntry(c.header)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v; entry %+v", err, c.want, e)
			}
			checkReport(t, err)
		})
	}
}

// checkReport fails if err could flood a log or a terminal: M24.
func checkReport(t *testing.T, err error) {
	t.Helper()
	if len(err.Error()) > 1000 {
		t.Errorf("error of %d bytes", len(err.Error()))
	}
	if i := strings.IndexFunc(err.Error(), func(r rune) bool { return r < ' ' || 0x7f <= r && r < 0xa0 }); i >= 0 {
		t.Errorf("control character in %q", err.Error())
	}
}

func TestHarmlessOddities(t *testing.T) {
	for name, header := range map[string]string{
		"a field of a later program": strings.Replace(good, `"uid"`, `"later":{"x":[1]},"uid"`, 1),
		"spaces":                     " " + strings.ReplaceAll(good, ",", " ,\t"),
		"exactly the longest":        good + strings.Repeat(" ", events.MaxHeaderBytes-len(good)),
		"fields of another kind":     strings.Replace(good, `"uid"`, `"target":"/etc","device":"8:1","uid"`, 1),
	} {
		e, err := events.ParseEntry(header)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if e.Target != "" || e.Major != 0 || e.Size != 5 || e.Path.String() != "a" {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// TestSpecialBits pins that set-id and sticky bits are the source's to say, as
// with rsync -a.
func TestSpecialBits(t *testing.T) {
	for _, mode := range []uint16{0, 0o777, 0o1777, 0o2755, 0o4755, 0o7777} {
		e := anEntry(t, events.File)
		e.Mode = mode
		header, err := e.MarshalHeader()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(header, fmt.Sprintf(`"mode":"%04o"`, mode)) {
			t.Errorf("mode %04o in %s", mode, header)
		}
		if back, err := events.ParseEntry(header); err != nil || back.Mode != mode {
			t.Errorf("mode %04o came back as %04o: %v", mode, back.Mode, err)
		}
	}
}

func TestNamesThatTheWireCannotCarryAreLeftOut(t *testing.T) {
	e := anEntry(t, events.Dir)
	e.Owner, e.Group = strings.Repeat("x", events.MaxNameBytes+1), "\xff"
	long := mustPath(t, longest())
	e.From = &long
	header, err := e.MarshalHeader()
	if err != nil {
		t.Fatal(err)
	}
	back, err := events.ParseEntry(header)
	if err != nil || back.Owner != "" || back.Group != "" || back.UID != 33 || back.From != nil {
		t.Errorf("%+v, %v", back, err)
	}
}

// TestDecodeChecksTheSubject is M22.
func TestDecodeChecksTheSubject(t *testing.T) {
	for subject, want := range map[string]error{
		"treecast.web.file.a":     nil,
		"treecast.web.file.b":     events.ErrEntry,
		"treecast.web.file.a.a":   events.ErrEntry,
		"treecast.web.file._root": events.ErrEntry,
		"treecast.web.file.=61":   events.ErrEntry,
		"treecast.other.file.a":   events.ErrEntry,
		"treecast.web.lease":      events.ErrEntry,
		"":                        events.ErrEntry,
		"treecast.web.file." + strings.Repeat("\x1b", 1<<16): events.ErrEntry,
	} {
		e, err := events.Decode("web", subject, good)
		if !errors.Is(err, want) {
			t.Errorf("%.60q: got %v, want %v", subject, err, want)
		}
		if err != nil {
			checkReport(t, err)
		}
		if e.Path.String() != "a" {
			t.Errorf("%.60q: the report names %q", subject, e.Path)
		}
	}
}

func FuzzParseEntry(f *testing.F) {
	f.Add(good)
	for _, kind := range kinds {
		e := anEntry(f, kind)
		header, err := e.MarshalHeader()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(header)
	}
	for _, s := range []string{
		`{"v":1,"path64":"Yf8=","kind":"symlink","mode":"0777","uid":0,"gid":0,"mtime":"-1","ctime":"0","target64":"/w==","from":"b","epoch":1}`,
		`{"v":1,"path":".","kind":"dir","mode":"1777","uid":0,"gid":0,"mtime":"0","ctime":"0","epoch":18446744073709551615}`,
		`{"v":1,"path":".","kind":"tombstone","epoch":1}`, `{"v":2}`, `null`, `[]`, `{"v":1,"path":"\ud800","kind":"tombstone"}`,
		`{"V":1,"PATH":"a","path":"b","kind":"tombstone","epoch":1,"epoch":2}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		e, err := events.ParseEntry(header)
		if err != nil {
			if !errors.Is(err, events.ErrEntry) && !errors.Is(err, events.ErrPath) && !errors.Is(err, events.ErrVersion) {
				t.Fatalf("undocumented error: %v", err)
			}
			checkReport(t, err)
			return
		}
		if e.From != nil && len(e.From.String()) > 1024 {
			e.From = nil // only a hint
		}
		canonical, err := e.MarshalHeader()
		if err != nil {
			t.Fatalf("%q was accepted, but is not to be sent: %v", header, err)
		}
		back, err := events.Decode("web", events.Site("web").Subject(e.Path), canonical)
		if err != nil || !reflect.DeepEqual(back, e) {
			t.Fatalf("%+v\nbecame\n%+v\nby %s: %v", e, back, canonical, err)
		}
	})
}
