package subscriber

import (
	"fmt"
	"strconv"
	"time"

	"treecast/internal/apply"
)

// park records durably that an entry is refused for good; then it may be
// acked. The path keeps what it had.
func (s *subscriber) park(it *item) error {
	d := &it.delivery
	path := ""
	if it.entry.Kind != 0 {
		path = it.entry.Path.String()
	}
	s.Log.Error("parked: refused for good, the path keeps what it had; a newer entry of it goes on",
		"seq", d.Seq, "path", strconv.Quote(path), "subject", strconv.Quote(d.Subject), "err", it.err)
	p := apply.Parked{Seq: d.Seq, Subject: d.Subject, Path: path, Reason: it.err.Error(), Time: time.Now().UTC()}
	if err := s.tree.Park(p); err != nil {
		return fmt.Errorf("park: %w", err)
	}
	return nil
}
