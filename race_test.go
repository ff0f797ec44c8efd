//go:build race

package treecast_test

func init() { buildFlags = append(buildFlags, "-race") }
