package composetest

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// The images that deploy/Dockerfile and docker-compose.yml name.
const (
	debianImage = "debian:bookworm-slim"
	golangImage = "golang:1.26-bookworm"
	nginxImage  = "nginx:stable"
)

const standInLabel = "org.treecast.stand-in=1"

// needImages returns when the engine has all three images. One that it lacks is
// pulled, or made where no registry answers.
func needImages(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, image := range []struct {
		name string
		make func(context.Context, *testing.T) error
	}{
		{debianImage, makeDebian},
		{golangImage, makeGolang},
		{nginxImage, makeNginx},
	} {
		if _, err := run(ctx, "docker", "image", "inspect", image.name); err == nil {
			continue
		}
		start := time.Now()
		_, err := run(ctx, "docker", "pull", "--quiet", image.name)
		if err == nil {
			t.Logf("pulled %s in %v", image.name, time.Since(start).Round(time.Second))
			continue
		}
		if os.Getuid() != 0 {
			missing(t, "no %s, and only root can make one: %v", image.name, err)
		}
		if err := image.make(ctx, t); err != nil {
			t.Fatalf("stand-in for %s: %v", image.name, err)
		}
		t.Logf("made a stand-in for %s in %v", image.name, time.Since(start).Round(time.Second))
	}
}

// makeDebian imports what debootstrap makes of Debian's packages.
func makeDebian(ctx context.Context, t *testing.T) error {
	if _, err := exec.LookPath("debootstrap"); err != nil {
		if !onCI() {
			t.Skip("debootstrap is not installed")
		}
		if _, err := run(ctx, "apt-get", "update", "-qq"); err != nil {
			return err
		}
		if _, err := run(ctx, "apt-get", "install", "-qqy", "--no-install-recommends", "debootstrap"); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "treecast-debian-")
	if err != nil {
		return err
	}
	// debootstrap mounts /proc in there. Should it have left it, then not to
	// be walked into.
	defer func() {
		if _, err := run(context.WithoutCancel(ctx), "rm", "-rf", "--one-file-system", dir); err != nil {
			t.Error(err)
		}
	}()
	if _, err := run(ctx, "debootstrap", "--variant=minbase", "bookworm", dir); err != nil {
		return err
	}
	_, err = run(ctx, "sh", "-c", `tar -C "$1" --one-file-system --exclude='./var/cache/apt/archives/*.deb' -c . |
		docker import -c 'CMD ["bash"]' -c "LABEL $2" - "$3"`, "sh", dir, standInLabel, debianImage)
	return err
}

// makeGolang adds to Debian the toolchain that runs this test, and this host's
// authorities, since a module mirror may have one of its own.
func makeGolang(ctx context.Context, _ *testing.T) error {
	if v := runtime.Version(); !strings.HasPrefix(v, "go1.26") {
		return fmt.Errorf("the toolchain is %s", v)
	}
	goroot, err := run(ctx, "go", "env", "GOROOT")
	if err != nil {
		return err
	}
	id, err := run(ctx, "docker", "create", debianImage, "true")
	if err != nil {
		return err
	}
	id = strings.TrimSpace(id)
	defer run(context.WithoutCancel(ctx), "docker", "rm", id)

	certs := cmp.Or(os.Getenv("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt")
	// docker cp makes no parents, and the base has no /etc/ssl: copied as a tree.
	etc, err := os.MkdirTemp("", "treecast-etc-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(etc)
	bundle, err := os.ReadFile(certs)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(etc, "ssl/certs"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(etc, "ssl/certs/ca-certificates.crt"), bundle, 0o644); err != nil {
		return err
	}
	if _, err := run(ctx, "docker", "cp", filepath.Join(etc, "ssl"), id+":/etc/"); err != nil {
		return err
	}
	if _, err := run(ctx, "docker", "cp", strings.TrimSpace(goroot)+"/.", id+":/usr/local/go"); err != nil {
		return err
	}
	_, err = run(ctx, "docker", "commit",
		"-c", "ENV PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"-c", "ENV GOPATH=/go", "-c", "ENV GOTOOLCHAIN=local", "-c", "LABEL "+standInLabel,
		"-c", `CMD ["bash"]`, id, golangImage)
	return err
}

// makeNginx is shaped as the image of that name is: a user nginx, conf.d,
// temporary files below /var/cache/nginx, logs to the engine, curl.
func makeNginx(ctx context.Context, _ *testing.T) error {
	const dockerfile = `FROM ` + debianImage + `
LABEL ` + standInLabel + `
RUN groupadd --system --gid 101 nginx \
 && useradd --system --gid nginx --uid 101 --no-create-home --home-dir /nonexistent --shell /bin/false nginx \
 && apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends nginx-light curl \
 && rm -rf /var/lib/apt/lists/* /etc/nginx/sites-enabled /etc/nginx/modules-enabled \
 && ln -sf /dev/stdout /var/log/nginx/access.log && ln -sf /dev/stderr /var/log/nginx/error.log \
 && mkdir -p /var/cache/nginx /etc/nginx/conf.d && touch /etc/nginx/conf.d/default.conf \
 && printf '%s\n' 'user nginx;' 'worker_processes auto;' 'error_log /var/log/nginx/error.log notice;' 'pid /run/nginx.pid;' \
    'events { worker_connections 1024; }' 'http {' 'include /etc/nginx/mime.types;' 'default_type application/octet-stream;' \
    'client_body_temp_path /var/cache/nginx/client_temp;' 'proxy_temp_path /var/cache/nginx/proxy_temp;' \
    'fastcgi_temp_path /var/cache/nginx/fastcgi_temp;' 'uwsgi_temp_path /var/cache/nginx/uwsgi_temp;' \
    'scgi_temp_path /var/cache/nginx/scgi_temp;' 'access_log /var/log/nginx/access.log;' \
    'include /etc/nginx/conf.d/*.conf;' '}' >/etc/nginx/nginx.conf
EXPOSE 80
STOPSIGNAL SIGQUIT
CMD ["nginx", "-g", "daemon off;"]
`
	_, err := command{stdin: strings.NewReader(dockerfile)}.run(ctx, "docker", "build", "--quiet", "-t", nginxImage, "-")
	return err
}
