package apply

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

// BenchmarkStageCommit is a node's work for groups of one and of a thousand
// files of 4 KiB, new ones and the same path again and again; on disk unless
// TMPDIR says otherwise.
func BenchmarkStageCommit(b *testing.B) {
	body := strings.Repeat("0123456789abcdef", 256)
	for _, n := range []int{1, 4, 5, 32, 1000} {
		for _, fresh := range []bool{false, true} {
			name := "overwrite"
			if fresh {
				name = "new"
			}
			b.Run(fmt.Sprintf("%d/%s", n, name), func(b *testing.B) {
				bn := newBench(b)
				bn.apply(dir("d"))
				payload := reg("x", body).payload(bn.opts.Codec)
				round := 0
				for b.Loop() {
					round++
					staged := make([]*Staged, n)
					var eg errgroup.Group
					eg.SetLimit(4)
					for i := range n {
						path := fmt.Sprintf("d/f%d", i)
						if fresh {
							path = fmt.Sprintf("d%d/f%d", round, i)
						}
						e := reg(path, body).at(int64(round)).entry()
						eg.Go(func() (err error) {
							staged[i], err = bn.tree.Stage(context.Background(), e, payload)
							return err
						})
					}
					must(b, eg.Wait())
					_, err := bn.tree.Commit(context.Background(), staged)
					must(b, err)
					must(b, bn.tree.Mark(Watermark{Site: "web", Seq: uint64(round)}))
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(round*n), "µs/file")
			})
		}
	}
}
