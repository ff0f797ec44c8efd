package source

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"treecast/internal/events"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = time.Minute

// open returns a tree of a new directory, and its root.
func open(t testing.TB, o Options) (*Tree, string) {
	t.Helper()
	if o.Root == "" {
		o.Root = filepath.Join(t.TempDir(), "root")
		must(t, os.Mkdir(o.Root, 0o755))
	}
	o.KeepLimits = true // the host's limits are not a test's to change
	tree, err := Open(o)
	must(t, err)
	t.Cleanup(func() { must(t, tree.Close()) })
	return tree, o.Root
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func pathOf(t testing.TB, s string) events.Path {
	t.Helper()
	p, err := events.ParsePath(s)
	must(t, err)
	return p
}

func write(t testing.TB, name, content string) {
	t.Helper()
	must(t, os.WriteFile(name, []byte(content), 0o644))
}

func mkdir(t testing.TB, name string) {
	t.Helper()
	must(t, os.MkdirAll(name, 0o755))
}

// skipped checks that err is a SkipError for that reason.
func skipped(t testing.TB, err error, want Reason) {
	t.Helper()
	var skip *SkipError
	if !errors.As(err, &skip) || skip.Reason != want {
		t.Fatalf("error %v, want %q", err, want)
	}
}

// A view is a watcher with what it hinted, and a model of the tree that is
// kept by looking where the hints say.
type view struct {
	t     testing.TB
	tree  *Tree
	w     *Watcher
	model map[events.Path]string // kind, and a file's content
	at    map[events.Path]Meta

	mu    sync.Mutex
	hints []Hint
}

// watch runs a watcher until the test ends.
func watch(t testing.TB, tree *Tree) *view {
	t.Helper()
	v := &view{t: t, tree: tree, model: map[events.Path]string{}, at: map[events.Path]Meta{}}
	v.w = NewWatcher(tree, v.take)
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- v.w.Run(ctx, ready) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-ready:
	case <-time.After(patience):
		t.Fatal("the watcher is not ready")
	}
	v.look(Hint{Deep: true})
	return v
}

func (v *view) take(hints []Hint) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.hints = append(v.hints, hints...)
}

// settle returns the hints of all that was done before, and keeps the model.
func (v *view) settle() []Hint {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	must(v.t, v.w.Sync(ctx))
	v.mu.Lock()
	hints := v.hints
	v.hints = nil
	v.mu.Unlock()
	for _, h := range hints {
		v.look(h)
	}
	return hints
}

// until waits for a condition on the hints since the last settle.
func (v *view) until(what string, met func([]Hint) bool) {
	v.t.Helper()
	var all []Hint
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		v.mu.Lock()
		all = append(all, v.hints...)
		v.hints = nil
		v.mu.Unlock()
		if met(all) {
			return
		}
		if time.Now().After(end) {
			v.t.Fatalf("no %s in %v", what, all)
		}
	}
}

func (v *view) look(h Hint) {
	v.t.Helper()
	m, err := v.tree.Lstat(h.Path)
	var skip *SkipError
	switch {
	case errors.Is(err, ErrAbsent):
		v.forget(h.Path)
		return
	case errors.As(err, &skip):
		return
	case err != nil:
		v.t.Fatalf("lstat %v: %v", h, err)
	}
	v.put(m)
	if m.Entry.Kind == events.Dir && h.Deep {
		v.list(h.Path)
	}
}

func (v *view) put(m Meta) {
	p := m.Entry.Path
	state := m.Entry.Kind.String() + m.Entry.Target
	if m.Entry.Kind != events.Dir {
		v.forget(p)
	}
	if m.Entry.Kind == events.File {
		read, body, err := v.tree.Read(p, nil)
		if err != nil {
			return // a hint follows
		}
		m, state = read, state+string(body)
	}
	v.model[p], v.at[p] = state, m
}

func (v *view) forget(p events.Path) {
	for q := range v.model {
		if q.Within(p) {
			delete(v.model, q)
			delete(v.at, q)
		}
	}
}

func (v *view) list(dir events.Path) {
	l, err := v.tree.List(dir)
	if err != nil {
		return // a hint follows, or it is skipped
	}
	there := map[string]bool{}
	for _, m := range l.Children {
		there[m.Entry.Path.Base()] = true
		v.put(m)
		if m.Entry.Kind == events.Dir {
			v.list(m.Entry.Path)
		}
	}
	for p := range v.model {
		if !p.IsRoot() && p.Parent() == dir && !there[p.Base()] {
			v.look(Hint{Path: p, Deep: true})
		}
	}
}

// equal checks the model against a fresh look at everything, times included.
func (v *view) equal() {
	v.t.Helper()
	truth := &view{t: v.t, tree: v.tree, model: map[events.Path]string{}, at: map[events.Path]Meta{}}
	truth.look(Hint{Deep: true})
	for p, want := range truth.model {
		if got, ok := v.model[p]; !ok || got != want {
			v.t.Errorf("%q: hints gave %q, there is %q", p, clip(got), clip(want))
		} else if a, b := v.at[p].Entry, truth.at[p].Entry; a.Mtime != b.Mtime || a.Mode != b.Mode {
			v.t.Errorf("%q: hints gave mtime %v mode %o, there is %v %o", p, a.Mtime, a.Mode, b.Mtime, b.Mode)
		}
	}
	for p := range v.model {
		if _, ok := truth.model[p]; !ok {
			v.t.Errorf("%q: is gone, and no hint said so", p)
		}
	}
	if v.t.Failed() {
		v.t.FailNow()
	}
}

func clip(s string) string { return s[:min(len(s), 40)] }

// hinted reports whether the hints have exactly p.
func hinted(hints []Hint, p events.Path) bool {
	return slices.ContainsFunc(hints, func(h Hint) bool { return h.Path == p })
}

// covered reports whether a hint names p, or is deep above it.
func covered(hints []Hint, p events.Path) bool {
	return slices.ContainsFunc(hints, func(h Hint) bool { return h.Path == p || h.Deep && p.Within(h.Path) })
}

const childEnv = "TREECAST_SOURCE_TEST_CHILD"

// again reports whether this process is the one that should do the test's
// work; else it runs the test in a process with attr and takes over its result.
func again(t *testing.T, attr *syscall.SysProcAttr) bool {
	t.Helper()
	if os.Getenv(childEnv) != "" {
		return true
	}
	if os.Getuid() != 0 {
		unable(t, "needs root")
		return false
	}
	// The child may be someone else: what it runs must be readable.
	dir, err := os.MkdirTemp("", "treecast-source-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o777))
	binary, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	exe := filepath.Join(dir, "test")
	must(t, os.WriteFile(exe, binary, 0o755))
	cmd := exec.Command(exe, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir, cmd.SysProcAttr = dir, attr
	cmd.Env = append(os.Environ(), childEnv+"=1", "TMPDIR="+dir)
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM):
		unable(t, "a child process with other rights: "+err.Error())
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		unable(t, string(out))
	case !strings.Contains(string(out), "--- PASS"):
		t.Fatalf("the child did not run the test:\n%s", out)
	}
	return false
}

// unable skips a test that this machine cannot run; not where CI is set.
func unable(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("cannot run here: " + why)
	}
	t.Skip("cannot run here: " + why)
}
