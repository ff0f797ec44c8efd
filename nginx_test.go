package treecast_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A web is a real nginx that serves one node's tree.
type web struct {
	url  string
	cmd  *exec.Cmd
	done chan struct{}
}

// serve starts nginx on a node's tree; it ends with the test.
func (c *cluster) serve(t *testing.T, node string) *web {
	t.Helper()
	addr, err := freeAddress()
	c.must(t, err)
	dir := c.path("nginx-" + node)
	c.must(t, os.MkdirAll(dir, 0o755))
	conf := fmt.Sprintf(`daemon off; master_process off; user root; pid %[1]s/pid; error_log %[1]s/error.log;
events {}
http {
	access_log off; sendfile on;
	client_body_temp_path %[1]s/1; proxy_temp_path %[1]s/2; fastcgi_temp_path %[1]s/3; uwsgi_temp_path %[1]s/4; scgi_temp_path %[1]s/5;
	server { listen %[2]s; root %[3]s; }
}`, dir, addr, c.path(node))
	file := dir + "/nginx.conf"
	c.must(t, os.WriteFile(file, []byte(conf), 0o644))
	w := &web{url: "http://" + addr + "/", done: make(chan struct{})}
	w.cmd = exec.Command("nginx", "-c", file, "-e", dir+"/error.log")
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.must(t, w.cmd.Start())
	go func() { _ = w.cmd.Wait(); close(w.done) }()
	t.Cleanup(func() {
		_ = w.cmd.Process.Kill()
		<-w.done
	})
	c.must(t, c.await("nginx", func() error { _, _, err := w.get(""); return err }))
	return w
}

func (w *web) get(path string) (int, []byte, error) {
	r, err := http.Get(w.url + path)
	if err != nil {
		return 0, nil, err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r.StatusCode, b, err
}

// TestServedByNginx is the seed story read over HTTP: add, append, change and
// delete files at the source, and read b, c and d.
func TestServedByNginx(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "b", "c", "d")
	webs := []*web{c.serve(t, "b"), c.serve(t, "c"), c.serve(t, "d")}
	read := func(path string, code int, want string) {
		t.Helper()
		for _, w := range webs {
			c.must(t, c.await(path, func() error {
				got, body, err := w.get(path)
				if err == nil && (got != code || code == 200 && string(body) != want) {
					err = fmt.Errorf("%d %.60q: %w", got, body, errDiffers)
				}
				return err
			}))
		}
	}
	c.write(t, "index.html", []byte("one"))
	read("index.html", 200, "one")
	f, err := os.OpenFile(c.path("a", "index.html"), os.O_APPEND|os.O_WRONLY, 0)
	c.must(t, err)
	_, err = f.WriteString(" two")
	c.must(t, errors.Join(err, f.Close()))
	read("index.html", 200, "one two")
	c.write(t, "index.html", []byte("three"))
	c.write(t, "css/site.css", []byte("body{}"))
	read("index.html", 200, "three")
	read("css/site.css", 200, "body{}")
	c.must(t, os.Rename(c.path("a", "css"), c.path("a", "style")))
	read("style/site.css", 200, "body{}")
	read("css/site.css", 404, "")
	c.must(t, os.Remove(c.path("a", "index.html")))
	read("index.html", 404, "")
	c.must(t, c.judge(nil))
}

// TestNeverTorn (P1): clients read a page while it is replaced and rewritten
// hundreds of times, through nginx with sendfile; every answer is one whole
// version, and none is missing.
func TestNeverTorn(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "b")
	w := c.serve(t, "b")
	version := func(i int) []byte {
		return []byte(strings.Repeat(fmt.Sprintf("version %06d\n", i), 2000+i%7*3000))
	}
	c.write(t, "page", version(0))
	c.must(t, c.awaitFile("b", "page", version(0)))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				code, body, err := w.get("page")
				line, _, _ := bytes.Cut(body, []byte("\n"))
				var i int
				_, serr := fmt.Sscanf(string(line), "version %d", &i)
				if err != nil || code != 200 || serr != nil || !bytes.Equal(body, version(i)) {
					t.Errorf("torn: %d, %d bytes, %.40q, %v", code, len(body), body, errors.Join(err, serr))
					return
				}
			}
		})
	}
	for i := 1; i <= 200; i++ {
		c.write(t, "page", version(i)) // truncates and writes in place
		if i%10 == 0 {
			c.must(t, c.awaitFile("b", "page", version(i)))
		}
		time.Sleep(time.Millisecond) // a writer's pace; nothing depends on it
	}
	c.must(t, c.awaitFile("b", "page", version(200)))
	close(stop)
	wg.Wait()
}
