package publisher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"treecast/internal/stream"
)

// sameStream returns errAgain if, after a reconnect, the stream is not the one
// that the index was read from, or lost what was acked.
func (s *session) sameStream(ctx context.Context) error {
	if s.stream.Reconnects() == s.reconnects {
		return nil
	}
	return s.checkStream(ctx)
}

// checkStream returns errAgain if the stream is not the one that the index was
// read from, or lost something. It waits for a broker that does not answer: that
// proves nothing.
func (s *session) checkStream(ctx context.Context) error {
	reconnects, server := s.stream.Reconnects(), s.stream.Server()
	info, err := s.stream.StreamInfo(ctx, s.Site)
	for told := false; unanswered(err); {
		if !told && !errors.Is(err, stream.ErrDisconnected) {
			told = true
			s.Log.Warn("no answer about the stream, will ask again", "err", err)
		}
		if err := pause(ctx, askAgain); err != nil {
			return err
		}
		reconnects, server = s.stream.Reconnects(), s.stream.Server()
		info, err = s.stream.StreamInfo(ctx, s.Site)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, stream.ErrNoStream):
		return fmt.Errorf("%w: it is gone", errAgain)
	case err != nil:
		return fmt.Errorf("%w: %w", errAgain, err)
	case !info.Created.Equal(s.created):
		return fmt.Errorf("%w: it was made anew", errAgain)
	case info.LastSeq < s.lease.LastSeq():
		return fmt.Errorf("%w: it went back from %d to %d", errAgain, s.lease.LastSeq(), info.LastSeq)
	case info.Msgs < uint64(s.index.Certain()): //nolint:gosec // a count
		return fmt.Errorf("%w: it has %d messages, %d paths were published", errAgain, info.Msgs, s.index.Len())
	}
	if s.reconnects = reconnects; s.server != server {
		s.server = server
		signal(s.audit.suspect)
	}
	return nil
}

// unanswered reports whether err says nothing of the stream: a server that stops,
// or has just started, may answer that it has no JetStream.
func unanswered(err error) bool {
	return errors.Is(err, stream.ErrDisconnected) || errors.Is(err, stream.ErrUnavailable) || errors.Is(err, stream.ErrServer)
}

// askAgain is between two questions that nobody answered.
const askAgain = 250 * time.Millisecond
