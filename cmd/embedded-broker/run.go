package main

import (
	"context"
	"errors"
	"io"
	"sync"

	"treecast/internal/broker"
	"treecast/internal/cli"
)

const about = `A NATS server with JetStream in one binary, for trying treecast and for small sites. Production may use any NATS cluster.

Every flag can be set as TREECAST_<FLAG> in the environment.`

// command is the grammar of the command line.
type command struct {
	cli.VersionFlag
	cli.Logging `group:"Log"`

	Run  serve `cmd:"" default:"withargs" help:"Serve until stopped (the default)."`
	Demo demo  `cmd:"" help:"Broker, publisher and nodes in one process, to try it."`
}

type serve struct {
	cli.PIDFile

	StoreDir string `help:"Where streams are kept." type:"path" placeholder:"DIR"`
	Listen   string `help:"Address for clients; 127.0.0.1:4222 if --config has none." placeholder:"HOST:PORT"`
	Monitor  string `help:"Address for HTTP monitoring; 127.0.0.1:8222 if there is no --config." placeholder:"HOST:PORT"`
	Config   string `help:"A stock nats-server configuration: users, permissions, TLS, clustering." type:"existingfile" placeholder:"FILE"`
}

// run is the program.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var c command
	k, err := cli.Parse("embedded-broker", about, &c, args, stdout, stderr)
	if err != nil || k == nil {
		return err
	}
	log := c.Logger(stderr)
	if k.Command() == "demo" {
		return c.Demo.run(ctx, log, stderr)
	}
	o := broker.Options{
		StoreDir: c.Run.StoreDir, Listen: c.Run.Listen, Monitor: c.Run.Monitor, ConfigFile: c.Run.Config,
		SyncAlways: true, Log: log,
	}
	if o.ConfigFile == "" {
		if o.StoreDir == "" {
			return errors.New("--store-dir is missing: where are streams to be kept?")
		}
		if o.Listen == "" {
			o.Listen = "127.0.0.1:4222"
		}
		if o.Monitor == "" {
			o.Monitor = "127.0.0.1:8222"
		}
	}
	defer cli.HoldBallast()()
	release, err := c.Run.Hold()
	if err != nil {
		return err
	}
	defer release()
	memory, err := machineLimit()
	if err != nil {
		return err
	}
	limited, unlimit := context.WithCancel(ctx)
	var g sync.WaitGroup
	g.Go(func() { memory.hold(limited) })
	defer g.Wait()
	defer unlimit()
	b, err := broker.Start(ctx, o)
	if err != nil {
		return err
	}
	log.Info("serving", "url", b.URL())
	<-ctx.Done()
	b.Stop()
	return nil
}
