package apply

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"treecast/internal/events"
)

// A Fetcher has the chunks that a node does not have.
type Fetcher interface {
	// Fetch calls got with the bytes of each of chunks, as many as the chunk
	// has, in any order, from several goroutines if it likes. body is the
	// caller's again when got returns. [events.ErrDigest] of got says that they
	// are not the chunk's; another error of got ends Fetch and is returned. What
	// it cannot get is an error after all others were got.
	Fetch(ctx context.Context, chunks []events.Chunk, got func(c events.Chunk, body []byte) error) error
}

// StageChunks is [Tree.Stage] for a file whose body is in chunks: it is put
// together beside the tree from what is here already (the path's old bytes,
// those of e.From, what an earlier try left), and the rest from fetch. Every
// byte is checked against e.Digest. The temp is durable on return, so that a
// group that it is committed with need not wait for so much.
//
// It may take long: as long as the body. What it was at, when an error or the
// end of ctx stops it, is kept for a day, and the next call for that path goes
// on from there; but not after ENOSPC, when the space is given back. Calls for
// one path must not overlap; calls for others may, and so may a Commit.
//
// Errors are those of [Tree.Stage], and fetch's own. [events.ErrDigest] says
// that the list does not lead to the digest: permanent.
func (t *Tree) StageChunks(ctx context.Context, e *events.Entry, list events.ChunkList, fetch Fetcher) (*Staged, error) {
	s := &Staged{t: t, e: e, list: list}
	err := t.stageable(ctx, e)
	if err == nil {
		err = checkList(e, list)
	}
	if err == nil {
		err = s.stageChunks(ctx, fetch)
	}
	if err != nil {
		return nil, step("stage", e.Path, err)
	}
	return s, nil
}

func checkList(e *events.Entry, list events.ChunkList) error {
	size := int64(0)
	for _, c := range list {
		size += c.Size
	}
	if e.Kind != events.File || size != e.Size || size == 0 {
		return fmt.Errorf("%w: %d bytes for a %s of %d", events.ErrChunks, size, e.Kind, e.Size)
	}
	return nil
}

func (s *Staged) stageChunks(ctx context.Context, fetch Fetcher) error {
	t, e := s.t, s.e
	st, err := t.root.lstat(e.Path.String())
	switch {
	case err == nil && t.shows(st, e) && t.holds(e.Path, st, e):
		s.right, s.seen = true, st
		if f, ok := t.known.get(st); ok {
			s.trail = f.trail
		}
		return nil
	case err != nil && !absent(err) && !errors.Is(err, syscall.EACCES):
		return err
	}
	if e.From != nil {
		linked, err := s.link(*e.From)
		if linked || err != nil {
			return err
		}
	}
	return s.build(ctx, fetch)
}

// link makes the temp a second name of the file at from, if that is all that e
// wants: a rename at the source then costs no copy here. The old name goes with
// its tombstone. We never write to a file in place, so that two names do no
// harm meanwhile.
func (s *Staged) link(from events.Path) (bool, error) {
	t, e := s.t, s.e
	st, err := t.root.lstat(from.String())
	if err != nil || !t.shows(st, e) || !t.holds(from, st, e) {
		return false, nil
	}
	parent := t.root
	if !from.Parent().IsRoot() {
		if parent, err = t.root.openDir(from.Parent().String()); err != nil {
			return false, nil
		}
		defer parent.close()
	}
	tmp := &temp{name: t.tempName(), kind: events.File}
	if err := parent.link(from.Base(), t.tmp, tmp.name); err != nil {
		t.log.Debug("not linked, will be copied", "path", quote(e.Path), "err", err)
		return false, nil
	}
	now, err := t.tmp.lstat(tmp.name)
	was := st
	was.ctime = now.ctime
	if err == nil && !now.same(was) {
		err = errGone
	}
	if err == nil {
		// Whoever wrote it may not have made it durable.
		if tmp.file, err = t.tmp.openFile(tmp.name); err == nil {
			t.open.Add(1)
			err = tmp.file.sync()
			t.closeFile(tmp)
		}
	}
	if err != nil {
		t.dropTemp(tmp)
		return false, err
	}
	tmp.synced = true
	if f, ok := t.known.get(st); ok {
		f.st, f.path = now, e.Path
		t.known.put(f)
		s.trail = f.trail
	}
	s.temp = tmp
	return true, nil
}

// learn remembers what the path has now, after s was renamed to it.
func (g *group) learn(s *Staged, ino uint64) {
	if s.list == nil {
		return
	}
	t, e := g.t, s.e
	st, err := t.root.lstat(e.Path.String())
	if err == nil && st.ino == ino && t.shows(st, e) {
		t.known.put(knownFile{st: st, path: e.Path, digest: e.Digest, list: s.list, trail: s.trail})
	}
}
