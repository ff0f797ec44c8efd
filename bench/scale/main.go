package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"treecast/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)                                              // a second signal kills us at once
	os.Exit(cli.Exit(os.Stderr, run(ctx, os.Args[1:], os.Stdout, os.Stderr))) //nolint:forbidigo // only main ends the process
}
