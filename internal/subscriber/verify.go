package subscriber

import (
	"context"

	"treecast/internal/apply"
	"treecast/internal/stream"
)

// A Verdict says how a tree differs from the stream.
type Verdict struct {
	Paths       int    // that the stream has
	Differences int    // before a repair
	Left        int    // after it
	Protected   int    // foreign paths that stay, by --protect or --foreign keep: no difference
	LastSeq     uint64 // of the snapshot
	Seq         uint64 // of the node's watermark: less means that entries are on the way
	Unsealed    bool   // the publisher's first scan is not finished: foreign paths are not known
}

// Verify compares the tree with the stream and tells item of each difference.
// checksum reads every byte, otherwise size and mtime are believed. It changes
// nothing, unless repair is set: then no subscriber may be running on the
// tree, and it is made equal afterwards. An error means that it could not
// tell, or not repair.
func Verify(ctx context.Context, conn *stream.Conn, o Options, checksum, repair bool, item func(apply.Difference)) (v Verdict, err error) {
	openTree := apply.OpenReadOnly
	if repair {
		openTree = apply.Open
	}
	s, err := open(conn, o, openTree)
	if err != nil {
		return v, err
	}
	defer func() {
		if cerr := s.close(); err == nil {
			err = cerr
		}
	}()
	found, err := s.look(ctx, checksum, item)
	if err != nil {
		return v, err
	}
	mark, ok := s.tree.Watermark()
	v = Verdict{
		Paths: found.live, Differences: len(found.differs) + len(found.foreign), Protected: len(found.kept),
		LastSeq: found.info.LastSeq, Seq: mark.Seq, Unsealed: !found.sealed,
	}
	if !repair {
		return v, found.blind
	}
	if ok {
		_, newer, err := s.history(ctx, mark)
		if err == nil {
			err = s.believable(ctx, mark, found.info, found.lease, newer)
		}
		if err != nil {
			return v, err
		}
	}
	f := newFollower(s, mark)
	if ok && moved(mark, found.info, found.lease, 0) == "" {
		f.had = mark.Seq
	}
	if err = f.reconcile(ctx, "an operator asked for it", checksum); err == nil {
		err = f.finish(ctx)
	}
	if err == nil {
		if found, err = s.look(ctx, checksum, nil); err == nil {
			v.Left = len(found.differs) + len(found.foreign)
			err = found.blind
		}
	}
	return v, err
}
