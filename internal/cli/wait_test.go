package cli

import (
	"testing"
	"time"

	"treecast/internal/stream"
	"treecast/internal/subscriber"
)

// TestWhoHasIt: a node that is ahead of a stream that went back does not have what
// came under the same numbers since.
func TestWhoHasIt(t *testing.T) {
	made := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	stored := made.Add(time.Hour)
	source := stream.BarrierState{Stream: made, Epoch: 90, Seq: 100}
	for name, c := range map[string]struct {
		s    subscriber.Status
		want bool
	}{
		"at it":             {subscriber.Status{Stream: made, Epoch: 90, Seq: 100, Known: stored}, true},
		"past it":           {subscriber.Status{Stream: made, Epoch: 95, Seq: 130, Known: stored.Add(1)}, true},
		"behind it":         {subscriber.Status{Stream: made, Epoch: 90, Seq: 99, Known: stored.Add(1)}, false},
		"another stream":    {subscriber.Status{Stream: made.Add(1), Epoch: 90, Seq: 100, Known: stored}, false},
		"an older lease":    {subscriber.Status{Stream: made, Epoch: 80, Seq: 100, Known: stored}, false},
		"ahead, same lease": {subscriber.Status{Stream: made, Epoch: 90, Seq: 130, Known: stored.Add(-1)}, false},
	} {
		if got := has(&c.s, &source, stored); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
