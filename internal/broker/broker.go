package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// ErrStart reports a server that does not come up: its address is taken, its
// configuration is wrong, its store cannot be used.
var ErrStart = errors.New("the broker does not start")

const (
	readyPoll    = 50 * time.Millisecond
	startTimeout = 10 * time.Minute // a large store is read through after a crash
)

// A Broker is a running server. Its methods may be called from many
// goroutines at once.
type Broker struct {
	options Options
	srv     *server.Server
	lock    *storeLock
	log     *slog.Logger
	started chan struct{} // the server no longer starts goroutines of its own accord
	ended   chan struct{}
}

// Start starts a server and returns when it takes connections. A store that
// was not closed is read through first, which takes a second for some hundred
// thousand paths. The caller stops it.
//
// Errors are [ErrStart], [ErrInUse] or ctx's own; nothing runs then.
func Start(ctx context.Context, o Options) (*Broker, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	opts, err := o.serverOptions()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStart, err)
	}
	lock, err := lockStore(opts.StoreDir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStart, err)
	}
	if err := limitStore(opts); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrStart, err), lock.release())
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrStart, err), lock.release())
	}
	b := &Broker{options: o, srv: srv, lock: lock, log: o.Log, started: make(chan struct{}), ended: make(chan struct{})}
	logger := &bridge{log: o.Log, fatal: make(chan string, 1)}
	srv.SetLoggerV2(logger, opts.Debug, opts.Trace, opts.TraceVerbose)
	go func() {
		srv.Start()
		close(b.started)
		srv.WaitForShutdown()
		close(b.ended)
	}()
	if err := b.ready(ctx, logger.fatal); err != nil {
		b.Stop()
		return nil, err
	}
	o.Log.Info("broker started", "url", b.URL(), "store", opts.StoreDir, "max_file", opts.JetStreamMaxStore,
		"sync_always", opts.SyncAlways)
	return b, nil
}

func (b *Broker) ready(ctx context.Context, fatal <-chan string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("%w within %s", ErrStart, startTimeout))
	defer cancel()
	for {
		select {
		case why := <-fatal:
			return fmt.Errorf("%w: %s", ErrStart, why)
		case <-b.ended:
			return fmt.Errorf("%w: it has ended", ErrStart)
		case <-ctx.Done():
			return context.Cause(ctx)
		default:
		}
		if !b.srv.ReadyForConnections(readyPoll) {
			continue
		}
		select { // it says what is fatal before it is ready
		case why := <-fatal:
			return fmt.Errorf("%w: %s", ErrStart, why)
		default:
		}
		if !b.srv.JetStreamEnabled() {
			return fmt.Errorf("%w: JetStream is not enabled, see its log", ErrStart)
		}
		return nil
	}
}

// URL is where clients connect, empty if it does not listen.
func (b *Broker) URL() string {
	if b.options.DontListen {
		return ""
	}
	return b.srv.ClientURL()
}

// MonitorURL is the root of the HTTP monitoring, empty if there is none.
func (b *Broker) MonitorURL() string {
	addr := b.srv.MonitorAddr()
	if addr == nil {
		return ""
	}
	return "http://" + addr.String()
}

// InProcess is how clients in this process connect, without a socket.
func (b *Broker) InProcess() nats.InProcessConnProvider { return b.srv }

// Done is closed when the server has ended, by Stop or by itself.
func (b *Broker) Done() <-chan struct{} { return b.ended }

// Reload reads the configuration file again, for users and permissions that
// changed. The error says what cannot be changed in a running server; then
// nothing is.
func (b *Broker) Reload() error {
	opts, err := b.options.serverOptions()
	if err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	opts.JetStreamMaxStore = b.storeLimit()
	if err := b.srv.ReloadOptions(opts); err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	b.log.Info("broker reloaded its configuration")
	return nil
}

func (b *Broker) storeLimit() int64 {
	if config := b.srv.JetStreamConfig(); config != nil {
		return config.MaxStore
	}
	return 0
}

// Stop ends the server, closes its connections and its store, and returns when
// that is done. It is harmless to stop twice. A server that is just starting
// reads its store to the end first: it must not be shut down meanwhile.
func (b *Broker) Stop() {
	<-b.started
	b.srv.Shutdown()
	b.srv.WaitForShutdown()
	<-b.ended
	if err := b.lock.release(); err != nil {
		b.log.Warn("lock of the store not released", "err", err)
	}
}
