package subscriber

import (
	"context"
	"time"
)

// How often it is looked whether another subscriber has our name, and how often
// there must be none when there was one: its connection may only be broken.
const (
	twinInterval = 500 * time.Millisecond
	twinGone     = 5
)

// alone returns when no other subscriber asks for the messages of this node's
// consumer: two would each get a part of them. One that was killed asks until
// the broker has noticed, a minute at most.
func (s *subscriber) alone(ctx context.Context) error {
	for free, told := 0, false; ; {
		n, err := s.conn.Node(ctx, s.Site, s.Node)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !told: // no stream, or no consumer yet
			return nil
		case err == nil && n.Waiting:
			free = 0
			if !told {
				told = true
				s.Log.Warn("another subscriber is at work under this node's name, waiting until it has ended; "+
					"if this is a copy of another host, give it a --node of its own", "site", s.Site, "node", s.Node)
			}
		case err == nil:
			if free++; !told || free >= twinGone {
				return nil
			}
		}
		if err := pause(ctx, twinInterval); err != nil {
			return err
		}
	}
}
