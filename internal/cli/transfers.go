package cli

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"treecast/internal/transfer"
)

// Transfers has the flags of the transfer log. The default has the path last:
// there its spaces do no harm.
type Transfers struct {
	TransferLog    string          `help:"Append a line for each change that is done to this file; SIGHUP opens it anew." type:"path" placeholder:"FILE"`
	TransferFormat transfer.Format `help:"The line: %t time, %p pid, %m site, %h node or source host, %o operation, %i itemized as by rsync -i, %f path, %l size, %b bytes that travelled, %d seconds, %%." default:"%t %h %o %i %l %b %d %f" placeholder:"FORMAT"`
}

// Open begins the transfer log that the flags ask for, nil if they ask for none.
// A SIGHUP is its from then on.
func (t *Transfers) Open(site, host string, log *slog.Logger) (*transfer.Log, error) {
	if t.TransferLog == "" {
		return nil, nil
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	l, err := transfer.Open(transfer.Options{
		File: t.TransferLog, Format: t.TransferFormat, Site: site, Host: host, Hangup: hangup, Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("--transfer-log: %w", err)
	}
	return l, nil
}
