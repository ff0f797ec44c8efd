package publisher

import (
	"context"
	"errors"
	"strconv"

	"treecast/internal/events"
	"treecast/internal/source"
	"treecast/internal/stream"
)

// An Item is one path that a run would publish. Was is nil if it is not
// published yet; Wanted is nil if it would be deleted.
type Item struct {
	Path        events.Path
	Was, Wanted *events.Entry
}

// Scan tells what a run would publish, in a run's order, and changes nothing:
// it takes no lease and writes no message. Skipped paths are logged as a run
// would. An error says why the answer is not whole; [ErrMassDelete] comes after
// all items, and says that a run would halt.
func Scan(ctx context.Context, from snapshots, o Options, item func(Item)) error {
	p, err := open(nil, &o)
	if err != nil {
		return err
	}
	x := newIndex()
	err = p.scan(ctx, from, x, item)
	if cerr := p.close(); err == nil {
		err = cerr
	}
	return err
}

func (p *Publisher) scan(ctx context.Context, from snapshots, x *index, item func(Item)) error {
	if _, err := p.read(ctx, from, x); err != nil && !errors.Is(err, stream.ErrNoStream) {
		return err
	}
	pl, err := p.examine(ctx, x, []task{{deep: true}}, nil)
	if err != nil {
		return err
	}
	for _, c := range pl.changes {
		e := c.meta.Entry
		if e.Kind == events.File {
			m, err := p.digest(ctx, e, x.Get(e.Path))
			if err != nil {
				p.report.Failed("read", e.Path.String(), err, unpublished)
				continue
			}
			e = m.Entry
		}
		r := x.Get(e.Path)
		e.Whole = r != nil && r.whole // a scan does not seal
		if !x.Same(r, &e) {
			item(Item{Path: e.Path, Was: x.entry(e.Path, r), Wanted: &e})
		}
	}
	for _, path := range pl.tombstones {
		item(Item{Path: path, Was: x.entry(path, x.Get(path))})
	}
	return pl.check(x.Files(), massDeleteFloor)
}

// digest reads a file for its digest alone.
func (p *Publisher) digest(ctx context.Context, e events.Entry, r *record) (source.Meta, error) {
	if e.Size <= events.MaxInlineBytes {
		m, _, err := p.src.Read(e.Path, nil)
		return m, err
	}
	m, _, err := p.src.Chunk(ctx, e.Path, r.averageFor(e.Size), source.Body{}, func(context.Context, source.Piece) error { return nil })
	return m, err
}

// entry is the inverse of record, as far as it goes.
func (x *index) entry(p events.Path, r *record) *events.Entry {
	if r == nil {
		return nil
	}
	return &events.Entry{
		Path: p, Kind: r.kind, Mode: r.mode, UID: r.uid, GID: r.gid, Owner: x.list[r.owner], Group: x.list[r.group],
		Mtime: r.mtime, Ctime: r.ctime, Size: r.size, Digest: r.digest, Target: r.target,
	}
}

// String is a line as of `rsync -i`, with the path quoted.
func (i Item) String() string {
	return events.Itemize(i.Was, i.Wanted) + " " + strconv.Quote(i.Path.String())
}
