package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/sync/errgroup"

	"treecast/internal/broker"
	"treecast/internal/events"
	"treecast/internal/publisher"
	"treecast/internal/source"
	"treecast/internal/stream"
	"treecast/internal/subscriber"
)

type demo struct {
	Source   string   `help:"The tree to publish; made if it is missing." type:"path" required:"" placeholder:"DIR"`
	Node     []string `help:"A tree to keep equal; made if it is missing; repeat it for more nodes." type:"path" required:"" sep:"none" placeholder:"DIR"`
	StoreDir string   `help:"Where the stream is kept; a temporary directory by default." type:"path" placeholder:"DIR"`
	Listen   string   `help:"Address for the stock nats tool." default:"127.0.0.1:4222" placeholder:"HOST:PORT"`
}

// run is the whole of treecast in one process; nodes are named n1, n2, ...
func (d *demo) run(ctx context.Context, log *slog.Logger, stderr io.Writer) (err error) {
	for _, dir := range append([]string{d.Source}, d.Node...) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	store := d.StoreDir
	if store == "" {
		if store, err = os.MkdirTemp("", "treecast-demo-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(store)) }()
	}
	b, err := broker.Start(ctx, broker.Options{StoreDir: store, Listen: d.Listen, SyncAlways: true, Log: log})
	if err != nil {
		return err
	}
	defer b.Stop()
	fmt.Fprintf(stderr, "treecast demo: edit %s and see %q follow; Ctrl-C ends it\n", d.Source, d.Node)
	fmt.Fprintf(stderr, "look inside:   nats --server %s stream info web\n", b.URL())

	const site = events.Site("web")
	filter, err := source.NewFilter(source.DefaultRules()...)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		log := log.With("role", "publisher")
		conn, err := stream.Connect(ctx, stream.ConnectOptions{InProcess: b.InProcess(), Name: "publisher", Log: log})
		if err != nil {
			return err
		}
		defer conn.Close()
		return publisher.Run(ctx, conn, publisher.Options{Site: site, Root: d.Source, Filter: filter, Log: log})
	})
	for i, root := range d.Node {
		name := fmt.Sprintf("n%d", i+1)
		g.Go(func() error {
			log := log.With("role", name)
			conn, err := stream.Connect(ctx, stream.ConnectOptions{InProcess: b.InProcess(), Name: name, Log: log})
			if err != nil {
				return err
			}
			defer conn.Close()
			return subscriber.Run(ctx, conn, subscriber.Options{Site: site, Node: name, Root: root, Protect: filter, Log: log})
		})
	}
	return g.Wait()
}
