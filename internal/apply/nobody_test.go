package apply

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"treecast/internal/events"
)

// TestNotRoot runs the TestNobody... tests in a process without rights.
func TestNotRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		unable(t, "takes root, to give it up")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNobody", "-test.v")
	cmd.Env = append(os.Environ(), dropEnv+"=1", "GOCOVERDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestNobodyApplies") {
		t.Errorf("%v\n%s", err, out)
	}
}

func asNobody(t *testing.T) {
	t.Helper()
	if os.Getenv(dropEnv) == "" {
		t.Skip("run by TestNotRoot")
	}
	if os.Geteuid() != nobody {
		t.Fatal("still root")
	}
}

func TestNobodyApplies(t *testing.T) {
	asNobody(t)
	b := newBench(t)
	items := []item{dir("d"), reg("d/f", "x"), reg("d/none", "x").with(0), link("d/l", "f"), fifo("d/p"), dir(".").at(5)}
	for i := range items {
		items[i].uid, items[i].gid = 0, 0 // which we cannot give
	}
	b.apply(items...)
	n := b.tree.Denied().Owners
	if n == 0 || strings.Count(b.log.String(), "owner or group could not be set") != 1 {
		t.Error(n, b.log)
	}
	for _, it := range items {
		if it.path == "d/none" {
			// Not even we can read it, so that it is written again.
			if st, err := os.Lstat(b.path(it.path)); err != nil || st.Mode() != 0 || st.Size() != 1 {
				t.Error(st, err)
			}
			continue
		}
		it.uid, it.gid = me()
		b.check(it)
		it.uid, it.gid = 0, 0
		b.want(b.apply(it), Unchanged)
	}
	b.differences(entries(items...), false)

	// setgid for a group that we are not in.
	s := reg("setgid", "x").with(0o2755)
	s.gid = 1
	b.want(b.apply(s), Created)

	// A device cannot be made, and is not missed.
	null := newItem(events.CharDevice, "null", 0o666, "")
	b.want(b.apply(null, items[5]), Skipped)
	if b.tree.Denied().Devices == 0 {
		t.Error("not counted")
	}
	s.gid = nobody
	b.differences(entries(append(items, null, s)...), false)
}

func TestNobodyWritesInClosedDirectories(t *testing.T) {
	asNobody(t)
	for _, mode := range []uint16{0o555, 0o000, 0o1444, 0o111, 0o300} {
		b := newBench(t)
		root, d, e := dir(".").at(3).with(0o555), dir("d").at(4).with(mode), dir("d/e").at(5).with(mode)
		f, g := reg("d/e/f", "f"), reg("d/e/g", "g")
		// As one group, then each for itself.
		b.apply(d, e, f, root)
		look := func(what string, items ...item) {
			t.Helper()
			// From outside we are kept out, too.
			for _, it := range []item{root, d} {
				if diff := differs(b.root, it); diff != "" {
					t.Errorf("%o %s: %q %s", mode, what, it.path, diff)
				}
			}
			must(t, unix.Chmod(b.path("d"), 0o700))
			if diff := differs(b.root, e); diff != "" {
				t.Errorf("%o %s: %q %s", mode, what, e.path, diff)
			}
			must(t, unix.Chmod(b.path("d/e"), 0o700))
			b.check(items...)
			must(t, unix.Chmod(b.path("d/e"), uint32(mode)))
			must(t, unix.Chmod(b.path("d"), uint32(mode)))
		}
		look("new", f)
		b.want(b.apply(g), Created)
		look("added", f, g)
		f.body = "changed"
		b.want(b.apply(f), Updated)
		look("changed", f, g)
		b.want(b.apply(gone("d/e/f")), Deleted)
		look("deleted", gone("d/e/f"), g)
		b.want(b.apply(link("d/e/g", "x")), Updated)
		b.want(b.apply(dir("d/e/g").with(mode), e), Updated)
		b.want(b.apply(reg("d/e/g", "g"), e), Updated)
		look("swapped", g)
		b.want(b.apply(gone("d/e")), Deleted)
		if got := differs(b.root, d); got != "" {
			t.Errorf("%o: %s", mode, got)
		}
		b.want(b.apply(reg("d", "file"), root), Updated)
		b.check(reg("d", "file"), root)
		must(t, unix.Chmod(b.root, 0o755))
		for _, name := range trashedTops(t, b) {
			must(t, os.Chmod(name, 0o700))
		}
		b.opts.TrashKeep = 1
		b.reopen()
		if left, err := os.ReadDir(b.staging() + "/" + trashName); err != nil || len(left) > 0 {
			t.Errorf("%o: in the trash: %v %v", mode, left, err)
		}
	}
}

func trashedTops(t *testing.T, b *bench) []string {
	t.Helper()
	batches, err := os.ReadDir(b.staging() + "/" + trashName)
	must(t, err)
	var tops []string
	for _, batch := range batches {
		tops = append(tops, b.staging()+"/"+trashName+"/"+batch.Name())
	}
	return tops
}

func TestNobodyMayNotWriteElsewhere(t *testing.T) {
	asNobody(t)
	top := t.TempDir()
	b := benchAt(t, top)
	// Beside the root we may not write, so the staging is in it.
	must(t, os.Chmod(top, 0o555))
	b.reopen()
	b.apply(reg("f", "x"))
	b.check(reg("f", "x"))
	b.close()
	must(t, os.Chmod(top, 0o755))
	o := b.opts
	o.Root = "/etc"
	if _, err := Open(o); !errors.Is(err, ErrStaging) || !errors.Is(err, syscall.EACCES) {
		t.Error(err)
	}
}
