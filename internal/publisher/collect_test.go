package publisher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"treecast/internal/broker"
	"treecast/internal/events"
	"treecast/internal/stream"
)

const site = events.Site("web")

// connect returns a connection to a broker of its own.
func connect(t *testing.T) *stream.Conn {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	b, err := broker.Start(t.Context(), broker.Options{StoreDir: t.TempDir(), DontListen: true, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	c, err := stream.Connect(t.Context(), stream.ConnectOptions{InProcess: b.InProcess(), Name: "publisher", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestNothingNamedIsCollected: large files of a few bodies come, go, move and
// come back while the collection, with next to no grace, removes what has no
// name. At no time does an entry that lives lack an object.
func TestNothingNamedIsCollected(t *testing.T) {
	c := connect(t)
	root := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		o := Options{Site: site, Root: root, ConfirmDelete: true, GCGrace: time.Nanosecond, Log: slog.New(slog.DiscardHandler)}
		if err := Run(ctx, c, o); err != nil {
			t.Error(err)
		}
	})
	done := make(chan struct{})
	running.Go(func() {
		defer close(done)
		rewrite(t, root, 250)
	})
	codec, err := events.NewCodec(1)
	if err != nil {
		t.Fatal(err)
	}
	defer codec.Close()
	checks, checking := 0, true
	for checking {
		select {
		case <-done:
			checking = false
		default:
		}
		checks += lacking(t, c, codec)
	}
	t.Log("live entries looked at:", checks)
	// In the end the bucket has what is named, and no more.
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		garbage := 0
		if err := FindGarbage(t.Context(), c, site, func(Garbage) { garbage++ }); err != nil {
			t.Fatal(err)
		}
		if garbage == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d objects are left", garbage)
		}
	}
	stop()
	running.Wait()
}

// rewrite does so many random changes of a few large files.
func rewrite(t *testing.T, root string, changes int) {
	r := rand.New(rand.NewPCG(1, 2))
	bodies := make([][]byte, 5)
	for i := range bodies {
		bodies[i] = make([]byte, 600<<10+i*300<<10)
		for at := range bodies[i] {
			bodies[i][at] = byte(r.Uint32())
		}
	}
	file := func() string { return filepath.Join(root, fmt.Sprint("file", r.IntN(4))) }
	for range changes {
		var err error
		switch r.IntN(4) {
		case 0:
			err = os.Remove(file())
		case 1:
			err = os.Rename(file(), file())
		default:
			next := filepath.Join(root, ".next.swp") // left out by the defaults; renamed into place
			if err = os.WriteFile(next, bodies[r.IntN(len(bodies))], 0o644); err == nil {
				err = os.Rename(next, file())
			}
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond) // changes come one by one, and in bursts
	}
}

// lacking looks at every entry that lives, and fails the test if one lacks an
// object and still lives then. It returns how many it saw.
func lacking(t *testing.T, c *stream.Conn, codec *events.Codec) int {
	t.Helper()
	var seqs []uint64
	if _, err := c.Snapshot(t.Context(), site, func(seq uint64, subject, header string) error {
		e, err := events.Decode(site, subject, header)
		if err == nil && e.Body == events.ChunksBody {
			seqs = append(seqs, seq)
		}
		return err
	}); err != nil && !errors.Is(err, stream.ErrNoStream) {
		t.Fatal(err)
	}
	if err := c.Fetch(t.Context(), site, seqs, func(d stream.Delivery) error {
		e, err := events.Decode(site, d.Subject, d.Header)
		if err != nil {
			return err
		}
		list, err := codec.List(&e, d.Payload)
		if err != nil {
			return err
		}
		digests := make([]events.Digest, len(list))
		for i := range list {
			digests[i] = list[i].Digest
		}
		err = c.Bodies(site).Get(t.Context(), digests, func(i int, data []byte, compressed bool) error {
			_, err := codec.OpenChunk(list[i], data, compressed, nil)
			return err
		})
		if err == nil {
			return nil
		}
		now, eerr := c.Entry(t.Context(), site, e.Path)
		if eerr != nil || now != nil && now.Seq == d.Seq {
			t.Errorf("entry %d of %s lives: %v, %v", d.Seq, e.Path, err, eerr)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return len(seqs)
}
