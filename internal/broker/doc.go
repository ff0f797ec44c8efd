// Package broker is a NATS server with JetStream inside this process, for
// trying treecast and for small sites. Nothing else in the project assumes it:
// production uses any NATS cluster.
//
// It promises:
//
//   - Streams are kept in the directory that it was given, never in a
//     temporary one, and by one broker at a time.
//   - With SyncAlways a publish is acknowledged after it is on stable storage.
//   - The limit of what is stored lies below what the disk has, so that a full
//     store answers with an error. (A full disk makes nats-server stop the
//     stream until it is restarted, without an answer.)
//   - A configuration file is nats-server's own, with all that it can say
//     about users, permissions, TLS and clusters, but for its logging: that
//     comes to the logger passed in. See deploy/nats-example.conf.
//   - It never ends the process: what nats-server calls fatal is an error of
//     [Start].
//
// Crash points: none of its own. nats-server finds its streams again after a
// kill at any instant; the lock on the directory ends with the process.
//
// Floor F2: imports nats-server, and nothing else of the project.
package broker
