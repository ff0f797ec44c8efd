package composetest

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestComposeFile(t *testing.T) {
	ctx := testContext(t)
	compose := needCompose(ctx, t)
	c := command{dir: repository(t)}
	if _, err := c.run(ctx, compose[0], append(compose[1:], "config", "-q")...); err != nil {
		t.Fatal(err)
	}
	out, err := c.run(ctx, compose[0], append(compose[1:], "config", "--services")...)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(out)
	slices.Sort(got)
	want := []string{"a", "b", "b-nginx", "broker", "c", "c-nginx", "d", "d-nginx"}
	if !slices.Equal(got, want) {
		t.Errorf("services: got %q, want %q", got, want)
	}
	if out, err = c.run(ctx, compose[0], append(compose[1:], "config")...); err != nil {
		t.Fatal(err)
	}
	// Two that build one name at the same time fail with Compose v2.
	if n := strings.Count(out, "\n    build:\n"); n != 1 {
		t.Errorf("%d services build the image, want 1", n)
	}
}

// TestConfigFiles builds the commands and looks up every key of the examples,
// also those in comments, among their flags.
func TestConfigFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the commands")
	}
	ctx := testContext(t)
	bin := buildCommands(ctx, t)
	yamlKey := regexp.MustCompile(`(?m)^(?:# )?([a-z][a-z-]*):(?: |$)`)
	envKey := regexp.MustCompile(`(?m)^(?:# )?TREECAST_([A-Z_]+)=`)
	for _, example := range []struct {
		file, command string
		key           *regexp.Regexp
	}{
		{"publisher.yaml", "publisher", yamlKey},
		{"subscriber.yaml", "subscriber", yamlKey},
		{"broker.env", "embedded-broker", envKey},
	} {
		t.Run(example.file, func(t *testing.T) {
			help, err := run(ctx, filepath.Join(bin, example.command), "run", "--help")
			if err != nil {
				t.Fatal(err)
			}
			keys := example.key.FindAllStringSubmatch(read(t, filepath.Join(repository(t), "deploy/systemd", example.file)), -1)
			if len(keys) < 3 {
				t.Fatalf("only %d keys found", len(keys))
			}
			for _, key := range keys {
				flag := "--" + strings.ToLower(strings.ReplaceAll(key[1], "_", "-"))
				if !regexp.MustCompile(regexp.QuoteMeta(flag) + `[\s=\[,.]`).MatchString(help) {
					t.Errorf("%s has no %s", example.command, flag)
				}
			}
		})
	}
}

// TestLogrotateConf has logrotate rotate the logs of both where the examples
// put them.
func TestLogrotateConf(t *testing.T) {
	logrotate := need(t, "logrotate")
	dir := t.TempDir()
	conf := filepath.Join(dir, "conf")
	writeFile(t, conf, strings.ReplaceAll(read(t, filepath.Join(repository(t), "deploy/logrotate.conf")), "/var/log/treecast", dir))
	for _, command := range []string{"publisher", "subscriber"} {
		example := read(t, filepath.Join(repository(t), "deploy/systemd", command+".yaml"))
		file := filepath.Join(command, "transfer.log")
		if !strings.Contains(example, "transfer-log: /var/log/treecast/"+file+"\n") {
			t.Errorf("the log of %s is elsewhere", command)
		}
		writeFile(t, filepath.Join(dir, file), "line\n")
	}
	if out, err := run(testContext(t), logrotate, "-f", "-s", filepath.Join(dir, "state"), conf); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, command := range []string{"publisher", "subscriber"} {
		if got := read(t, filepath.Join(dir, command, "transfer.log.1")); got != "line\n" {
			t.Errorf("%s: %q", command, got)
		}
	}
}

// TestNginxConf runs nginx with the file, as root where the test is root: what
// is not served is then refused by the file and not by a mode.
func TestNginxConf(t *testing.T) {
	nginx := need(t, "nginx")
	ctx := testContext(t)
	dir, root := t.TempDir(), t.TempDir()
	for _, path := range []string{"index.html", ".well-known/security.txt", ".env", ".treecast/watermark", "sub/.treecast/x", "sub/.htpasswd"} {
		writeFile(t, filepath.Join(root, path), path)
	}
	address := freeAddress(t, loopback())
	conf := read(t, filepath.Join(repository(t), "deploy/nginx.conf"))
	for old, new := range map[string]string{
		"listen 80;":                  "listen " + address + ";",
		"root /usr/local/nginx/html;": "root " + root + ";",
	} {
		if strings.Count(conf, old) != 1 {
			t.Fatalf("nginx.conf does not have %q once", old)
		}
		conf = strings.Replace(conf, old, new, 1)
	}
	user := ""
	if os.Getuid() == 0 {
		user = "user root;"
	}
	main := filepath.Join(dir, "nginx.conf")
	writeFile(t, main, fmt.Sprintf(`%s
daemon off;
pid %[2]s/pid;
error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	%[3]s
}
`, user, dir, conf))

	cmd := exec.CommandContext(ctx, nginx, "-p", dir, "-c", main, "-e", "stderr")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt) // fast shutdown: the workers too
		<-ended
		if t.Failed() {
			t.Log(stderr.String())
		}
	})
	eventually(t, 10*time.Second, func() error {
		_, _, err := get("http://" + address + "/")
		return err
	})
	for path, want := range map[string]int{
		"/":                         http.StatusOK,
		"/index.html":               http.StatusOK,
		"/.well-known/security.txt": http.StatusOK,
		"/.env":                     http.StatusNotFound,
		"/.treecast":                http.StatusNotFound,
		"/.treecast/":               http.StatusNotFound,
		"/.treecast/watermark":      http.StatusNotFound,
		"/%2etreecast/watermark":    http.StatusNotFound,
		"//.treecast/watermark":     http.StatusNotFound,
		"/sub/.treecast/x":          http.StatusNotFound,
		"/sub/.htpasswd":            http.StatusNotFound,
		"/.well-known-not/x":        http.StatusNotFound,
	} {
		if got, _, err := get("http://" + address + path); err != nil || got != want {
			t.Errorf("GET %s: got %d, %v, want %d", path, got, err, want)
		}
	}
}

// get returns the status and the body of an answer, on a connection of its own.
func get(url string) (int, string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// loopback is an address of this host, not 127.0.0.1, where any connection may
// take a port before it is used.
func loopback() string {
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
}

// freeAddress is host with a port that nobody listens on now.
func freeAddress(t *testing.T, host string) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// writeFile writes a file that everyone may read, and the directories above it.
func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
