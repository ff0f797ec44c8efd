package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/alecthomas/kong"
)

// An ExitError ends a command with a code; a nil Err is not printed.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit %d", e.Code)
	}
	return e.Err.Error()
}

func (e *ExitError) Unwrap() error { return e.Err }

// Exit prints a command's error, if it has one, and returns its exit code: 0
// for nil, an ExitError's own, else 2.
func Exit(stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	code := 2
	var exit *ExitError
	if errors.As(err, &exit) {
		code, err = exit.Code, exit.Err
	}
	if err != nil {
		fmt.Fprintf(stderr, "error: %v\n", err)
	}
	return code
}

// version is set by the linker where there is no repository to take it from.
var version string

// Version is the program's version: the linker's, or as the Go toolchain
// stamped it.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}

// ConfigFile is embedded by a command to take its settings from a file too:
// one "key: value" line for each flag's name.
type ConfigFile struct {
	Config kong.ConfigFlag `help:"Read settings from this YAML file: a key for each flag, without the dashes. Flags and environment win." placeholder:"FILE" env:"-"`
}

// VersionFlag is embedded by a command.
type VersionFlag struct {
	Version kong.VersionFlag `help:"Print the version and exit." env:"-"`
}

// Parse fills command, a kong grammar, from args, the environment
// (TREECAST_<FLAG>) and the configuration file. A nil context with a nil error
// says that all is done: help or the version was printed.
func Parse(name, about string, command any, args []string, stdout, stderr io.Writer) (ctx *kong.Context, err error) {
	type exited struct{}
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(exited); !ok {
				panic(r)
			}
			ctx, err = nil, nil
		}
	}()
	parser, err := kong.New(command,
		kong.Name(name), kong.Description(about),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { panic(exited{}) }), // only help and version do
		kong.DefaultEnvars("TREECAST"),
		kong.Configuration(loadConfig),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Vars{"version": name + " " + Version()},
		kong.UsageOnError(),
	)
	if err != nil {
		return nil, err
	}
	return parser.Parse(args)
}

// exists is the check of a file that a flag names, for a message that says
// which flag.
func exists(flag, file string) error {
	if file == "" {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	return f.Close()
}
