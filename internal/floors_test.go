// Package internal_test holds what is true of all packages together.
package internal_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "treecast"

// A floor says what a package may import: of this module only what is on a
// lower floor, so that packages on one floor never import each other; of the
// rest everything but what is false here.
type floor struct {
	number int
	nats   bool     // the client and its extensions
	server bool     // nats-server
	disk   bool     // whatever reaches files
	os     []string // without disk: what it may use of package os
}

// floors has every package below internal and cmd. A new one fails the test
// until it is given a line here, and with it a place in ARCHITECTURE.md. The
// packages outside of the two folders are on the top floor unless they are here.
var floors = map[string]floor{
	"internal/events":   {number: 0},
	"internal/powercut": {number: 0, disk: true}, // for tests

	"internal/source":   {number: 1, disk: true},
	"internal/apply":    {number: 1, disk: true},
	"internal/stream":   {number: 1, nats: true, os: readsCredentials},
	"internal/transfer": {number: 1, disk: true},

	"internal/publisher":  {number: 2, disk: true},
	"internal/subscriber": {number: 2, disk: true},
	"internal/broker":     {number: 2, nats: true, server: true, disk: true},

	"internal/cli": {number: 3, disk: true}, // what the commands share

	"cmd/publisher":       {number: 4, disk: true},
	"cmd/subscriber":      {number: 4, disk: true},
	"cmd/embedded-broker": {number: 4, disk: true},

	"bench/internal/rig": {number: 4, disk: true}, // what the measuring commands share
}

var topFloor = floor{number: 5, nats: true, server: true, disk: true}

// readsCredentials is what it takes to read a key file, and to say who asks.
var readsCredentials = []string{"ReadFile", "Open", "Stat", "File", "FileInfo", "FileMode",
	"ErrNotExist", "ErrPermission", "Hostname", "Getpid"}

// Import paths, and with them all paths below.
var (
	serverPaths = []string{"github.com/nats-io/nats-server"}
	natsPaths   = []string{"github.com/nats-io", "github.com/synadia-io"}
	diskPaths   = []string{"embed", "io/ioutil", "os", "path/filepath", "plugin", "syscall",
		"golang.org/x/sys", "github.com/fsnotify", "github.com/go-git"}
	testPaths = []string{"testing", "net/http/httptest", "go.uber.org/goleak", "pgregory.net/rapid",
		"github.com/rogpeppe/go-internal"}
)

func TestFloors(t *testing.T) {
	files, err := sources("..")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for name, text := range files {
		seen[path.Dir(name)] = true
		for _, complaint := range complaints(name, text) {
			t.Error(complaint)
		}
	}
	if !seen["internal/events"] {
		t.Errorf("looked at the wrong folder: %v", seen)
	}
}

// sources returns the text of every Go file of the module that is not a test,
// by its name relative to root.
func sources(root string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() {
			if name != root && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" || name == filepath.Join(root, "demo")) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") || strings.HasSuffix(base, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, name)
		files[filepath.ToSlash(relative)] = string(text)
		return err
	})
	return files, err
}

// complaints says what is wrong with the imports of one file.
func complaints(name, text string) []string {
	var found []string
	complain := func(format string, args ...any) {
		found = append(found, name+": "+fmt.Sprintf(format, args...))
	}
	file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
	if err != nil {
		complain("%v", err)
		return found
	}
	here, ok := floorOf(path.Dir(name))
	if !ok {
		complain("the package has no floor; give it one in internal/floors_test.go")
		return found
	}
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			complain("%v", err)
			continue
		}
		if own, ok := strings.CutPrefix(imported, module+"/"); ok {
			there, ok := floorOf(own)
			switch {
			case !ok:
				complain("imports %s, which has no floor", own)
			case there.number >= here.number:
				complain("on floor %d imports %s on floor %d", here.number, own, there.number)
			}
			continue
		}
		switch {
		case within(imported, testPaths):
			complain("imports %s outside of a test", imported)
		case within(imported, serverPaths):
			if !here.server {
				complain("imports %s, but may not know of the server", imported)
			}
		case within(imported, natsPaths) && !here.nats:
			complain("imports %s, but may not know of NATS", imported)
		case imported == "os" && !here.disk && here.os != nil:
			for _, used := range uses(file, spec, "os") {
				if !slices.Contains(here.os, used) {
					complain("uses os.%s, but may only use %q of it", used, here.os)
				}
			}
		case within(imported, diskPaths) && !here.disk:
			complain("imports %s, but may not reach the disk", imported)
		}
	}
	return found
}

