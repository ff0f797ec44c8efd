package apply

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"treecast/internal/events"
)

// randomPaths are few, so that what is drawn meets: a path, what is in it, and
// what has another kind there.
var randomPaths = []string{"a", "b", "a/a", "a/b", "b/a", "a/a/a", "a/\xff", "."}

// randomItem draws an entry; those in chunks may be of a file that was renamed.
func randomItem(t *rapid.T) item {
	path := rapid.SampledFrom(randomPaths).Draw(t, "path")
	sec := rapid.Int64Range(1, 3).Draw(t, "time")
	if path == "." {
		return dir(path).at(sec).with(rapid.SampledFrom([]uint16{0o755, 0o711}).Draw(t, "mode"))
	}
	body := rapid.SampledFrom([]string{"", "one", "another", "one two three"}).Draw(t, "body")
	switch rapid.SampledFrom([]string{"file", "file", "file", "chunks", "dir", "dir", "link", "fifo", "gone", "gone"}).Draw(t, "kind") {
	case "dir":
		return dir(path).at(sec).with(rapid.SampledFrom([]uint16{0o755, 0o2711}).Draw(t, "mode"))
	case "link":
		return link(path, "to "+body).at(sec)
	case "fifo":
		return fifo(path).at(sec)
	case "gone":
		return gone(path)
	case "chunks":
		it := reg(path, "one two three").at(sec).in(4)
		if from := rapid.SampledFrom(randomPaths).Draw(t, "from"); from != "." && from != path {
			it = it.was(from)
		}
		return it
	default:
		return reg(path, body).at(sec)
	}
}

// randomStory draws a tree, a foreign file in it perhaps, and groups of entries.
func randomStory(t *rapid.T) story {
	items := rapid.SliceOfN(rapid.Custom(randomItem), 1, 6)
	s := story{name: "random", before: append(items.Draw(t, "before"), dir(".").at(9)), foreign: map[string]string{}}
	state := s.states()[0]
	for _, path := range slices.Sorted(maps.Keys(state)) {
		it := state[path]
		if it.kind == events.Dir && rapid.Bool().Draw(t, "foreign") {
			s.foreign[path+"/foreign"] = "precious"
			break // one is enough, and its name is how it is found
		}
	}
	s.groups = rapid.SliceOfN(items, 1, 3).Draw(t, "groups")
	for _, g := range s.groups {
		for i, it := range g {
			before := func(other item) bool { return parse(other.path).Kin(parse(it.path)) }
			if slices.ContainsFunc(g[:i], before) {
				g[i].chunk = 0 // Commit cannot stage it again when the path has changed
			}
		}
	}
	return s
}

// TestRandomGroupsAndFaults: whatever is applied in whatever groups, and
// whichever call breaks in whichever way, each path is old or new after it, what
// was acked is there, what was someone else's is not lost, and the entries that
// were not acked lead to the same tree.
func TestRandomGroupsAndFaults(t *testing.T) {
	opts := story{}.options(t, "")
	rapid.Check(t, func(t *rapid.T) {
		s := randomStory(t)
		kind := fault(rapid.IntRange(0, len(faultNames)-1).Draw(t, "fault"))
		s.broken(t, &opts, kind, rapid.IntRange(1, 120).Draw(t, "call"))
	})
}
