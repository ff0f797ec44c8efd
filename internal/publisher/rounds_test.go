package publisher

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"treecast/internal/events"
	"treecast/internal/source"
	"treecast/internal/stream"
)

// A ledger is a stream in memory: of each path the newest entry, nothing older.
type ledger struct {
	seq    uint64
	live   map[events.Path]events.Entry
	fates  []fate             // of the next messages; then all are stored
	begins func()             // before each publish
	stores func(events.Entry) // before each message is stored
	mute   []error            // what asking for the stream gives first
}

// A fate is what becomes of a message.
type fate int

const (
	stored        fate = iota
	refused            // not stored, and said so
	unknownStored      // without an answer, and stored
	unknownLost        // without an answer, and not stored
	killed             // not stored, and no one is there any more for an answer
)

func (l *ledger) Reconnects() uint64 { return 0 }

func (l *ledger) Server() string { return "" }

func (l *ledger) StreamInfo(context.Context, events.Site) (stream.Info, error) {
	if len(l.mute) > 0 {
		err := l.mute[0]
		l.mute = l.mute[1:]
		return stream.Info{}, err
	}
	return stream.Info{LastSeq: l.seq, Msgs: uint64(len(l.live))}, nil
}

// A pen is a session's lease on a ledger.
type pen struct {
	*stream.Lease // nil: rounds use no more than the methods here
	*ledger
	epoch uint64
	dead  bool
}

func (p *pen) Epoch() uint64                         { return p.epoch }
func (p *pen) LastSeq() uint64                       { return p.seq }
func (p *pen) SetRoot(context.Context, string) error { return nil }
func (p *pen) Settle(context.Context) error          { return nil }

func (p *pen) Publish(_ context.Context, messages []stream.Message) []error {
	errs := make([]error, len(messages))
	p.begins()
	for i, m := range messages {
		of := stored
		if len(p.fates) > 0 {
			of, p.fates = p.fates[0], p.fates[1:]
		}
		if p.dead = p.dead || of == killed; p.dead {
			errs[i] = stream.ErrDisconnected
			continue
		}
		switch of {
		case refused:
			errs[i] = stream.ErrFull
			continue
		case unknownStored, unknownLost:
			errs[i] = stream.ErrUnknown
		}
		if of == unknownLost {
			continue
		}
		e, err := events.Decode("web", m.Subject, m.Header)
		if err != nil {
			panic(err)
		}
		p.stores(e)
		p.seq++
		p.live[e.Path] = e
	}
	return errs
}

// A scribe is one publisher after the other: rounds over a world, into a ledger.
type scribe struct {
	t       *rapid.T
	w       *world
	l       *ledger
	s       *session
	codec   *events.Codec
	part    int                    // the publisher's
	started map[events.Path]thing  // the world when the round began
	began   map[events.Path]thing  // when the publish did
	inodes  map[events.Path]uint64 // of the files that are published
	later   []worldOp              // done when the next message is stored
	broken  string                 // the first promise that was broken in a round,
	by      events.Path            // and by what
}

func (r *scribe) session() {
	log := slog.New(slog.DiscardHandler)
	p := &Publisher{
		Options: Options{Site: "web", Log: log}, src: r.w, codec: r.codec,
		dirty: newDirtySet(0), report: newReport(log), floor: massDeleteFloor, part: r.part,
	}
	r.l.seq++
	r.s = &session{
		Publisher: p, lease: &pen{ledger: r.l, epoch: r.l.seq}, stream: r.l, index: newIndex(), unsent: map[events.Path]shape{},
	}
	r.s.collection = newCollection(r.s, nil)
	for _, e := range r.l.live {
		r.s.index.Put(&e)
	}
	r.w.tasks()
	r.s.dirty.Hint([]source.Hint{{Deep: true}})
}

// hint is what a watcher does.
func (r *scribe) hint() {
	for _, t := range r.w.tasks() {
		r.s.dirty.Hint([]source.Hint{{Path: t.path, Deep: t.deep}})
	}
}

// round does one with all that is dirty, and begins another life if this one
// ended in it.
func (r *scribe) round() {
	tasks, _ := r.s.dirty.Take(time.Now().Add(time.Hour))
	r.started = maps.Clone(r.w.things)
	err := r.s.round(r.t.Context(), tasks)
	if r.s.lease.(*pen).dead {
		r.session()
	} else if err != nil {
		r.t.Fatal(err)
	}
	if r.broken != "" {
		r.t.Logf("%q", r.by)
		r.t.Fatal(r.broken)
	}
	r.hint()
}

// breaks notes what a round did: it has goroutines, which must not end the test.
func (r *scribe) breaks(promise string, by events.Path) {
	if r.broken == "" {
		r.broken, r.by = promise, by
	}
}

