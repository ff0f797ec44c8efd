package apply_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"treecast/internal/events"
	"treecast/internal/publisher"
	"treecast/internal/stream"
)

const siteName = events.Site("web")

// A site is a source tree on disk and what a broker has of it: a stream that
// keeps the newest message of each subject, and a bucket of chunks. It has the
// publisher's rounds, which may be cut short. It is a subscriber.Stream and a
// subscriber.Bucket.
type site struct {
	t     *rapid.T
	root  string
	codec *events.Codec

	tick    int64 // of all clocks; it never goes back
	created time.Time
	seq     uint64
	lease   uint64
	live    map[string]stored
	chunks  map[events.Digest][]byte // of all large bodies
	lacking map[events.Digest]bool   // those that the bucket does not have now
	backup  *backup
	history int    // counts what the stream is not the one any more that it was
	vouched bool   // it has scanned the source
	reigns  bool   // a publisher holds the newest lease and knows the stream
	reading func() // what happens in the midst of the next snapshot

	log    []stored              // everything ever stored, in any stream
	at     map[events.Path][]int // places in log, of each path
	unseal bool                  // what the stream lacks proves nothing: it was put back to an older state
}

// stored is a message.
type stored struct {
	stream.Delivery
	entry events.Entry // of a lease none
	place int          // in the log
}

type backup struct {
	created    time.Time
	seq, lease uint64
	live       map[string]stored
}

func newSite(t *rapid.T, root string, codec *events.Codec) *site {
	s := &site{
		t: t, root: root, codec: codec, chunks: map[events.Digest][]byte{}, lacking: map[events.Digest]bool{},
		at: map[events.Path][]int{},
	}
	s.wipe()
	return s
}

// wipe is a new stream in place of the one that was.
func (s *site) wipe() {
	s.seq, s.lease, s.reigns = 0, 0, false
	s.live, s.created = map[string]stored{}, s.now()
	s.history++
}

// restore puts the stream back to what it was when it was last called.
func (s *site) restore() {
	if b := s.backup; b != nil {
		s.created, s.seq, s.lease, s.live = b.created, b.seq, b.lease, b.live
		s.reigns, s.unseal = false, true
		s.history++
	}
	s.backup = &backup{s.created, s.seq, s.lease, maps.Clone(s.live)}
}

func (s *site) now() time.Time {
	s.tick++
	return time.Now().Add(-time.Hour).Truncate(time.Hour).Add(time.Duration(s.tick) * time.Millisecond).UTC()
}

func (s *site) store(subject, header string, payload []byte, e events.Entry) {
	s.seq++
	m := stored{stream.Delivery{Seq: s.seq, Time: s.now(), Subject: subject, Header: header, Payload: payload}, e, len(s.log)}
	s.live[subject] = m
	if e.Kind != 0 {
		s.at[e.Path] = append(s.at[e.Path], len(s.log))
	}
	s.log = append(s.log, m)
}

// publish is a round: what differs from the stream is sent, in order, but no more
// than limit messages. Files for which large holds travel in chunks. A round that
// was not cut short seals the stream.
func (s *site) publish(limit int, large func() bool) {
	if !s.reigns {
		s.store(siteName.LeaseSubject(), "", []byte("{}"), events.Entry{})
		s.lease, s.reigns, s.vouched = s.seq, true, false
	}
	var items []publisher.Item
	o := publisher.Options{Site: siteName, Root: s.root, NumericIDs: true, Specials: true, Log: slog.New(slog.DiscardHandler)}
	must(s.t, publisher.Scan(s.t.Context(), s, o, func(i publisher.Item) { items = append(items, i) }))
	moved := map[events.Digest]events.Path{}
	for _, i := range items {
		if i.Wanted == nil && i.Was.Kind == events.File && i.Was.Size > 0 {
			moved[i.Was.Digest] = i.Path
		}
	}
	for _, i := range items {
		if limit--; limit < 0 {
			s.reigns = false // it was killed
			return
		}
		e := events.Entry{Path: i.Path, Kind: events.Tombstone}
		var payload []byte
		if i.Wanted != nil {
			e = *i.Wanted
			if from, ok := moved[e.Digest]; ok && i.Was == nil && e.Kind == events.File && e.Size > 0 {
				e.From = &from
			}
			payload = s.body(&e, large)
		}
		s.send(e, payload)
	}
	root := s.live[siteName.Subject(events.Path{})].entry
	if !root.Whole || !s.vouched {
		root.Whole, s.vouched = true, true
		s.send(root, nil)
	}
	s.unseal = false
}

func (s *site) send(e events.Entry, payload []byte) {
	e.Epoch = s.lease
	header, err := e.MarshalHeader()
	must(s.t, err)
	s.store(siteName.Subject(e.Path), header, payload, e)
}

// body is the payload of e, which says how it travels.
func (s *site) body(e *events.Entry, large func() bool) []byte {
	if e.Kind != events.File || e.Size == 0 {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(s.root, e.Path.String()))
	must(s.t, err)
	if !large() {
		return s.codec.Compress(data)
	}
	e.Body, e.Average = events.ChunksBody, 512<<10
	var list events.ChunkList
	for piece := range slices.Chunk(data, 4) {
		c := events.Chunk{Size: int64(len(piece)), Digest: events.Sum(piece)}
		s.chunks[c.Digest] = piece
		list = append(list, c)
	}
	return s.codec.PackList(list).Payload
}

// sealed reports whether the stream says that it is whole.
func (s *site) sealed() bool { return s.live[siteName.Subject(events.Path{})].entry.Whole }

