package broker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func start(t *testing.T, o Options) *Broker {
	t.Helper()
	if o.Log == nil {
		o.Log = quiet()
	}
	b, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	return b
}

func dial(t *testing.T, url string, opts ...nats.Option) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestStartServesAndKeeps(t *testing.T) {
	o := Options{StoreDir: filepath.Join(t.TempDir(), "new", "store"), Listen: "127.0.0.1:0", Monitor: "127.0.0.1:0", SyncAlways: true, Name: "me"}
	b := start(t, o)
	js := dial(t, b.URL())
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "s", Subjects: []string{"s.>"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "s.1", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	if name := js.Conn().ConnectedServerName(); name != "me" {
		t.Errorf("its name is %q", name)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.MonitorURL()+"/healthz", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("health: %s", resp.Status)
	}
	config := b.srv.JetStreamConfig()
	if !config.SyncAlways || !strings.HasPrefix(config.StoreDir, o.StoreDir) {
		t.Errorf("JetStream runs with %+v", config)
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(o.StoreDir, &disk); err != nil {
		t.Fatal(err)
	}
	free := int64(disk.Bavail) * disk.Bsize
	if config.MaxStore <= 0 || config.MaxStore >= free {
		t.Errorf("may store %d, free are %d", config.MaxStore, free)
	}
	b.Stop()
	b.Stop()
	select {
	case <-b.Done():
	default:
		t.Error("stopped and not done")
	}

	b = start(t, Options{StoreDir: o.StoreDir, DontListen: true})
	if b.URL() != "" || b.MonitorURL() != "" {
		t.Errorf("listens at %q and %q", b.URL(), b.MonitorURL())
	}
	js = dial(t, "", nats.InProcessServer(b.InProcess()))
	s, err := js.Stream(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	if msg, err := s.GetMsg(t.Context(), 1); err != nil || string(msg.Data) != "kept" {
		t.Errorf("kept: %v, %v", msg, err)
	}
	if b.srv.JetStreamConfig().SyncAlways {
		t.Error("syncs always, unasked")
	}
}

func TestStartRefuses(t *testing.T) {
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	store := t.TempDir()
	start(t, Options{StoreDir: store, DontListen: true})
	bad := filepath.Join(t.TempDir(), "bad.conf")
	if err := os.WriteFile(bad, []byte("listen: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o    Options
		what error
		text string
	}{
		"store in use":        {Options{StoreDir: store, DontListen: true}, ErrInUse, "pid"},
		"address taken":       {Options{StoreDir: t.TempDir(), Listen: taken.Addr().String()}, ErrStart, "address already in use"},
		"no store":            {Options{DontListen: true}, ErrStart, "store"},
		"store is a file":     {Options{StoreDir: file, DontListen: true}, ErrStart, "not a directory"},
		"bad configuration":   {Options{StoreDir: t.TempDir(), ConfigFile: bad}, ErrStart, "bad.conf"},
		"no configuration":    {Options{StoreDir: t.TempDir(), ConfigFile: bad + "x"}, ErrStart, "no such file"},
		"bad address":         {Options{StoreDir: t.TempDir(), Listen: "4222"}, ErrStart, "address"},
		"bad port":            {Options{StoreDir: t.TempDir(), Listen: "127.0.0.1:http"}, ErrStart, "http"},
		"bad monitor address": {Options{StoreDir: t.TempDir(), DontListen: true, Monitor: "x"}, ErrStart, "monitoring"},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.Log = quiet()
			b, err := Start(t.Context(), c.o)
			if err == nil {
				b.Stop()
				t.Fatal("it starts")
			}
			if !errors.Is(err, c.what) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error is %v", err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, Options{StoreDir: t.TempDir(), DontListen: true, Log: quiet()}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func TestConfigurationFileAndFlags(t *testing.T) {
	store, other := t.TempDir(), t.TempDir()
	file := filepath.Join(t.TempDir(), "nats.conf")
	write := func(users string) {
		t.Helper()
		text := `listen: "127.0.0.1:-1"
server_name: from-file
jetstream { store_dir: "` + store + `", max_file: 10MB, sync_interval: "1m" }
authorization { users = [` + users + `] }`
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{user: u, password: p}`)
	b := start(t, Options{ConfigFile: file, SyncAlways: true})
	config := b.srv.JetStreamConfig()
	if config.SyncAlways || config.SyncInterval != time.Minute || config.MaxStore != 10_000_000 && config.MaxStore != 10<<20 || !strings.HasPrefix(config.StoreDir, store) {
		t.Errorf("JetStream runs with %+v", config)
	}
	if _, err := nats.Connect(b.URL()); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("without a password: %v", err)
	}
	dial(t, b.URL(), nats.UserInfo("u", "p"))

	write(`{user: u, password: p}, {user: new, password: n}`)
	if err := b.Reload(); err != nil {
		t.Fatal(err)
	}
	dial(t, b.URL(), nats.UserInfo("new", "n"))
	write(`{user: `)
	if err := b.Reload(); err == nil {
		t.Error("a broken file is taken")
	}
	dial(t, b.URL(), nats.UserInfo("new", "n"))

	write(`{user: u, password: p}`)
	b = start(t, Options{ConfigFile: file, StoreDir: other, Listen: "127.0.0.1:0", Name: "from-flag"})
	js := dial(t, b.URL(), nats.UserInfo("u", "p"))
	if name := js.Conn().ConnectedServerName(); name != "from-flag" {
		t.Errorf("its name is %q", name)
	}
	if dir := b.srv.JetStreamConfig().StoreDir; !strings.HasPrefix(dir, other) {
		t.Errorf("it stores in %q", dir)
	}

	plain := filepath.Join(t.TempDir(), "plain.conf")
	if err := os.WriteFile(plain, []byte(`listen: "127.0.0.1:-1"`), 0o600); err != nil {
		t.Fatal(err)
	}
	b = start(t, Options{ConfigFile: plain, StoreDir: t.TempDir(), SyncAlways: true})
	if !b.srv.JetStreamConfig().SyncAlways { // switched on, though the file does not
		t.Error("does not sync always")
	}
}
