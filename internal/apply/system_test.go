package apply_test

import (
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"treecast/internal/apply"
	"treecast/internal/events"
)

// TestSystem (P1 to P4): a source that is changed at random, a publisher that is
// killed in its rounds, a stream that is wiped or put back, a bucket that lacks
// chunks, and a node whose disk fails and whose power is cut at any call. At any
// time the node has only what once was at the source, all that it acked, and
// nothing older than it had; it deletes nothing without proof; and when all is
// quiet it is equal to the source.
func TestSystem(t *testing.T) {
	codec, err := events.NewCodec(1)
	if err != nil {
		t.Fatal(err)
	}
	defer codec.Close()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("/dev/shm", "treecast-test-")
		if err != nil {
			dir, err = os.MkdirTemp("", "treecast-test-")
		}
		must(t, err)
		t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
		a, top := filepath.Join(dir, "a"), filepath.Join(dir, "0")
		must(t, os.MkdirAll(a, 0o755))
		must(t, os.MkdirAll(filepath.Join(top, "html"), 0o755))
		must(t, os.WriteFile(filepath.Join(a, "keep"), nil, 0o644)) // or the guard has its say
		s := newSite(t, a, codec)
		n := &node{t: t, site: s, scratch: dir, top: top, acked: map[events.Path]int{}, others: map[events.Path]bool{}}
		t.Cleanup(n.stop)
		fault := func(t *rapid.T) (apply.Fault, int) {
			kind := rapid.SampledFrom([]apply.Fault{apply.FailBefore, apply.FailAfter, apply.Crash, apply.CrashNames}).Draw(t, "fault")
			return kind, rapid.IntRange(0, 100).Draw(t, "call")
		}
		up := func(t *rapid.T) {
			if n.core == nil {
				t.Skip("the node is down")
			}
		}
		none := func() bool { return false }
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { n.check("at work") },
			"change": func(t *rapid.T) {
				for range rapid.IntRange(1, 4).Draw(t, "changes") {
					s.tick++
					change(t, a, s.tick)
				}
			},
			"publish": func(t *rapid.T) {
				large := rapid.Bool().Draw(t, "large")
				limit := rapid.SampledFrom([]int{99, 99, 0, 1, 3}).Draw(t, "limit")
				s.publish(limit, func() bool { return large })
			},
			"lose chunks": func(t *rapid.T) {
				for d := range s.chunks {
					s.lacking[d] = true
				}
			},
			"find chunks": func(*rapid.T) { clear(s.lacking) },
			"deliver": func(t *rapid.T) {
				up(t)
				n.deliver(rapid.IntRange(1, 8).Draw(t, "most"), rapid.IntRange(0, 3).Draw(t, "again"))
			},
			"deliver badly": func(t *rapid.T) {
				up(t)
				n.power.Arm(fault(t))
				n.deliver(rapid.IntRange(1, 8).Draw(t, "most"), 0)
			},
			"retry": func(t *rapid.T) {
				up(t)
				n.retry()
			},
			"start": func(t *rapid.T) { n.start(apply.FailBefore, 0) },
			"start badly": func(t *rapid.T) {
				n.stop()
				n.start(fault(t))
			},
			"stop": func(*rapid.T) { n.stop() },
			"cut the power": func(*rapid.T) {
				n.stop()
				if n.power != nil {
					n.power.Arm(apply.Crash, 0)
					n.newDisk()
					n.stands = nil
				}
			},
			"compare": func(t *rapid.T) {
				up(t)
				if rapid.Bool().Draw(t, "concurrent") {
					s.reading = func() {
						s.tick++
						change(t, a, s.tick)
						s.publish(2, none)
					}
				}
				n.core.Compare()
				n.begin()
				s.reading = nil
			},
			"scrub": func(t *rapid.T) {
				up(t)
				n.scrub(func() {
					s.tick++
					change(t, a, s.tick)
					s.publish(rapid.SampledFrom([]int{99, 1, 2, 3}).Draw(t, "limit"), none)
					n.deliver(rapid.IntRange(1, 8).Draw(t, "most"), 0)
				})
			},
			"edit": func(t *rapid.T) { // the node's tree, by hand
				n.stop()
				before := look(t, n.root())
				s.tick++
				change(t, n.root(), s.tick)
				after := look(t, n.root())
				for p := range after {
					if before[p] != after[p] && !p.IsRoot() {
						n.others[p] = true
					}
				}
				for p := range before {
					if _, ok := after[p]; !ok {
						n.others[p] = true
					}
				}
				n.power = nil
			},
			"wipe": func(*rapid.T) {
				s.wipe()
				n.forget()
			},
			"restore": func(*rapid.T) {
				s.restore()
				n.forget()
			},
		})
		clear(s.lacking)
		s.publish(1000, none)
		n.start(apply.FailBefore, 0)
		n.power.Arm(apply.FailBefore, 0)
		if len(n.others) > 0 { // or a later comparison would find it
			n.core.Compare()
		}
		n.begin()
		for tries := 0; len(s.next(n.next)) > 0 || n.core.Held() > 0; tries++ {
			if tries == 50 {
				t.Fatalf("no end: %d are held", n.core.Held())
			}
			n.deliver(100, 0)
			n.retry()
		}
		n.check("in the end")
		have, want := look(t, n.root()), look(t, a)
		for p, e := range want {
			if have[p] != e {
				t.Logf("%q is %+v, want %+v", p, have[p], e)
				t.Fatal("P3 equal: a path differs")
			}
		}
		for p, e := range have {
			if _, ok := want[p]; !ok {
				t.Logf("%q is left: %+v", p, e)
				t.Fatal("P3 equal: something is left")
			}
		}
	})
}

// TestScrubOfWhatIsNoDirectoryAnyMore: a publisher was killed between a file in a
// directory's place and the tombstones of what was in that. A scrub that began
// before does not mend what is missing there.
func TestScrubOfWhatIsNoDirectoryAnyMore(t *testing.T) {
	codec, err := events.NewCodec(1)
	if err != nil {
		t.Fatal(err)
	}
	defer codec.Close()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "treecast-test-")
		must(t, err)
		t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
		a, top := filepath.Join(dir, "a"), filepath.Join(dir, "0")
		must(t, os.MkdirAll(filepath.Join(a, "d"), 0o755))
		must(t, os.MkdirAll(filepath.Join(top, "html"), 0o755))
		must(t, os.WriteFile(filepath.Join(a, "d", "f"), nil, 0o644))
		s := newSite(t, a, codec)
		n := &node{t: t, site: s, scratch: dir, top: top, acked: map[events.Path]int{}, others: map[events.Path]bool{}}
		t.Cleanup(n.stop)
		small := func() bool { return false }
		s.publish(99, small)
		n.start(apply.FailBefore, 0)
		n.scrub(func() {
			must(t, os.RemoveAll(filepath.Join(a, "d")))
			must(t, os.WriteFile(filepath.Join(a, "d"), nil, 0o644))
			s.publish(1, small)
			n.deliver(9, 0)
		})
		if st, err := os.Lstat(filepath.Join(n.root(), "d")); err != nil || !st.Mode().IsRegular() {
			t.Fatalf("what was a directory is a file at the source, here %v, %v", st, err)
		}
	})
}
