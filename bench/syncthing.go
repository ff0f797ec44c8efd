package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"text/template"

	"treecast/bench/internal/rig"
)

//go:embed syncthing.xml
var syncthingConfig string

// syncthing is an instance at the source and one at each node. The first one
// knows all others, they know the first.
type syncthing struct {
	site
	source instance
	nodes  []instance
}

// An instance has fields for its configuration's template.
type instance struct {
	ID, Addr   string
	Path, Type string
	home       string
	Devices    []instance // that it talks to, itself among them
}

func syncthingNotes() []string {
	return []string{
		"syncthing serve --home=DIR --no-restart, for the source (sendonly) and for each node (receiveonly), connected directly",
		"fsWatcherDelayS=1, reconnectionIntervalS=1, setLowPriority=false; no discovery, relays, NAT traversal, GUI, reports and upgrades",
	}
}

func (s *syncthing) prepare(ctx context.Context) (err error) {
	if s.source, err = newInstance(ctx, s.trees.Source, "sendonly"); err != nil {
		return err
	}
	for _, root := range s.trees.Nodes {
		node, err := newInstance(ctx, root, "receiveonly")
		if err != nil {
			return err
		}
		node.Devices = []instance{s.source, node}
		s.nodes = append(s.nodes, node)
	}
	s.source.Devices = append([]instance{s.source}, s.nodes...)
	for _, i := range append([]instance{s.source}, s.nodes...) {
		if err := i.configure(); err != nil {
			return err
		}
	}
	return nil
}

// newInstance makes keys, and the marker without which a folder is not touched.
func newInstance(ctx context.Context, root, kind string) (instance, error) {
	i := instance{Path: root, Type: kind, home: root + ".syncthing"}
	if out, err := rig.Program(ctx, "syncthing", "generate", "--no-default-folder", "--skip-port-probing", "--home="+i.home).CombinedOutput(); err != nil {
		return i, fmt.Errorf("syncthing generate: %w\n%s", err, out)
	}
	var err error
	if i.ID, err = rig.FirstLine(ctx, "syncthing", "--home="+i.home, "--device-id"); err != nil {
		return i, err
	}
	if i.Addr, err = rig.FreeAddr(ctx); err != nil {
		return i, err
	}
	return i, os.Mkdir(filepath.Join(root, ".stfolder"), 0o755)
}

func (i instance) configure() error {
	f, err := os.Create(filepath.Join(i.home, "config.xml"))
	if err != nil {
		return err
	}
	defer f.Close()
	return template.Must(template.New("").Parse(syncthingConfig)).Execute(f, i)
}

func (s *syncthing) start(ctx context.Context, i instance, role string) (*rig.Daemon, error) {
	p, err := s.daemons.Start(ctx, role, filepath.Base(i.Path), "syncthing", "serve", "--home="+i.home, "--no-restart", "--no-browser", "--no-upgrade")
	if err != nil {
		return nil, err
	}
	return p, rig.Listens(ctx, i.Addr)
}

func (s *syncthing) startNode(ctx context.Context, node int) (*rig.Daemon, error) {
	return s.start(ctx, s.nodes[node], "node")
}

func (s *syncthing) startSource(ctx context.Context) error {
	_, err := s.start(ctx, s.source, "source")
	return err
}

func (*syncthing) carry(context.Context, rig.Change) error { return nil }
