// Package rig has what the commands below bench share: trees with known bytes,
// changes of them, the processes that are measured, what those cost, and the judge.
//
// It promises that what it starts ends with it, whatever happens but for
// kill -9, and that no setting of treecast's comes to a process from outside.
//
// Floor 4: it may import what is below the commands.
package rig
