package internal
import (
 _ "github.com/nats-io/nats-server/v2/server"
 _ "github.com/nats-io/nats.go/jetstream"
 _ "github.com/synadia-io/orbit.go/jetstreamext"
 _ "github.com/fsnotify/fsnotify"
 _ "golang.org/x/sync/errgroup"
 _ "golang.org/x/sys/unix"
 _ "golang.org/x/term"
 _ "github.com/alecthomas/kong"
 _ "github.com/alecthomas/kong-yaml"
 _ "pgregory.net/rapid"
 _ "github.com/rogpeppe/go-internal/testscript"
 _ "go.uber.org/goleak"
 _ "github.com/schollz/progressbar/v3"
 _ "github.com/go-git/go-git/v5/plumbing/format/gitignore"
)
