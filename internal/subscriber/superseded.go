package subscriber

import "treecast/internal/events"

// supersede removes from a snapshot what a newer entry of kin took the place of:
// what is in a directory that is none any more, and what has become a directory,
// since something is in it. The stream keeps both where a publisher was cut short
// before the tombstones. Applied in the stream's order they would have left
// nothing.
func supersede(want map[events.Path]*events.Entry, seqOf map[events.Path]uint64) {
	var void []events.Path
	dirs := map[events.Path]bool{{}: true} // that have but directories above them
	for p, e := range want {
		inDirs := true
		for q := p; !q.IsRoot(); {
			if q = q.Parent(); dirs[q] {
				break
			}
			switch above := want[q]; {
			case above == nil || above.Kind == events.Dir:
				continue
			case seqOf[q] > seqOf[p]:
				void = append(void, p)
			case e.Kind != events.Tombstone:
				void = append(void, q)
			}
			inDirs = false
		}
		if parent := p.Parent(); inDirs && !p.IsRoot() {
			dirs[parent] = true
		}
	}
	for _, p := range void {
		delete(want, p)
	}
}
