package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"treecast/internal/events"
	"treecast/internal/stream"
)

// CheckRoot says why dir, of --root, cannot be used, before anything waits for
// a broker.
func CheckRoot(dir, question string) error {
	if dir == "" {
		return fmt.Errorf("--root is missing: %s", question)
	}
	fi, err := os.Stat(dir)
	switch {
	case err != nil:
		return fmt.Errorf("--root: %w; is its file system mounted?", err)
	case !fi.IsDir():
		return fmt.Errorf("--root: %q is not a directory", dir)
	}
	return nil
}

// Connection has the flags that a client of the broker takes.
type Connection struct {
	NATS         string `name:"nats" help:"The broker's URL, several with commas." default:"nats://127.0.0.1:4222" placeholder:"URL"`
	Site         string `help:"The site: one tree, one stream." default:"web" placeholder:"NAME"`
	Creds        string `help:"Credentials file (JWT and seed)." placeholder:"FILE"`
	NKey         string `name:"nkey" help:"File with the seed of an nkey." placeholder:"FILE"`
	User         string `help:"User name; needs --password-file." placeholder:"NAME"`
	PasswordFile string `help:"File whose first line is the user's password." placeholder:"FILE"`
	TLSCA        string `name:"tls-ca" help:"CA certificates that the broker's must be signed by." placeholder:"FILE"`
	TLSCert      string `name:"tls-cert" help:"Our certificate." placeholder:"FILE"`
	TLSKey       string `name:"tls-key" help:"Our certificate's key." placeholder:"FILE"`
}

// askPatience is how long a command that asks something waits for a broker.
const askPatience = 10 * time.Second

// Ask connects for a command that ends by itself: unlike a service it does not
// wait for a broker for ever.
func Ask(ctx context.Context, to stream.ConnectOptions) (*stream.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askPatience, fmt.Errorf("no broker answered at %s in %s; is --nats right?", to.URL, askPatience))
	defer cancel()
	conn, err := stream.Connect(ctx, to)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return conn, err
}

// Connect connects for a service, which waits for its broker, or as [Ask] does. A
// service that is stopped meanwhile ends well: the error is an [ExitError] of code 0.
func Connect(ctx context.Context, to stream.ConnectOptions, service bool) (*stream.Conn, error) {
	if !service {
		return Ask(ctx, to)
	}
	conn, err := stream.Connect(ctx, to)
	if err != nil && ctx.Err() != nil {
		err = &ExitError{}
	}
	return conn, err
}

// Options checks the flags and returns them for [stream.Connect]. The
// connection is named after its user, or as, if there is none: the name is in
// the broker's reports, and in the subject of replies, on which a user's
// rights can be narrow.
func (c *Connection) Options(as string, log *slog.Logger) (stream.ConnectOptions, events.Site, error) {
	as = cmp.Or(c.User, as)
	o := stream.ConnectOptions{
		URL: c.NATS, Name: as, Creds: c.Creds, NKey: c.NKey, User: c.User, PasswordFile: c.PasswordFile,
		TLSCA: c.TLSCA, TLSCert: c.TLSCert, TLSKey: c.TLSKey, Log: log,
	}
	site, err := events.ParseSite(c.Site)
	if err != nil {
		return o, "", err
	}
	switch {
	case (c.User == "") != (c.PasswordFile == ""):
		return o, "", errors.New("--user and --password-file go together")
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return o, "", errors.New("--tls-cert and --tls-key go together")
	}
	return o, site, errors.Join(
		exists("--creds", c.Creds), exists("--nkey", c.NKey), exists("--password-file", c.PasswordFile),
		exists("--tls-ca", c.TLSCA), exists("--tls-cert", c.TLSCert), exists("--tls-key", c.TLSKey))
}
