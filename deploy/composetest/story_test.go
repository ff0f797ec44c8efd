package composetest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// converges is how long a change may take to be on every node. It is seldom
// more than a few hundredths of a second, but the machine may be busy.
const converges = 30 * time.Second

// TestComposeStory is one day of a web site, seen through its web servers.
func TestComposeStory(t *testing.T) {
	if testing.Short() {
		t.Skip("builds an image")
	}
	ctx := testContext(t)
	need(t, "docker")
	if _, err := run(ctx, "docker", "info"); err != nil {
		t.Skipf("no Docker engine: %v", err)
	}
	needImages(ctx, t)

	html := openTempDir(t) // nginx is another user
	s := &story{t: t, html: html, project: newProject(ctx, t, html)}
	s.write("index.html", "<h1>first</h1>\n")
	s.write("css/site.css", "h1 { color: red }\n")
	s.write("img/big.bin", noise(1, 300<<10))

	start := time.Now()
	s.project.do(t, "up", "-d", "--build", "--quiet-pull")
	t.Logf("built and started in %v", time.Since(start).Round(time.Second))
	// What older sources left; the label is in deploy/Dockerfile.
	if _, err := run(ctx, "docker", "image", "prune", "--force",
		"--filter", "label=org.treecast.stage", "--filter", "until=24h"); err != nil {
		t.Log(err)
	}
	services := []string{"broker", "a", "b", "c", "d", "b-nginx", "c-nginx", "d-nginx"}
	eventually(t, 90*time.Second, func() error { return s.project.healthy(services...) })
	t.Logf("healthy after %v", time.Since(start).Round(time.Second))
	s.served(nodes, "/", "/css/site.css", "/img/big.bin")
	s.equal(nodes...)

	s.step("write", func() { s.write("new.txt", "new\n") }, nil, "/new.txt")
	s.step("append", func() { s.append("new.txt", "and more\n") }, nil, "/new.txt")
	s.step("overwrite with the same size", func() { s.write("new.txt", "NEW\nAND MORE\n") }, nil, "/new.txt")
	s.step("replace by a rename", func() {
		s.write(".index.html.tmp~", "<h1>second</h1>\n")
		s.rename(".index.html.tmp~", "index.html")
	}, nil, "/", "/index.html")
	s.step("truncate", func() { s.write("new.txt", "") }, nil, "/new.txt")
	s.step("modes and times", func() {
		s.must(os.Chmod(s.path("index.html"), 0o640))
		s.must(os.Chmod(s.path("index.html"), 0o604))
		s.must(os.Chtimes(s.path("index.html"), time.Time{}, time.Date(2012, 3, 4, 5, 6, 7, 89, time.UTC)))
	}, nil, "/index.html")
	s.step("mkdir with files at once", func() {
		for i := range 50 {
			s.write(fmt.Sprintf("docs/%d/page %d.html", i%5, i), noise(uint64(i), 1000+i))
		}
	}, nil, "/docs/0/page%200.html", "/docs/4/page%2049.html")
	s.step("rename a directory", func() { s.rename("docs", "manual") },
		[]string{"/docs/0/page%200.html"}, "/manual/0/page%200.html", "/manual/4/page%2049.html")
	s.step("rename a file", func() { s.rename("new.txt", "img/old.txt") }, []string{"/new.txt"}, "/img/old.txt")
	s.step("symlinks", func() { s.must(os.Symlink("index.html", s.path("home.html"))) }, nil, "/home.html")
	s.step("a file becomes a directory", func() {
		s.must(os.Remove(s.path("img/old.txt")))
		s.write("img/old.txt/inside", "deeper\n")
	}, nil, "/img/old.txt/inside")
	s.step("delete", func() { s.must(os.Remove(s.path("img/big.bin"))) }, []string{"/img/big.bin"})
	s.step("delete a directory", func() { s.must(os.RemoveAll(s.path("manual"))) }, []string{"/manual/0/page%200.html"})
	for _, node := range nodes {
		for _, path := range []string{"/.treecast", "/.treecast/", "/.treecast/watermark"} {
			if status, _, err := s.get(node, path); err != nil || status != http.StatusNotFound {
				t.Errorf("%s: GET %s: %d, %v", node, path, status, err)
			}
		}
	}

	t.Run("a node is away", func(t *testing.T) {
		s := s.in(t)
		s.project.do(t, "stop", "c")
		// 137 would mean that it had to be killed.
		if code, err := s.project.inspect("c", "{{.State.ExitCode}}"); err != nil || code == "137" {
			t.Errorf("c ended with %s, %v", code, err)
		}
		old := s.content("index.html")
		for i := range 3 {
			s.write("index.html", fmt.Sprintf("<h1>third, take %d</h1>\n", i))
			s.write("while/c/was/away.txt", noise(uint64(i), 10_000))
		}
		s.must(os.Remove(s.path("css/site.css")))
		s.served([]string{"b", "d"}, "/", "/while/c/was/away.txt")
		s.gone([]string{"b", "d"}, "/css/site.css")
		s.equal("b", "d")
		// Its web server goes on with what was there.
		if status, body, err := s.get("c", "/"); err != nil || status != http.StatusOK || body != old {
			t.Errorf("c: got %d %q, %v, want %q", status, body, err, old)
		}
		s.project.do(t, "start", "c")
		s.served(nodes, "/", "/while/c/was/away.txt")
		s.gone(nodes, "/css/site.css")
		s.equal(nodes...)
	})

	t.Run("the broker is killed", func(t *testing.T) {
		s := s.in(t)
		s.project.do(t, "kill", "broker")
		s.write("index.html", "<h1>fourth</h1>\n")
		s.write("while/nobody/listens.txt", "patience\n")
		s.project.do(t, "start", "broker")
		s.served(nodes, "/", "/while/nobody/listens.txt")
		s.equal(nodes...)
		eventually(t, 60*time.Second, func() error { return s.project.healthy(services...) })
	})

	t.Run("the commands and rsync agree", func(t *testing.T) {
		s := s.in(t)
		eventually(t, converges, func() error {
			_, err := s.project.exec("a", "publisher", "status")
			return err
		})
		for _, node := range nodes {
			if out, err := s.project.exec(node, "subscriber", "verify", "--checksum"); err != nil {
				t.Errorf("%s: %v\n%s", node, err, out)
			}
			if _, err := exec.LookPath("rsync"); err == nil && os.Getuid() == 0 {
				s.must(s.project.rsync(html, node))
			}
		}
	})
}

