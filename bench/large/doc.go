// Large measures what it costs to carry one large file to all nodes, and what
// small changes of it cost then: treecast beside rsync to a daemon on each node,
// and beside plain copies, which are the limit of the machine.
//
//	go run ./bench/large --size 256MiB --nodes 3 --rounds 3
//
// All that it compares runs on this machine, on one file system, on trees of
// their own with the same bytes. A sequence is one system with one kind of
// content: it starts empty and goes through the steps of step.go. The clock of a
// step starts right before the change, which was prepared before, and stops when
// every node has it: the file with the source's size and time to the nanosecond,
// or no file. Behind the clock every node's bytes are compared with the
// source's, and at the end of a sequence rsync must find nothing to do.
//
// It promises that a number is printed only if all of that was so, that nothing
// durable is switched off in treecast, and that what was started is ended and
// what was written is removed, whatever happens but for kill -9; then the
// processes end, and the files stay.
//
// Top floor: it may import anything.
package main
