package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"gopkg.in/yaml.v3"
)

// A config is a configuration file: flags' names and their values.
type config map[string]any

func loadConfig(r io.Reader) (kong.Resolver, error) {
	c := config{}
	if err := yaml.NewDecoder(r).Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	return c, nil
}

// Validate refuses keys that no flag has: a setting with a typing error would
// be silently off.
func (c config) Validate(app *kong.Application) error {
	var known []string
	_ = kong.Visit(app, func(node kong.Visitable, next kong.Next) error { // our visitor returns no error
		if flag, ok := node.(*kong.Flag); ok {
			known = append(known, flag.Name)
		}
		return next(nil)
	})
	var unknown []string
	for key := range c {
		if !slices.Contains(known, key) {
			unknown = append(unknown, key)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return fmt.Errorf("configuration file: no such setting: %s", strings.Join(unknown, ", "))
	}
	return nil
}

// Resolve gives kong the value for one flag, unless the environment has one:
// kong itself would prefer the file's.
func (c config) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	value, ok := c[flag.Name]
	if !ok || slices.ContainsFunc(flag.Envs, func(name string) bool { _, set := os.LookupEnv(name); return set }) {
		return nil, nil
	}
	switch value.(type) {
	case string, bool, int, float64, []any:
		return value, nil
	}
	return nil, fmt.Errorf("configuration file: %s: a value or a list is expected", flag.Name)
}
