// Scale measures where time and memory go when there are many nodes, or many
// files: treecast alone, as it is by default.
//
//	go run ./bench/scale --files 10000,100000,1000000 --out DIR
//
// All of it runs on this machine, on one file system. A sequence has a broker, a
// publisher, nodes and a tree of its own; fanout.go has what is done with each
// number of nodes, tree.go what is done with each number of files. The clock of
// a work runs as in bench: from right before the change until every node was
// seen to have every path of it. Then the processes are left alone until they
// use no CPU any more; what they used until then is what the work cost. Divided
// by the number of paths that the work is about, it shows what grows faster
// than the work.
//
// It promises that a sequence ends with nothing for rsync to do at any node, by
// checksums, or with an error; that nothing durable is switched off; and that
// what was started is ended and what was written is removed, whatever happens
// but for kill -9. No time is too long but that of --patience.
//
// Top floor: it may import anything that is no command.
package main
