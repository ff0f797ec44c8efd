package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"

	"github.com/nats-io/nats-server/v2/server"
)

// Options says what to run.
//
// ConfigFile is a stock nats-server configuration; StoreDir, Listen, Monitor
// and Name win over it where they are given. Without one, Listen defaults to
// 127.0.0.1:4222 and there is no monitoring unless Monitor says so. A port of
// 0 is any free one. SyncAlways gives way to a sync_interval in the file.
type Options struct {
	StoreDir   string // where streams are kept; made if missing
	Listen     string // host:port for clients
	Monitor    string // host:port for HTTP monitoring
	ConfigFile string
	SyncAlways bool   // acknowledge what is on stable storage
	Name       string // of the server
	DontListen bool   // serve this process only
	Log        *slog.Logger
}

const defaultListen = "127.0.0.1:4222"

// serverOptions returns what o means to nats-server.
func (o *Options) serverOptions() (*server.Options, error) {
	opts, listen := &server.Options{}, o.Listen
	if o.ConfigFile != "" {
		var err error
		if opts, err = server.ProcessConfigFile(o.ConfigFile); err != nil {
			return nil, fmt.Errorf("configuration %q: %w", o.ConfigFile, err)
		}
	} else if listen == "" {
		listen = defaultListen
	}
	if o.StoreDir != "" {
		opts.StoreDir = o.StoreDir
	}
	if opts.StoreDir == "" {
		return nil, errors.New("no directory for the store is given, by option or as store_dir of the configuration")
	}
	var err error
	if opts.StoreDir, err = filepath.Abs(opts.StoreDir); err != nil {
		return nil, err
	}
	if listen != "" {
		if opts.Host, opts.Port, err = splitAddress(listen); err != nil {
			return nil, fmt.Errorf("address to listen on: %w", err)
		}
	}
	if o.Monitor != "" {
		if opts.HTTPHost, opts.HTTPPort, err = splitAddress(o.Monitor); err != nil {
			return nil, fmt.Errorf("address for monitoring: %w", err)
		}
	}
	if o.Name != "" {
		opts.ServerName = o.Name
	}
	opts.JetStream = true
	opts.SyncAlways = opts.SyncAlways || o.SyncAlways && opts.SyncInterval == 0
	opts.DontListen = o.DontListen
	opts.NoSigs = true
	opts.DisableJetStreamBanner = true
	return opts, nil
}

// splitAddress returns a host and port as nats-server takes them: -1 is any
// free port.
func splitAddress(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not a port", text)
	}
	if n == 0 {
		return host, server.RANDOM_PORT, nil
	}
	return host, int(n), nil
}