// A story changes the source and asks the web servers.
type story struct {
	t       *testing.T
	html    string
	project *project
}

// in returns the story for a subtest.
func (s *story) in(t *testing.T) *story {
	return &story{t: t, html: s.html, project: s.project}
}

// step makes a change and waits until every web server answers with the
// source's content for the paths served, with 404 for those gone, and every
// tree is equal.
func (s *story) step(name string, change func(), gone []string, served ...string) {
	s.t.Helper()
	s.t.Run(name, func(t *testing.T) {
		t.Helper()
		s := s.in(t)
		start := time.Now()
		change()
		s.served(nodes, served...)
		s.gone(nodes, gone...)
		t.Logf("on every node after %v", time.Since(start).Round(time.Millisecond))
		s.equal(nodes...)
	})
	if s.t.Failed() {
		s.t.FailNow()
	}
}

// served waits until the nodes' web servers answer with the source's content.
func (s *story) served(nodes []string, paths ...string) {
	s.t.Helper()
	for _, path := range paths {
		file := strings.ReplaceAll(path, "%20", " ")
		if file == "/" {
			file = "/index.html"
		}
		want := s.content(file)
		for _, node := range nodes {
			eventually(s.t, converges, func() error {
				status, body, err := s.get(node, path)
				if err != nil {
					return err
				}
				if status != http.StatusOK || body != want {
					return fmt.Errorf("%s: GET %s: %d with %d bytes, want 200 with %d", node, path, status, len(body), len(want))
				}
				return nil
			})
		}
	}
}

// gone waits until the nodes' web servers answer 404.
func (s *story) gone(nodes []string, paths ...string) {
	s.t.Helper()
	for _, path := range paths {
		for _, node := range nodes {
			eventually(s.t, converges, func() error {
				status, _, err := s.get(node, path)
				if err == nil && status != http.StatusNotFound {
					err = fmt.Errorf("%s: GET %s: %d, want 404", node, path, status)
				}
				return err
			})
		}
	}
}

// equal waits until the nodes' trees are the source's.
func (s *story) equal(nodes ...string) {
	s.t.Helper()
	eventually(s.t, converges, func() error { return s.project.equal(nodes...) })
}

func (s *story) get(node, path string) (int, string, error) {
	if !slices.Contains(nodes, node) {
		return 0, "", fmt.Errorf("no node %q", node)
	}
	return get("http://127.0.0.1:" + s.project.ports[node] + path)
}

func (s *story) path(name string) string { return filepath.Join(s.html, name) }

func (s *story) content(name string) string {
	s.t.Helper()
	return read(s.t, s.path(name))
}

func (s *story) write(name, content string) {
	s.t.Helper()
	writeFile(s.t, s.path(name), content)
}

func (s *story) append(name, content string) {
	s.t.Helper()
	f, err := os.OpenFile(s.path(name), os.O_WRONLY|os.O_APPEND, 0)
	s.must(err)
	_, err = f.WriteString(content)
	s.must(err)
	s.must(f.Close())
}

func (s *story) rename(from, to string) {
	s.t.Helper()
	s.must(os.Rename(s.path(from), s.path(to)))
}

func (s *story) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// noise is the same incompressible text for the same seed.
func noise(seed uint64, size int) string {
	var b bytes.Buffer
	for r := rand.New(rand.NewPCG(seed, 1)); b.Len() < size; {
		fmt.Fprintf(&b, "%016x\n", r.Uint64())
	}
	return b.String()[:size]
}
