package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"
)

const site = "web"

// build makes the three commands in dir, from the module that we are run in.
func build(ctx context.Context, dir string) error {
	cmd := program(ctx, "go", "build", "-trimpath", "-buildvcs=auto", "-o", dir+"/", "treecast/cmd/...")
	cmd.Env = append(cmd.Env, "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); ctx.Err() != nil {
		return context.Cause(ctx)
	} else if err != nil {
		return fmt.Errorf("go build, which must be in the repository: %w\n%s", err, out)
	}
	return nil
}

// treecast is a broker, a publisher and nodes as they are by default.
type treecast struct {
	daemons *daemons
	trees   trees
	bin     string // the directory with the commands
	monitor string // the broker's, http://HOST:PORT
	pids    []pid
}

type pid struct {
	name   string
	number int
}

func brokerArgs(store, listen, monitor string) []string {
	return []string{"--store-dir", store, "--listen", listen, "--monitor", monitor}
}

func publisherArgs(broker, root string) []string {
	return []string{"--nats", "nats://" + broker, "--site", site, "--root", root}
}

func subscriberArgs(broker, node, root string) []string {
	return []string{"--nats", "nats://" + broker, "--site", site, "--node", node, "--root", root}
}

func treecastNotes() []string {
	return []string{
		"embedded-broker " + strings.Join(brokerArgs("DIR", "HOST:PORT", "HOST:PORT"), " "),
		"publisher " + strings.Join(publisherArgs("HOST:PORT", "SOURCE"), " "),
		"subscriber " + strings.Join(subscriberArgs("HOST:PORT", "NODE", "NODE"), " ") + " (a process for each node)",
		"bytes: in_bytes and out_bytes of the broker's /varz",
		"objects: new messages in stream OBJ_" + site + "; a chunk has two, its data and what describes it, or more where the data is long",
		"memory: VmHWM at the end of a sequence",
	}
}

func (c *treecast) start(ctx context.Context) error {
	listen, err := freeAddr(ctx)
	if err != nil {
		return err
	}
	monitor, err := freeAddr(ctx)
	if err != nil {
		return err
	}
	c.monitor = "http://" + monitor
	if err := c.run(ctx, "broker", "broker", "embedded-broker", brokerArgs(filepath.Join(c.trees.dir, "store"), listen, monitor)); err != nil {
		return err
	}
	for _, addr := range []string{listen, monitor} {
		if err := listens(ctx, addr); err != nil {
			return err
		}
	}
	if err := c.run(ctx, "publisher", "publisher", "publisher", publisherArgs(listen, c.trees.source)); err != nil {
		return err
	}
	for _, root := range c.trees.nodes {
		name := filepath.Base(root)
		if err := c.run(ctx, "node", name, "subscriber", subscriberArgs(listen, name, root)); err != nil {
			return err
		}
	}
	return nil
}

func (c *treecast) run(ctx context.Context, role, name, command string, args []string) error {
	number, err := c.daemons.start(ctx, name, filepath.Join(c.bin, command), args...)
	c.pids = append(c.pids, pid{role, number})
	return err
}

func (*treecast) carry(context.Context, step) error { return nil }

// rest waits until no byte goes through the broker for a while. A node's report
// on itself, which comes from time to time, may be counted too: a few hundred
// bytes.
func (c *treecast) rest(ctx context.Context) (traffic, error) {
	const quiet = 4 // readings
	var was int64
	for same, n := 0, 0; same < quiet && n < 100; n++ {
		var v struct {
			In  int64 `json:"in_bytes"`
			Out int64 `json:"out_bytes"`
		}
		if err := c.ask(ctx, "/varz", &v); err != nil {
			return traffic{}, err
		}
		if now := v.In + v.Out; now != was {
			was, same = now, 0
		} else {
			same++
		}
		select {
		case <-ctx.Done():
			return traffic{}, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
	var j jsz
	err := c.ask(ctx, "/jsz?accounts=true&streams=true", &j)
	return traffic{bytes: known(was), objects: known(j.messages("OBJ_" + site))}, err
}

// A jsz is the part of the broker's report on JetStream that has the streams.
type jsz struct {
	Accounts []struct {
		Streams []struct {
			Name  string `json:"name"`
			State struct {
				Messages int64 `json:"messages"`
			} `json:"state"`
		} `json:"stream_detail"`
	} `json:"account_details"`
}

// messages returns how many a stream has, 0 if there is no such stream.
func (j *jsz) messages(stream string) (n int64) {
	for _, a := range j.Accounts {
		for _, s := range a.Streams {
			if s.Name == stream {
				n += s.State.Messages
			}
		}
	}
	return n
}

// ask reads a page of the broker's monitor.
func (c *treecast) ask(ctx context.Context, page string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.monitor+page, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // all that matters was read, or was not
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		return fmt.Errorf("%s, %s: %w", page, response.Status, err)
	}
	return nil
}

func (c *treecast) peaks() ([]peak, error) {
	var all []peak
	for _, p := range c.pids {
		n, err := peakMemory(p.number)
		if err != nil {
			return nil, fmt.Errorf("memory of %s: %w", p.name, err)
		}
		all = append(all, peak{p.name, n})
	}
	return all, nil
}
