package stream

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// ConnectOptions says where the broker is and who we are.
//
// Credentials are files, so that no secret is seen in argv: Creds is a
// .creds file, NKey a file with a seed, PasswordFile the password of User, on
// one line. They are read again at each reconnect. At most one of the three is
// used. TLSCert and TLSKey are our certificate, TLSCA who signs the broker's.
type ConnectOptions struct {
	URL  string // nats://host:port, tls://…; several with commas; default nats://127.0.0.1:4222
	Name string // as `nats server report connections` shows it, and in the inbox's subject

	Creds, NKey, User, PasswordFile string
	TLSCA, TLSCert, TLSKey          string

	// BulkRate is how many bytes a second [Conn.Fetch] and [Bodies.Get] read at
	// most; 0: as many as come.
	BulkRate int64

	InProcess nats.InProcessConnProvider // not nil: used instead of URL
	Log       *slog.Logger               // nil: slog.Default()
}

const (
	dialTimeout  = 5 * time.Second
	pingInterval = 20 * time.Second // a half-open connection is found in a minute
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 2 * time.Second
	// An inbox has room for any answer that is asked for; what it takes is
	// scanned by the collector all the time.
	inboxMessages = 2 * snapshotBatch
)

// InboxPrefix is what the subjects of all replies to a connection of that name
// begin with: the one subscription that its user needs is "<prefix>.>".
func InboxPrefix(name string) string {
	if name == "" {
		name = "treecast"
	}
	token := []byte(name)
	for i, c := range token {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
		default:
			token[i] = '-'
		}
	}
	return "_INBOX_" + string(token)
}

// servers returns the URL to dial.
func (o *ConnectOptions) servers() (string, error) {
	if o.InProcess != nil {
		return "", nil
	}
	if o.URL == "" {
		return nats.DefaultURL, nil
	}
	for s := range strings.SplitSeq(o.URL, ",") {
		s = strings.TrimSpace(s)
		if !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		u, err := url.Parse(s)
		if err != nil || u.Host == "" {
			return "", fmt.Errorf("%w: not a URL of a NATS server, as in nats://host:4222", ErrServer) // may hold a password
		}
	}
	return o.URL, nil
}

// natsOptions are what o means to nats.go, less the callbacks. It reads the
// files once, so that a missing one is an error now.
func (o *ConnectOptions) natsOptions() ([]nats.Option, error) {
	opts := []nats.Option{
		nats.Name(o.Name),
		nats.CustomInboxPrefix(InboxPrefix(o.Name)),
		nats.Timeout(dialTimeout),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(2),
		nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1), // a publish fails now or not at all
		nats.IgnoreAuthErrorAbort(),
		nats.CustomReconnectDelay(Backoff),
		nats.SyncQueueLen(inboxMessages),
	}
	if o.InProcess != nil {
		opts = append(opts, nats.InProcessServer(o.InProcess))
	}
	given := 0
	for _, file := range []string{o.Creds, o.NKey, o.PasswordFile} {
		if file == "" {
			continue
		}
		given++
		if _, err := os.ReadFile(file); err != nil {
			return nil, fmt.Errorf("%w: credentials: %w", ErrAuth, err)
		}
	}
	switch {
	case given > 1:
		return nil, fmt.Errorf("%w: more than one kind of credentials is given", ErrAuth)
	case o.Creds != "":
		opts = append(opts, nats.UserCredentials(o.Creds))
	case o.NKey != "":
		nkey, err := nats.NkeyOptionFromSeed(o.NKey)
		if err != nil {
			return nil, fmt.Errorf("%w: seed in %q: %w", ErrAuth, o.NKey, err)
		}
		opts = append(opts, nkey)
	case o.PasswordFile != "" && o.User == "":
		return nil, fmt.Errorf("%w: a password file but no user", ErrAuth)
	case o.User != "":
		opts = append(opts, nats.UserInfoHandler(o.userInfo))
	}
	if o.TLSCA != "" {
		if _, err := os.ReadFile(o.TLSCA); err != nil {
			return nil, fmt.Errorf("%w: certificate authority: %w", ErrAuth, err)
		}
		opts = append(opts, nats.RootCAs(o.TLSCA))
	}
	if (o.TLSCert == "") != (o.TLSKey == "") {
		return nil, fmt.Errorf("%w: a certificate and its key go together", ErrAuth)
	}
	if o.TLSCert != "" {
		opts = append(opts, nats.ClientCert(o.TLSCert, o.TLSKey))
	}
	return opts, nil
}

// userInfo reads the password at each connect, so that it can be changed
// under a running program.
func (o *ConnectOptions) userInfo() (user, password string) {
	if o.PasswordFile == "" {
		return o.User, ""
	}
	b, err := os.ReadFile(o.PasswordFile)
	if err != nil {
		return o.User, "" // the broker refuses it, which is logged
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return o.User, strings.TrimSuffix(string(line), "\r")
}

// Backoff is how long to wait before attempt n, from 1: twice as long each
// time, and between half and all of that, so that a thousand nodes do not come
// back at once.
func Backoff(n int) time.Duration {
	d := lastBackoff
	if n < 6 {
		d = min(d, firstBackoff<<max(n-1, 0))
	}
	return d/2 + rand.N(d/2)
}

// permanentAuth reports whether err says that our identity was refused.
func permanentAuth(err error) bool {
	for _, e := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked,
		nats.ErrAccountAuthExpired, nats.ErrNkeysNotSupported, nats.ErrNkeyButNoSigCB,
		nats.ErrInvalidContext, nats.ErrSecureConnRequired, nats.ErrSecureConnWanted} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
