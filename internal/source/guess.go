package source

import (
	"slices"

	"treecast/internal/events"
)

// A guess says which chunk comes next, if a file is as it was but for a few
// places: a cut depends on the bytes since the one before, and on the one behind
// it. So bytes that are a chunk of the old list are one of the new list, if that
// one was not cut by the end of data, and the one behind it follows again.
type guess struct {
	was  events.ChunkList
	cut  []bool          // by its content, or its largest size
	size map[int64][]int // which chunks have that size
	at   int             // the one that may be next; len(was): none is known
}

func newGuess(was events.ChunkList, average uint32) guess {
	g := guess{was: was, cut: make([]bool, len(was)), size: make(map[int64][]int, len(was))}
	for i, c := range was {
		last := i+1 == len(was) || was[i+1].Hole()
		if !c.Hole() && !last && c.Size >= int64(average)/4 && c.Size <= 2*int64(average) {
			g.cut[i] = true
			g.size[c.Size] = append(g.size[c.Size], i)
		}
	}
	return g
}

// next returns the chunk that may come next, where so many bytes of data are
// left.
func (g *guess) next(left int64) (events.Chunk, bool) {
	if g.at < len(g.was) && g.was[g.at].Hole() {
		g.at++
	}
	if g.at >= len(g.was) || !g.cut[g.at] || g.was[g.at].Size >= left {
		return events.Chunk{}, false
	}
	g.at++
	return g.was[g.at-1], true
}

// missed says that the chunk that next returned did not come.
func (g *guess) missed() { g.at = len(g.was) }

// found returns a chunk's digest if it is one of the list, and whether it is:
// then its neighbour may be next. Only a chunk of a size that is in the list is
// hashed; others have the zero digest.
func (g *guess) found(body []byte) (sum events.Digest, known bool) {
	candidates := g.size[int64(len(body))]
	if len(candidates) == 0 {
		return sum, false
	}
	sum = events.Sum(body)
	i := slices.IndexFunc(candidates, func(i int) bool { return g.was[i].Digest == sum })
	if i < 0 {
		return sum, false
	}
	g.at = candidates[i] + 1
	return sum, true
}
