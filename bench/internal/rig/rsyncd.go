package rig

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// An Rsyncd is the rsync daemon of one node.
type Rsyncd struct {
	Root string
	URL  string // of the tree
	addr string
}

// RsyncdNote says how it is run.
const RsyncdNote = "rsync --daemon --no-detach --config=FILE (one for each node)"

// NewRsyncd writes the daemon's configuration beside the tree.
func NewRsyncd(ctx context.Context, root string) (*Rsyncd, error) {
	addr, err := FreeAddr(ctx)
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf("address = %s\nport = %s\nuse chroot = no\nuid = %d\ngid = %d\n[tree]\npath = %s\nread only = no\n",
		host, port, os.Getuid(), os.Getgid(), root)
	return &Rsyncd{Root: root, URL: "rsync://" + addr + "/tree/", addr: addr}, os.WriteFile(root+".conf", []byte(text), 0o644)
}

// Start returns when the daemon takes connections.
func (r *Rsyncd) Start(ctx context.Context, d *Daemons) (*Daemon, error) {
	p, err := d.Start(ctx, "node", filepath.Base(r.Root), "rsync", "--daemon", "--no-detach", "--config="+r.Root+".conf")
	if err != nil {
		return nil, err
	}
	return p, Listens(ctx, r.addr)
}
