package stream

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"treecast/internal/events"
)

func TestInterruptedPut(t *testing.T) {
	s, l, b := newBucketSite(t, Config{})
	data := body(1, 4<<20)
	d := events.Sum(data)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	want(t, b.Put(ctx, d, data, false), context.Canceled)
	absent(t, b, d)
	var errs []error
	for i := range 6 {
		var g errgroup.Group
		for n := range 8 {
			data := body(100*i+n, 4<<20)
			g.Go(func() error { return b.Put(t.Context(), events.Sum(data), data, false) })
		}
		g.Go(func() error {
			time.Sleep(time.Duration(i) * 5 * time.Millisecond)
			s.restart(nil, l.c)
			return nil
		})
		errs = append(errs, g.Wait())
		for n := range 8 { // whole, or not there
			data := body(100*i+n, 4<<20)
			got, err := get(t, l.c, events.Sum(data))
			if err == nil && !bytes.Equal(got[0], data) || err != nil && !errors.Is(err, ErrNoObject) {
				t.Errorf("round %d: %d bytes, %v", i, len(got[0]), err)
			}
		}
	}
	for _, err := range errs {
		if err != nil && !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrDisconnected) && !errors.Is(err, ErrUnavailable) &&
			!errors.Is(err, ErrNoStream) {
			t.Errorf("interrupted by a restart: %v", err)
		}
	}
	// What is left of it all is found, and is only that.
	if err := b.Orphans(t.Context(), false, func(nuid string, _ int64, _ time.Time) error { return b.DeleteOrphan(t.Context(), nuid) }); err != nil {
		t.Fatal(err)
	}
	objects := 0
	if err := b.Objects(t.Context(), nil, func(o Object) error {
		objects++
		if got, err := get(t, l.c, o.Digest); err != nil || events.Sum(got[0]) != o.Digest {
			t.Errorf("%d bytes, %v", len(got[0]), err)
		}
		return nil
	}); err != nil || objects != uploadsOf(t, l.c) {
		t.Errorf("%d objects, %d uploads, %v", objects, uploadsOf(t, l.c), err)
	}
}

// What is still on its way after an unknown outcome cannot land any more once
// the bucket was asked again.
func TestLateMetaIsRefused(t *testing.T) {
	_, l, b := newBucketSite(t, Config{})
	data := body(1, 1000)
	d := put(t, b, data)
	o := object(t, b, d)
	late := b.fence
	_ = b.unknown(errors.New("no answer")) // of a deletion, say
	if found := object(t, b, d); found.nuid != o.nuid {
		t.Fatal("another object")
	}
	if b.fence == late {
		t.Fatal("the fence has not moved")
	}
	now := b.fence
	b.fence = late
	_, err := b.fenced(t.Context(), metaSubject(site, d.String()), []byte("{}"), 0)
	b.fence = now
	want(t, err, errRefused)
	wantBody(t, l.c, data)
}

// Uploads beside each other end with the first one's error, as the cause of
// their context: that says nothing of a meta that is on its way.
func TestAnErrorOfAnotherPutIsNotOurs(t *testing.T) {
	_, _, b := newBucketSite(t, Config{})
	for _, cause := range []error{&jetstream.APIError{ErrorCode: codeStoreFailed}, ErrDenied, ErrNoStream} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		_, err := b.fenced(ctx, metaSubject(site, events.Sum(nil).String()), []byte("{}"), 0)
		if err == nil {
			continue // it was answered before that was looked at
		}
		if want(t, err, ErrUnknown); !b.unsure {
			t.Error("nothing is on its way")
		}
		b.unsure = false
	}
}

func TestOrphans(t *testing.T) {
	_, l, b := newBucketSite(t, Config{})
	kept := body(1, 1<<20)
	d := put(t, b, kept)
	deleted := put(t, b, body(2, 1<<20))
	if err := b.Delete(t.Context(), object(t, b, deleted)); err != nil {
		t.Fatal(err)
	}
	crashed := body(3, 1<<20)
	if _, err := b.upload(t.Context(), events.Sum(crashed).String(), "CRASHED", crashed); err != nil {
		t.Fatal(err)
	}
	// A second upload of what there is, one that is under way, and a stranger's.
	if _, err := b.upload(t.Context(), d.String(), "SECOND", kept); err != nil {
		t.Fatal(err)
	}
	landed := b.fly("FLYING")
	if _, err := b.upload(t.Context(), d.String(), "FLYING", kept); err != nil {
		t.Fatal(err)
	}
	if _, err := l.c.js.Publish(t.Context(), dataSubject(site, "FOREIGN"), []byte("x")); err != nil {
		t.Fatal(err)
	}
	orphans := func(b *Bucket) map[string]int64 {
		found := map[string]int64{}
		if err := b.Orphans(t.Context(), false, func(nuid string, bytes int64, newest time.Time) error {
			found[nuid] = bytes
			if time.Since(newest) > time.Minute {
				t.Errorf("newest is of %s", newest)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return found
	}
	if found := orphans(b); len(found) != 2 || found["CRASHED"] != 1<<20 || found["SECOND"] != 1<<20 {
		t.Errorf("orphans %v", found)
	}
	read, err := l.c.ReadBucket(t.Context(), site)
	if err != nil {
		t.Fatal(err)
	}
	if found := orphans(read); len(found) != 3 {
		t.Errorf("orphans, read only: %v", found)
	}
	want(t, read.DeleteOrphan(t.Context(), "CRASHED"), ErrNoLease)
	for _, nuid := range []string{"FLYING", "FOREIGN", ">", "*", "", object(t, b, d).nuid} {
		want(t, b.DeleteOrphan(t.Context(), nuid), ErrNoOrphan)
	}
	for _, nuid := range []string{"CRASHED", "SECOND"} {
		if err := b.DeleteOrphan(t.Context(), nuid); err != nil {
			t.Error(err)
		}
	}
	landed()
	if found := orphans(b); len(found) != 1 || found["FLYING"] == 0 {
		t.Errorf("orphans %v", found)
	}
	wantBody(t, l.c, kept)
}
