// Package transfer writes the transfer log: one line a change, in a format of
// the operator's, into a file of their own.
//
// It promises:
//
//   - One change is one line, whatever bytes its path has; the path can be had
//     back from the line.
//   - [Log.Add] never waits for the disk and never fails: what is transferred is
//     worth more than the line about it. Lines that cannot be written wait, up to
//     a limit; those beyond are counted, and the count is logged when writing works
//     again.
//   - A file that was renamed or removed is let go of before the next line, and a new
//     one is begun: no line goes to the old one, with or without a signal.
//
// Lines that were added in the last tenth of a second before a process is killed
// are lost. The log is not the truth about a tree; the tree is.
//
// Floor F1: it imports the standard library alone, and knows neither NATS nor trees.
package transfer
