// Package cli is what the three commands share: flags with their environment
// variables and configuration file, connection options, the logger, the transfer
// log, the pid file, exit codes.
//
// It promises that a mistake in a flag or in a configuration file, an unknown
// key for one, is an error that names it, and that nothing runs then.
//
// It stands above F2 and below the commands: a table of nodes needs what a
// subscriber says of itself.
package cli
