package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"treecast/bench/internal/rig"
)

// treecast is a broker, a publisher and nodes as they are by default.
type treecast struct{ rig.Treecast }

func treecastNotes() []string {
	return append(rig.TreecastNotes(),
		"bytes: in_bytes and out_bytes of the broker's /varz",
		"objects: new messages in stream OBJ_"+rig.Site+"; a chunk has two, its data and what describes it, or more where the data is long",
		"memory: VmHWM at the end of a sequence",
	)
}

func (c *treecast) start(ctx context.Context) error {
	if err := c.StartBroker(ctx); err != nil {
		return err
	}
	if _, err := c.StartPublisher(ctx); err != nil {
		return err
	}
	for _, root := range c.Trees.Nodes {
		if _, err := c.StartNode(ctx, root); err != nil {
			return err
		}
	}
	return nil
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
	return traffic{bytes: known(was), objects: known(j.messages("OBJ_" + rig.Site))}, err
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
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Monitor+page, nil)
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

func (c *treecast) peaks() []peak {
	most := c.Daemons.Peaks()
	var all []peak
	for _, role := range []string{"broker", "publisher", "node"} {
		all = append(all, peak{role, most[role]})
	}
	return all
}
