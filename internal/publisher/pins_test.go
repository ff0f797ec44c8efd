package publisher

import (
	"context"
	"errors"
	"testing"
	"time"

	"treecast/internal/events"
)

var object = events.Sum([]byte("object"))

func aside(t *testing.T, p *pins) (free bool) {
	t.Helper()
	pinned, err := p.Aside(object, func() error { free = true; return nil })
	if err != nil || pinned == free {
		t.Fatalf("pinned %t, free %t, %v", pinned, free, err)
	}
	return free
}

func pin(t *testing.T, p *pins, of *pinned) {
	t.Helper()
	if err := p.Pin(t.Context(), of, object); err != nil {
		t.Fatal(err)
	}
}

func TestPinsHoldWhatAnyUploadHolds(t *testing.T) {
	p := newPins()
	var a, b pinned
	pin(t, p, &a)
	pin(t, p, &a) // a file may have a chunk twice
	pin(t, p, &b)
	p.Release(&a, 0)
	if aside(t, p) {
		t.Fatal("it is another upload's")
	}
	p.Release(&b, 0)
	if !aside(t, p) {
		t.Fatal("it is nobody's")
	}
}

// What ceases to be pinned during a sweep may be named by what the sweep has
// not read.
func TestPinsLastUntilTheSweepEnds(t *testing.T) {
	p := newPins()
	var a, kept pinned
	end := p.Sweep()
	pin(t, p, &a)
	p.Release(&a, 0)
	if aside(t, p) {
		t.Fatal("it was pinned when the sweep began or later")
	}
	end()
	if !aside(t, p) {
		t.Fatal("the sweep has ended")
	}
	pin(t, p, &kept)
	p.Release(&kept, time.Hour)
	if p.Sweep()(); aside(t, p) {
		t.Fatal("it is to be kept")
	}
}

// What an upload that found no room has kept is the next one's business.
func TestWhatIsKeptIsForgotten(t *testing.T) {
	p := newPins()
	file, err := events.ParsePath("file")
	if err != nil {
		t.Fatal(err)
	}
	kept, other := pinned{path: file}, pinned{}
	pin(t, p, &kept)
	p.Release(&kept, time.Hour)
	p.Forget(events.Path.IsRoot)
	if aside(t, p) {
		t.Fatal("it is kept for another path")
	}
	end := p.Sweep()
	p.Forget(func(of events.Path) bool { return of == file })
	if aside(t, p) {
		t.Fatal("it was pinned when the sweep began")
	}
	pin(t, p, &other)
	if end(); aside(t, p) {
		t.Fatal("it is another upload's")
	}
	p.Release(&other, 0)
	if !aside(t, p) {
		t.Fatal("it is nobody's")
	}
}

// A pin waits for the collection's hand on the object, and finds what is left
// then.
func TestAPinWaitsForTheCollection(t *testing.T) {
	p := newPins()
	removed := false
	got := make(chan bool)
	_, err := p.Aside(object, func() error {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.Pin(ctx, &pinned{}, object); !errors.Is(err, context.Canceled) {
			t.Errorf("pinned: %v", err)
		}
		go func() {
			if err := p.Pin(t.Context(), &pinned{}, object); err != nil {
				t.Error(err)
			}
			got <- removed
		}()
		time.Sleep(10 * time.Millisecond) // it would show a pin that does not wait
		removed = true
		return nil
	})
	if err != nil || !<-got {
		t.Fatalf("it did not wait, %v", err)
	}
}
