package cli

import (
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"
)

// Logging has the flags of the log, which goes to standard error.
type Logging struct {
	LogLevel  slog.Level `help:"The least level that is logged: debug, info, warn or error." default:"info" placeholder:"LEVEL"`
	LogFormat string     `help:"text, json, or auto: text on a terminal, JSON otherwise." default:"auto" enum:"auto,text,json" placeholder:"FORMAT"`
}

// Logger returns the logger that the flags ask for.
func (l *Logging) Logger(stderr io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: l.LogLevel}
	if l.LogFormat == "text" || l.LogFormat == "auto" && Terminal(stderr) {
		return slog.New(slog.NewTextHandler(stderr, o))
	}
	return slog.New(slog.NewJSONHandler(stderr, o))
}

// Terminal reports whether w is a terminal.
func Terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) //nolint:gosec // a file descriptor fits
}
