package transfer

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"
)

// Options say what is written, and where.
type Options struct {
	File   string
	Format Format
	Site   string           // %m
	Host   string           // %h
	Hangup <-chan os.Signal // the file is looked at when it gives one; nil: never
	Log    *slog.Logger     // is told of trouble, once each time
}

const (
	gatherPause = 100 * time.Millisecond // a line waits for others
	retryPause  = time.Second            // between two attempts at a file that cannot be written
	closePause  = 2 * time.Second        // the longest that an end waits for the disk
	maxWaiting  = 4 << 20                // bytes of lines; as many again may be with the writer
)

// A Log is a transfer log. A nil Log is one that nobody wants: its methods do
// nothing.
type Log struct {
	Options
	pid  int
	most int // maxWaiting, less in tests

	wake    chan struct{} // cap 1: there are lines
	closing chan struct{}
	closed  chan struct{}

	mu    sync.Mutex
	lines []byte // that wait
	lost  int    // lines that had no room, and were not told of yet

	// Of the goroutine that writes.
	file *os.File
	is   os.FileInfo // which file it is, or was
	rest []byte      // taken from lines; what of it is not written yet
	torn bool        // rest begins within a line
	told bool        // that nothing can be written
}

// Open begins to write to o.File, which is made if it is missing. A disk that is
// full or faulty is waited for, as it is later on; any other error is a mistake in
// the name or the rights of the file, and returned.
func Open(o Options) (*Log, error) {
	l := &Log{
		Options: o, pid: os.Getpid(), most: maxWaiting,
		wake: make(chan struct{}, 1), closing: make(chan struct{}), closed: make(chan struct{}),
	}
	if err := l.look(); err != nil {
		if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) && !errors.Is(err, syscall.EIO) {
			return nil, err
		}
		l.failed(err)
	}
	go l.run()
	return l, nil
}

// Add has c written, as done at this moment. It may be called from many
// goroutines, and does not wait for the disk.
func (l *Log) Add(c Change) {
	if l == nil {
		return
	}
	l.mu.Lock()
	if len(l.lines) >= l.most {
		l.lost++
	} else {
		l.lines = l.line(l.lines, &c, time.Now())
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Close writes what waits, for two seconds at most: a disk that hangs must not
// keep a process from ending. No Add may come later.
func (l *Log) Close() {
	if l == nil {
		return
	}
	close(l.closing)
	select {
	case <-l.closed:
	case <-time.After(closePause):
		l.Log.Error("transfer log does not take its last lines, left without them", "path", l.File)
	}
}

func (l *Log) run() {
	defer close(l.closed)
	for {
		wake, retry := l.wake, (<-chan time.Time)(nil)
		if l.told {
			wake, retry = nil, time.After(retryPause)
		}
		select {
		case <-wake:
			select {
			case <-time.After(gatherPause):
			case <-l.closing:
			}
		case <-retry:
		case <-l.Hangup:
		case <-l.closing:
			l.flush()
			l.end()
			return
		}
		l.flush()
	}
}

// flush writes all that waits, or says once why it cannot.
func (l *Log) flush() {
	for {
		err := l.look()
		if err == nil && !l.take() {
			break
		}
		if err == nil {
			err = l.write()
		}
		if err != nil {
			l.failed(err)
			return
		}
	}
	l.mu.Lock()
	lost := l.lost
	l.lost = 0
	l.mu.Unlock()
	if l.told || lost > 0 {
		l.told = false
		l.Log.Warn("transfer log is written again", "path", l.File, "lost_lines", lost)
	}
}

// take gets the lines that wait, once those before are written, and reports
// whether there are any.
func (l *Log) take() bool {
	if len(l.rest) > 0 {
		return true
	}
	l.mu.Lock()
	l.rest, l.lines = l.lines, nil
	l.mu.Unlock()
	return len(l.rest) > 0
}

func (l *Log) write() error {
	n, err := l.file.Write(l.rest)
	if n > 0 {
		l.torn = l.rest[n-1] != '\n'
		l.rest = l.rest[n:]
	}
	return err
}

// look has the file open that has the name: not one that was renamed or
// removed since. A line that the old one has the begin of is lost.
func (l *Log) look() error {
	if l.file != nil {
		if now, err := os.Stat(l.File); err == nil && os.SameFile(l.is, now) {
			return nil
		}
		l.file.Close()
		l.file = nil
	}
	// O_NONBLOCK: a FIFO without a reader is an error, and does not hang.
	file, err := os.OpenFile(l.File, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, 0o640)
	if err != nil {
		return err
	}
	is, err := file.Stat()
	if err != nil {
		file.Close()
		return err
	}
	if l.torn && !os.SameFile(l.is, is) {
		l.rest = l.rest[bytes.IndexByte(l.rest, '\n')+1:]
		l.torn = false
		l.mu.Lock()
		l.lost++
		l.mu.Unlock()
	}
	l.file, l.is = file, is
	return nil
}

// failed lets go of the file: the next attempt opens it anew.
func (l *Log) failed(err error) {
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
	if !l.told {
		l.told = true
		l.Log.Error("transfer log cannot be written, changes go on without it, will try again", "path", l.File, "err", err)
	}
}

// end says what was never written.
func (l *Log) end() {
	l.mu.Lock()
	lost := l.lost + bytes.Count(l.rest, []byte("\n")) + bytes.Count(l.lines, []byte("\n"))
	l.mu.Unlock()
	if lost > 0 {
		l.Log.Error("transfer log ends without its last lines", "path", l.File, "lost_lines", lost)
	}
	if l.file != nil {
		l.file.Close()
	}
}
