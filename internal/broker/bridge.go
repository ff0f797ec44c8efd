package broker

import (
	"context"
	"fmt"
	"log/slog"
)

// A bridge is the logger of a nats-server. What it calls an error is mostly
// one client's, so that it is a warning here; its notices are details.
type bridge struct {
	log   *slog.Logger
	fatal chan string // holds the first fatal error
}

func (b *bridge) say(level slog.Level, format string, v ...any) {
	if b.log.Enabled(context.Background(), level) {
		b.log.Log(context.Background(), level, "nats-server", "text", fmt.Sprintf(format, v...))
	}
}

// The methods of server.Logger.

func (b *bridge) Noticef(format string, v ...any) { b.say(slog.LevelDebug, format, v...) }
func (b *bridge) Warnf(format string, v ...any)   { b.say(slog.LevelWarn, format, v...) }
func (b *bridge) Errorf(format string, v ...any)  { b.say(slog.LevelWarn, format, v...) }
func (b *bridge) Debugf(format string, v ...any)  { b.say(slog.LevelDebug, format, v...) }
func (b *bridge) Tracef(format string, v ...any)  { b.say(slog.LevelDebug, format, v...) }

// Fatalf, unlike that of nats-server's own logger, does not end the process.
func (b *bridge) Fatalf(format string, v ...any) {
	b.say(slog.LevelError, format, v...)
	select {
	case b.fatal <- fmt.Sprintf(format, v...):
	default:
	}
}
