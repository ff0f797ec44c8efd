package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"treecast/internal/events"
	"treecast/internal/stream"
	"treecast/internal/subscriber"
)

// A Barrier says what Wait waits for.
type Barrier struct {
	Site    events.Site
	Nodes   []string // none: all that have a consumer
	Scan    bool     // the publisher looks at every path
	Timeout time.Duration
}

const (
	startPatience = 2 * time.Second // for a publisher that is being restarted
	shortestPoll  = time.Millisecond
	longestPoll   = 250 * time.Millisecond
)

// Wait returns nil when all that stood at the source when it was called is on
// the nodes, durable there, in that state or a later one.
//
// An [*ExitError] with code 1 has a line for each node or path of which that is
// not so, when the time is over or when waiting cannot help: the source is
// halted, a path is refused. Any other error says that nobody could tell: no
// broker or no publisher answers.
func Wait(ctx context.Context, to stream.ConnectOptions, b Barrier) error {
	deadline := time.Now().Add(b.Timeout)
	conn, err := Ask(ctx, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	source, err := published(ctx, conn, b)
	if err != nil {
		return err
	}
	stored, err := conn.NextTime(ctx, b.Site, source.Seq-1)
	if err != nil {
		return err
	}
	names := b.Nodes
	if len(names) == 0 {
		nodes, err := conn.Nodes(ctx, b.Site)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			names = append(names, n.Name)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	lacks := make([]string, len(names))
	var g errgroup.Group
	for i, name := range names {
		g.Go(func() (err error) {
			lacks[i], err = arrived(ctx, conn, b.Site, name, source, stored)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return lacking(slices.DeleteFunc(lacks, func(s string) bool { return s == "" }))
}

// lacking is the error that says what is not where it should be, a line each.
func lacking(lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	return &ExitError{Code: 1, Err: errors.New("not everywhere:\n  " + strings.Join(lines, "\n  "))}
}

// published returns the publisher's word that all is in the stream.
func published(ctx context.Context, conn *stream.Conn, b Barrier) (stream.BarrierState, error) {
	var state stream.BarrierState
	silent := time.Now()
	for {
		got, err := conn.Barrier(ctx, b.Site, stream.BarrierRequest{Instance: state.Instance, Generation: state.Generation, Scan: b.Scan})
		switch {
		case ctx.Err() != nil:
			return state, lacking(unpublished(state, "the publisher did not say that all is published"))
		case errors.Is(err, stream.ErrSilent) && time.Since(silent) < startPatience:
			_ = sleep(ctx, longestPoll) // if it ends early, the time is over
			continue
		case errors.Is(err, stream.ErrSilent):
			return state, fmt.Errorf("no publisher answers for site %s: does one run there?", b.Site)
		case err != nil:
			return state, err
		}
		state, silent = got, time.Now()
		switch {
		case state.Halted != "" || state.Seq != 0 && state.Count > 0:
			return state, lacking(unpublished(state, ""))
		case state.Seq == 0:
			continue
		}
		// One that was taken over and does not know it yet answers for its own
		// tree, and not for the site's.
		last, err := conn.LastHolder(ctx, b.Site)
		if err == nil && last.Instance == state.Instance {
			return state, nil
		}
		if err != nil && ctx.Err() == nil {
			return state, err
		}
		state = stream.BarrierState{}
		_ = sleep(ctx, longestPoll)
	}
}

// unpublished tells what the publisher has not published.
func unpublished(state stream.BarrierState, otherwise string) (lines []string) {
	if state.Halted != "" {
		lines = append(lines, "source: halted: "+state.Halted)
	}
	for _, c := range state.Unpublished {
		lines = append(lines, fmt.Sprintf("source: %s: %s", c.Path, c.Reason))
	}
	if more := state.Count - len(state.Unpublished); more > 0 {
		lines = append(lines, fmt.Sprintf("source: and %d more", more))
	}
	if len(lines) == 0 {
		lines = append(lines, "source: "+otherwise)
	}
	return lines
}

// arrived returns "" when the node has all that the source told of, or what it
// lacks when ctx has ended or waiting cannot help.
//
// The node's own watermark decides, not the consumer's ack floor: that is moved
// by a reconcile past what it leaves to be fetched.
func arrived(ctx context.Context, conn *stream.Conn, site events.Site, name string, source stream.BarrierState, stored time.Time) (lacks string, err error) {
	for poll := shortestPoll; ; poll = min(poll*2, longestPoll) {
		answer, err := conn.AskNode(ctx, site, name)
		var s subscriber.Status
		switch {
		case ctx.Err() != nil:
			if lacks == "" {
				lacks = name + ": was not asked in time"
			}
			return lacks, nil
		case errors.Is(err, stream.ErrSilent):
			lacks = name + ": does not answer"
		case err != nil:
			return "", err
		case json.Unmarshal(answer, &s) != nil:
			lacks = name + ": says what is not understood; is its version another one?"
		case has(&s, &source, stored):
			lease, err := conn.LeaseSeq(ctx, site)
			switch {
			case err != nil:
				return "", err
			case s.Epoch > lease:
				lacks = name + ": has not noticed that the stream went back"
			case s.ParkAll > 0:
				return causes(name, "refused", s.Parked, s.ParkAll), nil
			default:
				return "", nil
			}
		case s.Halted != "":
			lacks = name + ": halted: " + s.Halted
		case s.HeldAll > 0:
			lacks = causes(name, "held", s.Held, s.HeldAll)
		default:
			lacks = fmt.Sprintf("%s: at %d of %d", name, s.Seq, source.Seq)
		}
		if err := sleep(ctx, poll); err != nil {
			return lacks, nil
		}
	}
}

// has reports whether a node has the message at source.Seq, which was stored no
// later than stored. A watermark of another stream, or from before this one went
// back, says nothing of these sequences, and even its lease may have the present
// one's: but of a message as new as that it cannot know.
func has(s *subscriber.Status, source *stream.BarrierState, stored time.Time) bool {
	return s.Stream.Equal(source.Stream) && s.Epoch >= source.Epoch && s.Seq >= source.Seq && !s.Known.Before(stored)
}

// causes is a line for each path that is held or refused.
func causes(name, what string, list []stream.Cause, count int) string {
	var lines []string
	for _, c := range list {
		lines = append(lines, fmt.Sprintf("%s: %s: %s: %s", name, what, c.Path, c.Reason))
	}
	if more := count - len(list); more > 0 {
		lines = append(lines, fmt.Sprintf("%s: %s: and %d more", name, what, more))
	}
	return strings.Join(lines, "\n  ")
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
