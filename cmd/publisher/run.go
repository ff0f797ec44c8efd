package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"treecast/internal/cli"
	"treecast/internal/events"
	"treecast/internal/publisher"
	"treecast/internal/source"
	"treecast/internal/stream"
)

const about = `Publishes a directory tree to a site's stream, live, so that the same tree stands on every node.

Every flag can be set as TREECAST_<FLAG> in the environment, and in the --config file.`

// command is the grammar of the command line.
type command struct {
	cli.ConfigFile
	cli.VersionFlag
	cli.Connection `group:"Broker"`
	cli.Logging    `group:"Log"`
	cli.Transfers  `group:"Log"`
	cli.PIDFile    `group:"Log"`
	Tree           `group:"Tree"`
	Publishing     `group:"Publishing"`

	Run    struct{} `cmd:"" default:"1" help:"Publish until stopped (the default)."`
	Scan   scan     `cmd:"" help:"Tell what a run would publish."`
	GC     gc       `cmd:"" name:"gc" help:"Tell what the bucket of large bodies has that no file needs any more."`
	Wait   wait     `cmd:"" help:"Return when all that is at the source now is on the nodes: exit 0 it is, 1 it is not, 2 no answer."`
	Status status   `cmd:"" help:"Tell who is behind: exit 0 all current, 1 someone behind, held up or away, 2 no answer or the source is halted."`
}

// Tree has the flags that say what is published.
type Tree struct {
	Root              string   `help:"The directory to publish." type:"path" placeholder:"DIR"`
	Exclude           []string `help:"Leave out what matches, in .gitignore syntax; may be repeated." sep:"none" placeholder:"PATTERN"`
	Include           []string `help:"Publish what matches although a default or --exclude leaves it out." sep:"none" placeholder:"PATTERN"`
	FilterFrom        string   `help:"File of patterns in .gitignore syntax." type:"path" placeholder:"FILE"`
	NoDefaultExcludes bool     `help:"Publish .git, .svn, .env*, editors' files and the like too."`
	Specials          bool     `help:"Publish FIFOs, sockets and devices too; nodes need the flag as well."`
	NumericIDs        bool     `name:"numeric-ids" help:"Send owners' and groups' numbers only."`
}

// Publishing has the flags that say how.
type Publishing struct {
	Takeover      bool          `help:"Publish although another publisher does; that one is fenced off."`
	ConfirmDelete bool          `help:"Let the first scan delete most of what is published."`
	ScanInterval  time.Duration `help:"Time between full scans." default:"10m"`
	Nodes         []string      `help:"Make these nodes' consumers, so that they need no right to." placeholder:"b,c,d"`
	Replicas      int           `help:"Copies of the stream in a cluster, when it is made." default:"1"`
	MaxBytes      int64         `help:"Limit of the stream's size; none by default." default:"-1" placeholder:"BYTES"`
	BucketBytes   int64         `help:"Limit of the size of the bucket of large bodies; none by default." default:"-1" placeholder:"BYTES"`
	GCGrace       time.Duration `name:"gc-grace" help:"How long the bucket keeps what no file needs any more." default:"24h"`
	TombstoneTTL  time.Duration `name:"tombstone-ttl" help:"How long a deletion is kept for nodes that are down." default:"720h"`
}

type scan struct {
	DryRun bool `help:"Change nothing; a scan never does." required:""`
}

type status struct{ cli.StatusFlags }

type wait struct {
	Timeout time.Duration `help:"How long to wait at most." default:"30s"`
	Node    []string      `help:"Wait for these nodes only." placeholder:"b,c"`
	Scan    bool          `help:"Have the whole tree looked at: finds writes through mmap and other hard links too."`
}

type gc struct {
	DryRun bool `help:"Change nothing; the running publisher removes it after --gc-grace." required:""`
}

