// Bench measures how long it takes until all nodes have what was done to a
// source tree, and what that costs: treecast, the loop of inotifywait and rsync,
// lsyncd and Syncthing side by side, and plain copies, which are the limit of
// the machine.
//
//	go run ./bench --nodes 3 --rounds 3 --out DIR
//
// All of it runs on this machine, on one file system. A sequence is one system
// in one round: it starts with a tree of its own, the same for all, and goes
// through the works of work.go, the same for all, in the same order. The clock of
// a work starts right before the change, and stops when every node was seen to
// have every path that the change touched, by its kind, size and time to the
// nanosecond, or to lack it. Nodes are looked at every millisecond, by the same
// code for all systems (rig.Await). Then the system is left alone until it uses
// no CPU any more; what it used until then is what the work cost. Then rsync must find
// nothing to do, by checksums.
//
// It promises that a number is printed only if all of that was so; where it was
// not, the table says what was. A system that did not carry a change in time is
// measured no further in that round. Nothing durable is switched off in treecast,
// and what was set in the others is printed. What was started is ended and what
// was written is removed, whatever happens but for kill -9.
//
// Top floor: it may import anything that is no command.
package main
