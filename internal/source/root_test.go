package source

import (
	"errors"
	"os"
	"testing"
	"time"
)

func TestRootRemoved(t *testing.T) {
	tree, root := open(t, Options{PollInterval: 10 * time.Millisecond})
	mkdir(t, root+"/d")
	v := watch(t, tree)
	must(t, os.RemoveAll(root))
	v.until("hint of the root", func(h []Hint) bool { return hinted(h, pathOf(t, ".")) })
	rootLost(t, tree)
	mkdir(t, root) // another one
	mkdir(t, root+"/d")
	rootLost(t, tree)
	wait(t, "degraded", func() bool { return v.w.State().Degraded })
}

func TestRootRenamedAwayAndBack(t *testing.T) {
	tree, root := open(t, Options{PollInterval: 10 * time.Millisecond})
	mkdir(t, root+"/d")
	v := watch(t, tree)
	must(t, os.Rename(root, root+".away"))
	v.until("hint of the root", func(h []Hint) bool { return hinted(h, pathOf(t, ".")) })
	rootLost(t, tree)
	wait(t, "degraded", func() bool { return v.w.State().Degraded })
	write(t, root+".away/d/f", "written while away")
	must(t, os.Rename(root+".away", root))
	v.until("deep hint of the root", func(h []Hint) bool { return covered(h, pathOf(t, "no/such")) })
	wait(t, "recovery", func() bool { return !v.w.State().Degraded })
	write(t, root+"/new", "")
	v.until("hint of a new file", func(h []Hint) bool { return hinted(h, pathOf(t, "new")) })
	v.look(Hint{Deep: true})
	v.equal()
}

func TestRootReplacedBySymlink(t *testing.T) {
	tree, root := open(t, Options{})
	other := t.TempDir()
	must(t, os.Rename(root, root+".away"))
	must(t, os.Symlink(other, root))
	rootLost(t, tree)
}

// rootLost checks that nothing is proven about anything below a lost root.
func rootLost(t *testing.T, tree *Tree) {
	t.Helper()
	if err := tree.Check(); !errors.Is(err, ErrRootLost) {
		t.Errorf("Check: %v", err)
	}
	for _, s := range []string{".", "d", "no/such"} {
		p := pathOf(t, s)
		_, err := tree.Lstat(p)
		_, lerr := tree.List(p)
		_, _, rerr := tree.Read(p, nil)
		_, _, serr := tree.Settled(p)
		for _, err := range []error{err, lerr, serr} {
			if !errors.Is(err, ErrRootLost) || errors.Is(err, ErrAbsent) {
				t.Errorf("%s: %v", s, err)
			}
		}
		if rerr == nil || errors.Is(rerr, ErrAbsent) {
			t.Errorf("%s: read %v", s, rerr)
		}
	}
}
