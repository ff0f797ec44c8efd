package subscriber

import (
	"context"
	"testing"

	"treecast/internal/events"
	"treecast/internal/stream"
)

// A stream whose lease is written anew while the first snapshot is read.
type renewed struct {
	Stream
	lease, last uint64
	snapshots   int
}

func (r *renewed) LeaseSeq(context.Context, events.Site) (uint64, error) { return r.lease, nil }

func (r *renewed) Snapshot(context.Context, events.Site, func(seq uint64, subject, header string) error) (stream.Info, error) {
	if r.snapshots++; r.snapshots == 1 {
		r.last++
		r.lease = r.last
	}
	return stream.Info{LastSeq: r.last}, nil
}

// TestLeaseIsOfTheSnapshot: a lease that is older than the snapshot's end and not
// known with it would be taken for a stream that went back.
func TestLeaseIsOfTheSnapshot(t *testing.T) {
	s := &subscriber{stream: &renewed{lease: 1, last: 1}}
	v, err := s.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if v.lease != 2 || v.info.LastSeq != 2 {
		t.Errorf("lease %d, the snapshot ends at %d", v.lease, v.info.LastSeq)
	}
}
