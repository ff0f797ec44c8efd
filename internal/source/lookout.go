package source

import (
	"context"

	"treecast/internal/events"
)

// A lookout reads and hashes the chunks of a section that come next if the guess
// is right, several at once: where nothing has changed, that is all the work.
type lookout struct {
	r     *reading
	s     section // from where it goes on
	looks []*look
}

// A look is one guess.
type look struct {
	f     *flight
	guess events.Chunk
	err   error
	done  chan struct{} // closed when f and err are set
}

// ahead begins with what is guessed to come next. There is one look, or room for
// one piece, at least when it returns.
func (l *lookout) ahead(ctx context.Context) error {
	// The reader has one more; the last room is for those that are on their way.
	most := min(putters, cap(l.r.slots)-2)
	for len(l.looks) < most {
		c, ok := l.r.guess.next(l.s.end - l.s.at)
		if !ok {
			break
		}
		if err := l.r.room(ctx); err != nil {
			return err
		}
		k := &look{f: &flight{buf: l.r.buffer(), size: c.Size}, guess: c, done: make(chan struct{})}
		l.looks = append(l.looks, k)
		s := l.s
		l.s.at += c.Size
		go func() {
			defer close(k.done)
			if k.err = s.look(k.f.body()); k.err == nil {
				k.f.sum = events.Sum(k.f.body())
			}
		}()
	}
	if len(l.looks) == 0 {
		return l.r.room(ctx)
	}
	return nil
}

// next returns the next piece if it was guessed right; else a piece that is to be
// filled, and forgets the other guesses.
func (l *lookout) next() (f *flight, known bool, err error) {
	if len(l.looks) == 0 {
		return &flight{buf: l.r.buffer()}, false, nil
	}
	k := l.looks[0]
	<-k.done
	if k.err == nil && k.f.sum == k.guess.Digest {
		l.looks = l.looks[1:]
		return k.f, true, nil
	}
	l.looks = l.looks[1:]
	l.stop()
	l.r.guess.missed()
	return k.f, false, k.err
}

// stop waits for the looks that nobody wants any more.
func (l *lookout) stop() {
	for _, k := range l.looks {
		<-k.done
		l.r.free(k.f)
	}
	l.looks = nil
}
