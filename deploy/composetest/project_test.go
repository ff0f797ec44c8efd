package composetest

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// needCompose returns the words that start Compose: docker-compose, or else the
// plugin of docker.
func needCompose(ctx context.Context, t *testing.T) []string {
	t.Helper()
	if _, err := exec.LookPath("docker-compose"); err == nil {
		return []string{"docker-compose"}
	}
	if _, err := run(ctx, "docker", "compose", "version"); err == nil {
		return []string{"docker", "compose"}
	}
	missing(t, "neither docker-compose nor docker compose is installed")
	return nil
}

// A project is the compose file under a name, with ports and a source of its
// own. It is gone, volumes and all, when the test ends.
type project struct {
	ctx     context.Context
	compose []string
	command command
	ports   map[string]string // node: the port of its nginx
}

const htmlRoot = "/usr/local/nginx/html"

var nodes = []string{"b", "c", "d"}

// newProject describes a project that publishes the directory html. Nothing
// runs yet.
func newProject(ctx context.Context, t *testing.T, html string) *project {
	t.Helper()
	p := &project{ctx: ctx, compose: needCompose(ctx, t), ports: map[string]string{}}
	p.compose = append(p.compose, "-p", fmt.Sprintf("treecasttest%d", os.Getpid()))
	p.command.dir = repository(t)
	// The image keeps its name, so that its layers are there for the next run.
	p.command.env = []string{"HTML_DIR=" + html, "TREECAST_IMAGE=treecast:composetest"}
	for _, node := range nodes {
		_, port, err := net.SplitHostPort(freeAddress(t, "127.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		p.ports[node] = port
		p.command.env = append(p.command.env, strings.ToUpper(node)+"_PORT="+port)
	}
	for _, name := range []string{"GOPROXY", "GOSUMDB", "GONOSUMDB", "GOFLAGS"} {
		value, err := run(ctx, "go", "env", name)
		if err != nil {
			t.Fatal(err)
		}
		p.command.env = append(p.command.env, name+"="+strings.TrimSpace(value))
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), 50*time.Second)
		defer cancel()
		down := *p
		down.ctx = ctx
		if t.Failed() {
			logs, err := down.run("logs", "--no-color", "--tail=60")
			t.Log(logs, err)
		}
		if _, err := down.run("down", "--volumes", "--remove-orphans", "--timeout=15"); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *project) run(args ...string) (string, error) {
	return p.command.run(p.ctx, p.compose[0], append(slices.Clone(p.compose[1:]), args...)...)
}

func (p *project) do(t *testing.T, args ...string) string {
	t.Helper()
	out, err := p.run(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// container returns the id of a service's container, running or not.
func (p *project) container(service string) (string, error) {
	// Not `ps -q`, which leaves stopped ones out in Compose v2.
	out, err := run(p.ctx, "docker", "ps", "--all", "--quiet",
		"--filter", "label=com.docker.compose.project="+p.compose[len(p.compose)-1],
		"--filter", "label=com.docker.compose.service="+service)
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(out)
	if id == "" || strings.Contains(id, "\n") {
		return "", fmt.Errorf("containers of %s: %q", service, id)
	}
	return id, nil
}

// inspect evaluates a template on the state of a service's container.
func (p *project) inspect(service, template string) (string, error) {
	id, err := p.container(service)
	if err != nil {
		return "", err
	}
	out, err := run(p.ctx, "docker", "inspect", "--format", template, id)
	return strings.TrimSpace(out), err
}

// exec runs a command in a service's container.
func (p *project) exec(service string, args ...string) (string, error) {
	id, err := p.container(service)
	if err != nil {
		return "", err
	}
	return run(p.ctx, "docker", append([]string{"exec", id}, args...)...)
}

// healthy is an error that names a service which is not.
func (p *project) healthy(services ...string) error {
	for _, service := range services {
		health, err := p.inspect(service, "{{.State.Status}} {{.State.Health.Status}}")
		if err != nil {
			return err
		}
		if health != "running healthy" {
			return fmt.Errorf("%s is %s", service, health)
		}
	}
	return nil
}

// tree lists what is in a service's tree, but not what a file holds.
func (p *project) tree(service string) ([]string, error) {
	out, err := p.exec(service, append([]string{"find"}, treeArgs(htmlRoot)...)...)
	return list(out), err
}

// treeArgs has find print every path below root with what is there: kind,
// mode, owner, mtime, size and target. Directories have no size: it is their
// file system's.
func treeArgs(root string) []string {
	const what = `%P\t%y\t%m\t%U:%G\t%T@\t`
	return []string{root, "-path", root + "/.treecast", "-prune",
		"-o", "-type", "d", "-printf", what + `\0`,
		"-o", "-printf", what + `%s\t%l\0`}
}

// list sorts what find ended with NULs.
func list(found string) []string {
	paths := strings.Split(found, "\x00")
	slices.Sort(paths)
	return paths
}

// sums lists the digest of every regular file in a service's tree.
func (p *project) sums(service string) ([]string, error) {
	out, err := p.exec(service, "find", htmlRoot, "-path", htmlRoot+"/.treecast", "-prune",
		"-o", "-type", "f", "-exec", "sha256sum", "--zero", "{}", "+")
	return list(out), err
}

// equal is an error that shows the first difference between the source's tree
// and a node's.
func (p *project) equal(nodes ...string) error {
	for _, list := range []func(string) ([]string, error){p.tree, p.sums} {
		want, err := list("a")
		if err != nil {
			return err
		}
		for _, node := range nodes {
			got, err := list(node)
			if err != nil {
				return err
			}
			if err := firstDifference(got, want); err != nil {
				return fmt.Errorf("node %s: %w", node, err)
			}
		}
	}
	return nil
}

// rsync is an error that shows what rsync would do to make a node's tree equal
// to html. It looks into the volume, which is on this host, as the engine is.
func (p *project) rsync(html, node string) error {
	volume := p.compose[len(p.compose)-1] + "_" + node + "-html"
	out, err := run(p.ctx, "docker", "volume", "inspect", "--format", "{{.Mountpoint}}", volume)
	if err != nil {
		return err
	}
	out, err = run(p.ctx, "rsync", "-anic", "--delete", "--numeric-ids", "--exclude=/.treecast/",
		html+"/", strings.TrimSpace(out)+"/")
	if err == nil && out != "" {
		err = fmt.Errorf("node %s:\n%s", node, out)
	}
	return err
}

func firstDifference(got, want []string) error {
	for i := range max(len(got), len(want)) {
		var g, w string
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if cmp.Compare(g, w) != 0 {
			return fmt.Errorf("%q instead of %q", g, w)
		}
	}
	return nil
}
