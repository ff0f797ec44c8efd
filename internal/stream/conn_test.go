package stream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

func TestConnectWaitsForTheBroker(t *testing.T) {
	s := startServer(t, nil)
	s.stop()
	var log logBuffer
	type result struct {
		c   *Conn
		err error
	}
	done := make(chan result)
	go func() {
		c, err := Connect(t.Context(), ConnectOptions{InProcess: s, Log: slog.New(slog.NewTextHandler(&log, nil))})
		done <- result{c, err}
	}()
	eventually(t, "it says so", func() bool { return strings.Contains(log.String(), "broker unreachable, trying again") })
	time.Sleep(3 * firstBackoff) // some attempts more
	s.start()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	defer r.c.Close()
	if n := strings.Count(log.String(), "unreachable"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log.String())
	}
}

func TestConnectEndsWithItsContext(t *testing.T) {
	s := startServer(t, nil)
	s.stop()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := Connect(ctx, ConnectOptions{InProcess: s, Log: quiet()})
	want(t, err, context.DeadlineExceeded)
}

func TestConnectRefused(t *testing.T) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, _ := pair.PublicKey()
	seed, _ := pair.Seed()
	other, _ := nkeys.CreateUser()
	otherSeed, _ := other.Seed()
	s := startServer(t, func(o *server.Options) {
		o.DontListen, o.Host, o.Port = false, "127.0.0.1", server.RANDOM_PORT // a pipe loses the refusal
		o.Users = []*server.User{{Username: "b", Password: "right"}}
		o.Nkeys = []*server.NkeyUser{{Nkey: public}}
	})
	for name, o := range map[string]ConnectOptions{
		"right password": {User: "b", PasswordFile: writeFile(t, "right\n")},
		"right seed":     {NKey: writeFile(t, string(seed))},
	} {
		o.URL, o.Log = s.srv.ClientURL(), quiet()
		c, err := Connect(t.Context(), o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c.Close()
	}
	for name, o := range map[string]ConnectOptions{
		"no credentials":      {},
		"wrong password":      {User: "b", PasswordFile: writeFile(t, "wrong")},
		"other seed":          {NKey: writeFile(t, string(otherSeed))},
		"no such file":        {User: "b", PasswordFile: filepath.Join(t.TempDir(), "none")},
		"no such creds":       {Creds: filepath.Join(t.TempDir(), "none")},
		"not a seed":          {NKey: writeFile(t, "hello")},
		"two kinds":           {User: "b", PasswordFile: writeFile(t, "right"), NKey: writeFile(t, string(seed))},
		"password of no one":  {PasswordFile: writeFile(t, "right")},
		"key without cert":    {TLSKey: "k"},
		"no authority's file": {TLSCA: filepath.Join(t.TempDir(), "none")},
	} {
		var log logBuffer
		o.URL, o.Log = s.srv.ClientURL(), slog.New(slog.NewTextHandler(&log, nil))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := Connect(ctx, o)
		cancel()
		if !errors.Is(err, ErrAuth) {
			t.Errorf("%s: %v\n%s", name, err, log.String())
		}
		if err != nil && strings.Contains(err.Error(), "right") {
			t.Errorf("%s: a secret in %v", name, err)
		}
	}
	_, err = Connect(t.Context(), ConnectOptions{URL: "nats://user:secret@:bad:port", Log: quiet()})
	want(t, err, ErrServer)
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("a secret in %v", err)
	}
}

func TestConnectUnsuitableBroker(t *testing.T) {
	s := startServer(t, func(o *server.Options) { o.JetStream = false })
	_, err := Connect(t.Context(), ConnectOptions{InProcess: s, Log: quiet()})
	want(t, err, ErrServer)
	if !strings.Contains(err.Error(), "-js") {
		t.Errorf("what to do is missing in %v", err)
	}
	_, err = Connect(t.Context(), ConnectOptions{InProcess: fakeServer{"2.10.29"}, Log: quiet()})
	want(t, err, ErrServer)
	if !strings.Contains(err.Error(), "2.10.29") || !strings.Contains(err.Error(), "2.14") {
		t.Errorf("versions are missing in %v", err)
	}
	s = startServer(t, func(o *server.Options) { o.MaxPayload = 300 << 10 })
	want(t, s.connect("p").TakesEntries(), ErrServer)
	_, err = startServer(t, nil).connect("p").EnsureStream(t.Context(), site, Config{Replicas: 3})
	want(t, err, ErrServer)
}

// A fakeServer greets as a nats-server of some version.
type fakeServer struct{ version string }

func (f fakeServer) InProcessConn() (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() {
		defer ours.Close()
		fmt.Fprintf(ours, `INFO {"server_id":"x","version":%q,"max_payload":1048576,"headers":true,"jetstream":true}`+"\r\n", f.version)
		for lines := bufio.NewScanner(ours); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "PING") {
				fmt.Fprint(ours, "PONG\r\n")
			}
		}
	}()
	return theirs, nil
}

func TestNewEnough(t *testing.T) {
	for version, is := range map[string]bool{
		"2.14.0": true, "2.15.2": true, "2.15.0-dev": true, "v3.0.0": true, "2.100.1": true, "unknown": true,
		"2.13.9": false, "2.9.0": false, "1.4.0": false, "2.13.0-RC.1": false,
	} {
		if newEnough(version) != is {
			t.Errorf("%s: %v", version, !is)
		}
	}
}

func TestConnectionComesBack(t *testing.T) {
	s, c := newSite(t, nil)
	before := c.Reconnects()
	select {
	case <-c.Changed():
		t.Error("changed before anything did")
	default:
	}
	s.stop()
	<-c.Changed()
	_, err := c.StreamInfo(t.Context(), site)
	want(t, err, ErrDisconnected)
	s.start()
	<-c.Changed()
	if !c.Connected() || c.Reconnects() != before+1 {
		t.Errorf("connected %v, %d reconnects", c.Connected(), c.Reconnects())
	}
	if _, err := c.StreamInfo(t.Context(), site); err != nil {
		t.Error(err)
	}
	c.Close()
	c.Close()
	_, err = c.StreamInfo(t.Context(), site)
	want(t, err, ErrDisconnected)
}

func TestStreamMadeAnewIsSeen(t *testing.T) {
	s, c := newSite(t, nil)
	l := acquire(t, c, "a")
	publish(t, l, messages(t, 20, "x")...)
	before, err := c.StreamInfo(t.Context(), site)
	if err != nil {
		t.Fatal(err)
	}
	s.restart(nil, c)
	after, err := c.StreamInfo(t.Context(), site)
	after.Now = before.Now
	if err != nil || after != before {
		t.Errorf("a restart changes %+v to %+v, %v", before, after, err)
	}
	s.restart(s.wipe, c)
	_, err = c.StreamInfo(t.Context(), site)
	want(t, err, ErrNoStream)
	anew, err := c.EnsureStream(t.Context(), site, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if anew.Created.Equal(before.Created) || anew.LastSeq != 0 {
		t.Errorf("made anew %+v, before %+v", anew, before)
	}
}

func TestInboxPrefix(t *testing.T) {
	for name, prefix := range map[string]string{"": "_INBOX_treecast", "b": "_INBOX_b", "web-1.example.org >": "_INBOX_web-1-example-org--"} {
		if got := InboxPrefix(name); got != prefix {
			t.Errorf("%q: %q", name, got)
		}
	}
}