func floorOf(dir string) (floor, bool) {
	if f, ok := floors[dir]; ok {
		return f, true
	}
	if dir == "internal" || strings.HasPrefix(dir, "internal/") || dir == "cmd" || strings.HasPrefix(dir, "cmd/") {
		return floor{}, false
	}
	return topFloor, true
}

func within(imported string, paths []string) bool {
	return slices.ContainsFunc(paths, func(p string) bool {
		return imported == p || strings.HasPrefix(imported, p+"/")
	})
}

// uses returns the names of the imported package that file uses, "." if that
// cannot be told.
func uses(file *ast.File, spec *ast.ImportSpec, name string) []string {
	if spec.Name != nil {
		name = spec.Name.Name
	}
	if name == "." {
		return []string{"."}
	}
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == name {
				found = append(found, s.Sel.Name)
			}
		}
		return true
	})
	return found
}

// TestFloorsSeesWhatIsWrong keeps the test above from passing because it is
// blind.
func TestFloorsSeesWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		dir, imports, body string
		want               string // part of the one complaint, "" for none
	}{
		{"internal/events", `"errors"`, "", ""},
		{"internal/events", `"github.com/klauspost/compress/zstd"`, "", ""},
		{"internal/events", `"os"`, "", "the disk"},
		{"internal/events", `"golang.org/x/sys/unix"`, "", "the disk"},
		{"internal/events", `"github.com/nats-io/nats.go"`, "", "NATS"},
		{"internal/events", `"treecast/internal/stream"`, "", "floor 1"},
		{"internal/source", `"treecast/internal/events"`, "", ""},
		{"internal/source", `"github.com/fsnotify/fsnotify"`, "", ""},
		{"internal/source", `"github.com/nats-io/nats.go/jetstream"`, "", "NATS"},
		{"internal/apply", `"treecast/internal/source"`, "", "floor 1"},
		{"internal/apply", `"treecast/internal/publisher"`, "", "floor 2"},
		{"internal/apply", `"github.com/synadia-io/orbit.go/jetstreamext"`, "", "NATS"},
		{"internal/apply", `_ "testing"`, "", "outside of a test"},
		{"internal/stream", `"github.com/synadia-io/orbit.go/jetstreamext"`, "", ""},
		{"internal/stream", `"github.com/nats-io/nats-server/v2/server"`, "", "the server"},
		{"internal/stream", `"os"`, "var _ = os.ReadFile", ""},
		{"internal/stream", `"os"`, "var _ = os.WriteFile", "os.WriteFile"},
		{"internal/stream", `disk "os"`, "var _ = disk.Rename", "os.Rename"},
		{"internal/stream", `. "os"`, "var _ = Rename", "os.."},
		{"internal/stream", `"path/filepath"`, "", "the disk"},
		{"internal/publisher", `"treecast/internal/stream"`, "", ""},
		{"internal/publisher", `"treecast/internal/broker"`, "", "floor 2"},
		{"internal/publisher", `"treecast/cmd/publisher"`, "", "floor 4"},
		{"internal/publisher", `"treecast/internal/cli"`, "", "floor 3"},
		{"internal/broker", `"github.com/nats-io/nats-server/v2/server"`, "", ""},
		{"internal/fresh", `"errors"`, "", "no floor"},
		{"internal/apply/fresh", `"errors"`, "", "no floor"},
		{"internal/publisher", `"treecast/internal/fresh"`, "", "no floor"},
		{"cmd/embedded-broker", `"treecast/internal/broker"`, "", ""},
		{"cmd/embedded-broker", `"treecast/cmd/publisher"`, "", "floor 4"},
		{"cmd/fresh", `"errors"`, "", "no floor"},
		{"bench", `"treecast/internal/apply"`, "", ""},
		{"bench", `"treecast/bench/tools"`, "", "floor 5"},
	} {
		got := complaints(c.dir+"/x.go", "package x\nimport "+c.imports+"\n"+c.body)
		if c.want == "" && len(got) != 0 || c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)) {
			t.Errorf("%s with %s: got %q, want %q", c.dir, c.imports, got, c.want)
		}
	}
}