// run is the program.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var c command
	k, err := cli.Parse("publisher", about, &c, args, stdout, stderr)
	if err != nil || k == nil {
		return err
	}
	log := c.Logger(stderr)
	to, site, err := c.Connection.Options("publisher", log)
	if err != nil {
		return err
	}
	if k.Command() == "status" {
		return cli.Status(ctx, to, site, "", c.Status.StatusFlags, stdout)
	}
	if k.Command() == "wait" {
		return cli.Wait(ctx, to, cli.Barrier{Site: site, Nodes: c.Wait.Node, Scan: c.Wait.Scan, Timeout: c.Wait.Timeout})
	}
	o := publisher.Options{
		Site: site, Root: c.Root, Specials: c.Specials, NumericIDs: c.NumericIDs, Takeover: c.Takeover,
		ConfirmDelete: c.ConfirmDelete, ScanInterval: c.ScanInterval, GCGrace: c.GCGrace, Nodes: c.Nodes,
		Stream:   stream.Config{Replicas: c.Replicas, MaxBytes: c.MaxBytes, BucketBytes: c.BucketBytes, TombstoneTTL: c.TombstoneTTL},
		Version:  cli.Version(),
		Log:      log,
		Progress: cli.Progress(stderr, "publishing"),
	}
	if k.Command() == "gc" {
		return listGarbage(ctx, to, site, c.GCGrace, stdout)
	}
	if err := cli.CheckRoot(c.Root, "which directory is to be published?"); err != nil {
		return err
	}
	if o.Filter, err = c.filter(); err != nil {
		return err
	}
	if k.Command() == "run" {
		defer cli.HoldBallast()()
		release, err := c.Hold()
		if err != nil {
			return err
		}
		defer release()
		host, err := os.Hostname()
		if err != nil {
			return err
		}
		if o.Transfers, err = c.Transfers.Open(string(site), host, log); err != nil {
			return err
		}
		defer o.Transfers.Close()
	}
	conn, err := cli.Connect(ctx, to, k.Command() == "run")
	if err != nil {
		return err
	}
	defer conn.Close()
	if k.Command() == "scan" {
		return dryRun(ctx, conn, o, stdout, log)
	}
	if err = publisher.Run(ctx, conn, o); errors.Is(err, stream.ErrHeld) {
		err = fmt.Errorf("%w; stop that one, or start with --takeover to fence it off", err)
	}
	return err
}

// filter puts the rules in their order: the last that matches wins.
func (t *Tree) filter() (*source.Filter, error) {
	var rules []string
	if !t.NoDefaultExcludes {
		rules = source.DefaultRules()
	}
	if t.FilterFrom != "" {
		f, err := os.Open(t.FilterFrom)
		if err != nil {
			return nil, fmt.Errorf("--filter-from: %w", err)
		}
		more, err := source.ReadRules(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("--filter-from %s: %w", t.FilterFrom, err)
		}
		rules = append(rules, more...)
	}
	rules = append(rules, t.Exclude...)
	for _, pattern := range t.Include {
		rules = append(rules, "!"+pattern)
	}
	return source.NewFilter(rules...)
}

// dryRun prints what a run would publish, a line a path.
func dryRun(ctx context.Context, conn *stream.Conn, o publisher.Options, stdout io.Writer, log *slog.Logger) error {
	n := 0
	err := publisher.Scan(ctx, conn, o, func(item publisher.Item) {
		n++
		fmt.Fprintln(stdout, item)
	})
	log.Info("scanned", "site", o.Site, "path", o.Root, "entries", n)
	return err
}

// listGarbage prints what no file needs any more, a line an object, and what
// they are together.
func listGarbage(ctx context.Context, to stream.ConnectOptions, site events.Site, grace time.Duration, stdout io.Writer) error {
	conn, err := cli.Ask(ctx, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	objects, bytes := 0, int64(0)
	err = publisher.FindGarbage(ctx, conn, site, func(g publisher.Garbage) {
		objects, bytes = objects+1, bytes+g.Bytes
		state := "not marked yet"
		switch {
		case g.Orphan:
			state = "of an interrupted upload"
		case !g.Unnamed.IsZero():
			state = "until " + g.Unnamed.Add(grace).Format(time.RFC3339)
		}
		fmt.Fprintf(stdout, "%s %d bytes, stored %s, %s\n", g.Name, g.Bytes, g.Stored.Format(time.RFC3339), state)
	})
	if err == nil {
		fmt.Fprintf(stdout, "%d objects, %d bytes\n", objects, bytes)
	}
	return err
}
