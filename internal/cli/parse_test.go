package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

type testCommand struct {
	ConfigFile
	VersionFlag
	Connection
	Logging
	Exclude []string `sep:"none"`
	Depth   int      `default:"3"`

	Run struct{} `cmd:"" default:"1"`
}

// TestSettingsWinInOrder: flags over the environment, that over the file, that
// over the default.
func TestSettingsWinInOrder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte("site: fromfile\ndepth: 7\nuser: fromfile\nexclude: ['*.a', 'b,c']\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TREECAST_SITE", "fromenv")
	t.Setenv("TREECAST_USER", "fromenv")
	var c testCommand
	k, err := Parse("test", "", &c, []string{"--config", file, "--site", "fromflag"}, os.Stdout, os.Stderr)
	if err != nil || k == nil {
		t.Fatal(k, err)
	}
	if c.Site != "fromflag" || c.User != "fromenv" || c.Depth != 7 || !slices.Equal(c.Exclude, []string{"*.a", "b,c"}) || c.NATS != "nats://127.0.0.1:4222" {
		t.Errorf("%+v", c)
	}
}

// TestMistakesStop: nothing runs with a setting that is not understood.
func TestMistakesStop(t *testing.T) {
	for _, c := range []struct{ file, args, want string }{
		{"", "--sight x", "sight"},
		{"sight: x\nsite: y\n", "", "sight"},
		{"site: [", "", "configuration file"},
		{"site: {a: b}\n", "", "site"},
		{"depth: many\n", "", "depth"},
		{"", "--log-level loud", "log-level"},
	} {
		args := strings.Fields(c.args)
		if c.file != "" {
			file := filepath.Join(t.TempDir(), "c.yaml")
			if err := os.WriteFile(file, []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
			args = append(args, "--config", file)
		}
		var command testCommand
		_, err := Parse("test", "", &command, args, &bytes.Buffer{}, &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q %q: %v, want %q in it", c.file, c.args, err, c.want)
		}
	}
}

// TestHelpAndVersionEnd: they print, and nothing runs.
func TestHelpAndVersionEnd(t *testing.T) {
	for _, arg := range []string{"--help", "--version"} {
		var out bytes.Buffer
		k, err := Parse("test", "about", &testCommand{}, []string{arg}, &out, &out)
		if k != nil || err != nil || !strings.Contains(out.String(), "test") {
			t.Errorf("%s: %v, %v, %q", arg, k, err, out.String())
		}
	}
}

// TestExitCodes: 0, an ExitError's own, else 2.
func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
		text string
	}{
		{nil, 0, ""},
		{errors.New("broken"), 2, "error: broken\n"},
		{&ExitError{Code: 1}, 1, ""},
		{&ExitError{Code: 1, Err: errors.New("behind")}, 1, "error: behind\n"},
	} {
		var out bytes.Buffer
		if code := Exit(&out, c.err); code != c.code || out.String() != c.text {
			t.Errorf("%v: %d %q", c.err, code, out.String())
		}
	}
}

// TestSecretsAreFiles: what goes together, and what must exist.
func TestSecretsAreFiles(t *testing.T) {
	for _, c := range []struct {
		c    Connection
		want string
	}{
		{Connection{Site: "web", User: "u"}, "--password-file"},
		{Connection{Site: "web", TLSCert: "c"}, "--tls-key"},
		{Connection{Site: "web", Creds: "none"}, "--creds"},
		{Connection{Site: "a.b"}, "unacceptable name"},
	} {
		if _, _, err := c.c.Options("x", nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.c, err)
		}
	}
	o, site, err := (&Connection{Site: "web"}).Options("publisher", nil)
	if err != nil || o.Name != "publisher" || site != "web" {
		t.Error(o, site, err)
	}
}