// next are the messages after seq that live, in order.
func (s *site) next(after uint64) []stream.Delivery {
	var next []stream.Delivery
	for _, m := range s.live {
		if m.Seq > after {
			next = append(next, m.Delivery)
		}
	}
	slices.SortFunc(next, func(a, b stream.Delivery) int { return int(a.Seq) - int(b.Seq) })
	return next
}

// bySeq returns a message that lives.
func (s *site) bySeq(seq uint64) (stored, bool) {
	for _, m := range s.live {
		if m.Seq == seq {
			return m, true
		}
	}
	return stored{}, false
}

func (s *site) StreamInfo(context.Context, events.Site) (stream.Info, error) {
	info := stream.Info{Created: s.created, LastSeq: s.seq, Msgs: uint64(len(s.live)), Replicas: 1}
	for _, m := range s.live {
		if m.Time.After(info.LastTime) {
			info.LastTime = m.Time
		}
	}
	return info, nil
}

func (s *site) LeaseSeq(context.Context, events.Site) (uint64, error) { return s.lease, nil }

func (s *site) Entry(_ context.Context, _ events.Site, p events.Path) (*stream.Delivery, error) {
	if m, ok := s.live[siteName.Subject(p)]; ok {
		return &m.Delivery, nil
	}
	return nil, nil
}

func (s *site) MayHave(_ context.Context, _ events.Site, p events.Path) (bool, error) {
	_, has := s.live[siteName.Subject(p)]
	return has, nil
}

func (s *site) FirstAfter(_ context.Context, _ events.Site, t time.Time) (uint64, error) {
	for _, d := range s.next(0) {
		if d.Time.After(t) {
			return d.Seq, nil
		}
	}
	return 0, nil
}

func (s *site) Snapshot(ctx context.Context, _ events.Site, fn func(seq uint64, subject, header string) error) (stream.Info, error) {
	info, err := s.StreamInfo(ctx, siteName)
	must(s.t, err)
	for after, n := uint64(0), 0; ; n++ {
		if n == 3 && s.reading != nil {
			reading := s.reading
			s.reading = nil
			reading()
		}
		next := s.next(after)
		if len(next) == 0 {
			return info, nil
		}
		d := next[0]
		after = d.Seq
		if siteName.IsFile(d.Subject) {
			if err := fn(d.Seq, d.Subject, d.Header); err != nil {
				return info, err
			}
		}
	}
}

func (s *site) Fetch(_ context.Context, _ events.Site, wanted []stream.Wanted, fn func(stream.Delivery) error) error {
	for _, d := range s.next(0) {
		if slices.ContainsFunc(wanted, func(w stream.Wanted) bool { return w.Seq == d.Seq }) {
			if err := fn(d); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *site) Get(_ context.Context, digests []events.Digest, fn func(int, []byte, bool) error) error {
	missing := &stream.MissingError{}
	for i, d := range digests {
		if s.lacking[d] {
			missing.Digests = append(missing.Digests, d)
		} else if err := fn(i, slices.Clone(s.chunks[d]), false); err != nil {
			return err
		}
	}
	if len(missing.Digests) > 0 {
		return missing
	}
	return nil
}

func (s *site) Want(context.Context, string, events.Path, []events.Digest) error { return nil }

var sourceNames = []string{"a", "b", "a/a", "a/b", "b/a", "a/a/a", "a/x.html", "b/\xff", "c"}

// change does one random operation in a tree. One that is impossible is none.
func change(t *rapid.T, root string, tick int64) {
	name := rapid.SampledFrom(sourceNames)
	at := filepath.Join(root, name.Draw(t, "path"))
	other := filepath.Join(root, name.Draw(t, "other"))
	stamp := func(p string) {
		times := []unix.Timespec{{Sec: tick}, {Sec: tick}}
		_ = unix.UtimesNanoAt(unix.AT_FDCWD, p, times, unix.AT_SYMLINK_NOFOLLOW) // if it is there
	}
	switch op := rapid.SampledFrom([]string{"write", "write", "append", "mkdir", "symlink", "remove", "remove", "replace", "rename", "rename", "swap", "chmod"}).Draw(t, "op"); op {
	case "write", "append":
		how := os.O_CREATE | os.O_WRONLY | os.O_TRUNC
		if op == "append" {
			how = os.O_CREATE | os.O_WRONLY | os.O_APPEND
		}
		if st, err := os.Lstat(at); err == nil && !st.Mode().IsRegular() {
			return
		}
		if f, err := os.OpenFile(at, how, 0o644); err == nil {
			_, err = fmt.Fprintf(f, "body %d", rapid.IntRange(0, 3).Draw(t, "body"))
			must(t, errors.Join(err, f.Close()))
			stamp(at)
		}
	case "mkdir":
		_ = os.Mkdir(at, 0o755)
	case "symlink":
		if os.Symlink("a", at) == nil {
			stamp(at)
		}
	case "remove":
		_ = os.RemoveAll(at)
	case "replace": // by another kind
		if st, err := os.Lstat(at); err == nil {
			must(t, os.RemoveAll(at))
			if st.IsDir() {
				must(t, os.WriteFile(at, []byte("was a directory"), 0o600))
				stamp(at)
			} else {
				must(t, os.Mkdir(at, 0o700))
				must(t, os.WriteFile(filepath.Join(at, "a"), []byte("in it"), 0o600))
				stamp(filepath.Join(at, "a"))
			}
		}
	case "rename":
		_ = os.Rename(at, other)
	case "swap":
		_ = unix.Renameat2(unix.AT_FDCWD, at, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)
	case "chmod":
		if st, err := os.Lstat(at); err == nil && st.Mode()&os.ModeSymlink == 0 {
			must(t, os.Chmod(at, os.FileMode(rapid.SampledFrom([]int{0o700, 0o711, 0o755}).Draw(t, "mode"))))
		}
	}
}

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
