package publisher

import (
	"testing"
	"testing/synctest"
	"time"

	"treecast/internal/events"
	"treecast/internal/source"
)

func path(t *testing.T, s string) events.Path {
	t.Helper()
	p, err := events.ParsePath(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestHintsSettle: a path is due when it was quiet, and at the latest a
// second after its first hint.
func TestHintsSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDirtySet(2 * time.Millisecond)
		p := path(t, "log")
		d.Hint([]source.Hint{{Path: p}})
		if tasks, wait := d.Take(time.Now()); len(tasks) != 0 || wait != 2*time.Millisecond {
			t.Fatalf("taken at once: %v, wait %v", tasks, wait)
		}
		start := time.Now()
		for {
			d.Hint([]source.Hint{{Path: p}})
			tasks, _ := d.Take(time.Now())
			if len(tasks) == 1 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(start); took < settleCap-2*time.Millisecond || took > settleCap {
			t.Errorf("a path that is never quiet was due after %v", took)
		}
		if tasks, wait := d.Take(time.Now()); len(tasks) != 0 || wait >= 0 {
			t.Errorf("the set is not empty: %v, %v", tasks, wait)
		}
	})
}

// TestRetryBacksOff: attempts double the wait up to the limit; a hint brings
// the path forward and keeps the count.
func TestRetryBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDirtySet(2 * time.Millisecond)
		tk := task{path: path(t, "busy")}
		for want := 4 * time.Millisecond; want < 2*time.Second; want *= 2 {
			d.Retry(tk, time.Second)
			_, wait := d.Take(time.Now())
			if wait != min(want, time.Second) {
				t.Fatalf("attempt %d: wait %v, want %v", tk.attempts, wait, want)
			}
			time.Sleep(wait)
			tasks, _ := d.Take(time.Now())
			if len(tasks) != 1 {
				t.Fatal("not due")
			}
			tk = tasks[0]
		}
		d.Retry(tk, time.Second)
		d.Hint([]source.Hint{{Path: tk.path, Deep: true}})
		time.Sleep(2 * time.Millisecond)
		tasks, _ := d.Take(time.Now())
		if len(tasks) != 1 || !tasks[0].deep || tasks[0].attempts != tk.attempts+1 {
			t.Errorf("after a hint: %+v", tasks)
		}
	})
}

// TestBarriersOutlastRetries: a generation is left until each of its paths was
// taken and not put back; later hints of others do not count.
func TestBarriersOutlastRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDirtySet(2 * time.Millisecond)
		a, b := path(t, "a"), path(t, "b")
		d.Hint([]source.Hint{{Path: a}})
		before := d.Close()
		d.Hint([]source.Hint{{Path: a}, {Path: b}})
		take := func() []task {
			time.Sleep(10 * time.Second)
			tasks, _ := d.Take(time.Now())
			return tasks
		}
		for range 3 { // busy
			if !d.Left(before) {
				t.Fatal("passed while a is dirty")
			}
			for _, tk := range take() {
				if tk.path == a {
					d.Retry(tk, time.Second)
					d.Hint([]source.Hint{{Path: a}})
				}
			}
		}
		take()
		d.Hint([]source.Hint{{Path: a}, {Path: b}})
		if d.Left(before) {
			t.Error("later hints hold the barrier")
		}
		if !d.Left(d.Close()) {
			t.Error("a barrier after the hints is passed")
		}
		take()
		d.Again(source.Hint{Path: b})
		if !d.Left(before) {
			t.Error("what moved on under a round is forgotten")
		}
	})
}