// stores checks an entry that comes into the stream.
func (r *scribe) stores(e events.Entry) {
	switch {
	case e.Path.IsRoot() && !r.s.scanned:
		r.breaks("the root's entry comes before all was looked at: nodes that wait for it would believe the stream", e.Path)
	case e.Kind == events.Tombstone:
		if _, ok := r.began[e.Path]; ok {
			r.breaks("a path is deleted, but stands there", e.Path)
		}
		r.keepsBytes(e.Path)
		delete(r.inodes, e.Path)
	case e.Path.IsRoot() && e.Whole && !r.l.live[e.Path].Whole:
		for p := range r.began {
			live, ok := r.l.live[p]
			if _, knew := r.started[p]; knew && !p.IsRoot() && (!ok || live.Kind == events.Tombstone) {
				r.breaks("the stream is sealed, and lacks an entry", p)
			}
		}
	case e.Kind == events.File:
		r.inodes[e.Path] = r.began[e.Path].ino
	}
	r.w.do(r.later)
	r.later = nil
}

// keepsBytes checks that a file whose old name is deleted has its new one in the
// stream, if it could be seen there.
func (r *scribe) keepsBytes(old events.Path) {
	if len(r.w.blind)+len(r.w.closed) > 0 || r.l.live[old].Kind != events.File {
		return
	}
	for p, e := range r.l.live {
		if p != old && e.Digest == r.l.live[old].Digest {
			return
		}
	}
	for p, at := range r.started {
		now, named := r.began[p], r.l.live[p]
		isNew := named.Kind == 0 || named.Kind == events.Tombstone
		if isNew && at.ino == r.inodes[old] && at == now && events.Sum([]byte(at.body)) == r.l.live[old].Digest {
			r.breaks("a name is deleted, and its new one not published yet", p)
		}
	}
}

// TestRoundsKeepTheStream: whatever changes, fails, is refused, remains without
// an answer or is killed, no tombstone is of what stands there (P4), the stream
// is called whole only if it is, no renamed file is gone under both names, and
// when all is quiet the stream is what the source is (P3).
func TestRoundsKeepTheStream(t *testing.T) {
	codec, err := events.NewCodec(1)
	if err != nil {
		t.Fatal(err)
	}
	defer codec.Close()
	rapid.Check(t, func(t *rapid.T) {
		keep, err := events.ParsePath("keep") // that the root is not empty
		if err != nil {
			t.Fatal(err)
		}
		r := &scribe{
			t: t, codec: codec, inodes: map[events.Path]uint64{}, part: rapid.SampledFrom([]int{1, 3, partEntries}).Draw(t, "part"),
			w: newWorld([]worldOp{{name: "file", a: keep}}), l: &ledger{live: map[events.Path]events.Entry{}},
		}
		r.l.begins = func() { r.began = maps.Clone(r.w.things) }
		r.l.stores = r.stores
		r.session()
		fates := rapid.SliceOfN(rapid.SampledFrom([]fate{stored, stored, stored, refused, unknownStored, unknownLost, killed}), 0, 8)
		t.Repeat(map[string]func(*rapid.T){
			"change": func(t *rapid.T) { r.w.do(someOps(t, 6)); r.hint() },
			"scan":   func(*rapid.T) { r.s.dirty.Hint([]source.Hint{{Deep: true}}) },
			"break":  func(t *rapid.T) { r.w.breakSome(t) },
			"break the root's listing": func(*rapid.T) {
				r.w.closed[events.Path{}] = &source.PathError{Step: "list", Err: syscall.EIO}
			},
			"mend":  func(*rapid.T) { r.w.mend() },
			"round": func(*rapid.T) { r.round() },
			"hard round": func(t *rapid.T) {
				r.l.fates, r.later = fates.Draw(t, "fates"), someOps(t, 3)
				r.round()
				r.l.fates, r.later = nil, nil
			},
			"kill": func(*rapid.T) { r.session() },
		})
		r.w.mend()
		r.s.dirty.Hint([]source.Hint{{Deep: true}})
		for rounds := 0; r.s.dirty.Len() > 0; rounds++ {
			if rounds == 50 {
				t.Fatal("no end")
			}
			r.round()
		}
		node := replica{}
		for _, p := range slices.SortedFunc(maps.Keys(r.l.live), events.Path.Compare) {
			if e := r.l.live[p]; e.Kind != events.Tombstone {
				node[p] = plain(e)
			}
		}
		if text := node.differs(r.w.replica()); text != "" {
			t.Log(text)
			t.Fatal("the stream is not what the source is")
		}
		root := r.l.live[events.Path{}]
		if !root.Whole {
			t.Fatal("all is published, and the stream is not sealed")
		}
		if root.Epoch != r.s.lease.Epoch() {
			t.Fatal("the root's entry is of an older reign: nodes that are ahead of the stream wait for ever")
		}
	})
}

// A broker that says nothing has lost nothing: the index need not be read anew.
func TestSilenceProvesNothing(t *testing.T) {
	l := &ledger{seq: 7, mute: []error{stream.ErrUnavailable, stream.ErrServer, stream.ErrDisconnected}}
	s := &session{
		Publisher: &Publisher{Options: Options{Log: slog.New(slog.DiscardHandler)}},
		lease:     &pen{ledger: l}, stream: l, index: newIndex(),
	}
	if err := s.checkStream(t.Context()); err != nil || len(l.mute) > 0 {
		t.Errorf("%v, %d answers left", err, len(l.mute))
	}
	l.mute = []error{stream.ErrNoStream}
	if err := s.checkStream(t.Context()); !errors.Is(err, errAgain) {
		t.Error(err)
	}
}
