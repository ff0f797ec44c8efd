package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"treecast/internal/apply"
	"treecast/internal/cli"
	"treecast/internal/events"
	"treecast/internal/source"
	"treecast/internal/stream"
	"treecast/internal/subscriber"
)

const about = `Keeps a directory tree on this node equal to a site's stream: each change atomically, and after downtime on from where it was.

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

	Run    struct{} `cmd:"" default:"1" help:"Keep the tree until stopped (the default)."`
	Verify verify   `cmd:"" help:"Compare the tree with the stream: exit 0 equal, 1 differences (itemized), 2 could not tell."`
	Status status   `cmd:"" help:"Tell whether this node is behind: exit 0 current, 1 behind, 2 no answer."`
}

// Tree has the flags that say which tree is kept, and how.
type Tree struct {
	Node              string        `help:"This node's name, its own among the site's nodes." placeholder:"NAME"`
	Root              string        `help:"The directory to keep; it must exist." type:"path" placeholder:"DIR"`
	NumericIDs        bool          `name:"numeric-ids" help:"Own files by the source's numbers, not by its names."`
	Specials          bool          `help:"Make FIFOs, sockets and devices that the publisher sends."`
	Foreign           string        `help:"What to do with what the source does not have: trash or keep." default:"trash" enum:"trash,keep"`
	Protect           []string      `help:"Foreign paths that always stay, in .gitignore syntax; may be repeated." sep:"none" placeholder:"PATTERN"`
	TrashKeep         time.Duration `help:"How long the trash is kept." default:"168h"`
	ConfirmDelete     bool          `help:"Let the first reconcile remove most of what stands in the root."`
	ReconcileInterval time.Duration `help:"Time between comparisons of the whole tree, by size and time." default:"24h"`
	ScrubInterval     time.Duration `help:"Time within which every byte of the tree is read and compared; 0 for never." default:"168h"`
	ScrubRate         int64         `help:"How many bytes a second that reads at most." default:"16777216" placeholder:"BYTES"`
	BWLimit           int64         `name:"bwlimit" help:"How many bytes a second a first sync, a repair and large files may fetch; 0 for no limit. It does not hold back what changes while the node follows." default:"0" placeholder:"BYTES"`
}

type status struct{ cli.StatusFlags }

type verify struct {
	Checksum bool `help:"Read every byte; otherwise size and time are believed."`
	Repair   bool `help:"Make the tree equal; no subscriber may be running on it."`
}

// run is the program.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var c command
	k, err := cli.Parse("subscriber", about, &c, args, stdout, stderr)
	if err != nil || k == nil {
		return err
	}
	log := c.Logger(stderr)
	if c.Node == "" {
		return errors.New("--node is missing: what is this node's name?")
	}
	if err := events.CheckName(c.Node); err != nil {
		return fmt.Errorf("--node: %w", err)
	}
	to, site, err := c.Connection.Options(c.Node, log)
	if err != nil {
		return err
	}
	if to.BulkRate = c.BWLimit; c.BWLimit < 0 {
		return errors.New("--bwlimit must not be negative: it is bytes a second, 0 for no limit")
	}
	if k.Command() == "status" {
		return cli.Status(ctx, to, site, c.Node, c.Status.StatusFlags, stdout)
	}
	o := subscriber.Options{
		Site: site, Node: c.Node, Root: c.Root, NumericIDs: c.NumericIDs, Specials: c.Specials,
		TrashKeep: c.TrashKeep, ConfirmDelete: c.ConfirmDelete, Reconcile: c.ReconcileInterval,
		Scrub: c.ScrubInterval, ScrubRate: c.ScrubRate,
		Version: cli.Version(), Log: log, Progress: cli.Progress(stderr, "applying"),
	}
	if err := cli.CheckRoot(c.Root, "which directory is to be kept?"); err != nil {
		return err
	}
	if c.ScrubInterval < 0 || c.ScrubRate <= 0 {
		return errors.New("--scrub-interval must not be negative, and --scrub-rate not be 0: --scrub-interval 0 turns it off")
	}
	if c.Foreign == "keep" {
		o.Foreign = apply.KeepForeign
	}
	if o.Protect, err = source.NewFilter(append(source.DefaultRules(), c.Protect...)...); err != nil {
		return fmt.Errorf("--protect: %w", err)
	}
	if k.Command() == "run" {
		defer cli.HoldBallast()()
		release, err := c.Hold()
		if err != nil {
			return err
		}
		defer release()
	}
	if k.Command() == "run" || c.Verify.Repair {
		if o.Transfers, err = c.Transfers.Open(string(site), c.Node, log); err != nil {
			return err
		}
		defer o.Transfers.Close()
	}
	conn, err := cli.Connect(ctx, to, k.Command() == "run")
	if err != nil {
		return err
	}
	defer conn.Close()
	if k.Command() == "verify" {
		return compare(ctx, conn, o, c.Verify, stdout)
	}
	return subscriber.Run(ctx, conn, o)
}

// compare is the verify command.
func compare(ctx context.Context, conn *stream.Conn, o subscriber.Options, how verify, stdout io.Writer) error {
	v, err := subscriber.Verify(ctx, conn, o, how.Checksum, how.Repair, func(d apply.Difference) {
		fmt.Fprintf(stdout, "%s %q\n", d.Itemized, d.Path)
	})
	if err != nil {
		return err
	}
	o.Log.Info("verified", "site", o.Site, "path", o.Root, "paths", v.Paths, "differences", v.Differences,
		"protected", v.Protected, "seq", v.Seq, "last_seq", v.LastSeq, "sealed", !v.Unsealed, "repaired", how.Repair)
	if how.Repair {
		v.Differences = v.Left
	}
	if v.Differences > 0 {
		return &cli.ExitError{Code: 1}
	}
	return nil
}
