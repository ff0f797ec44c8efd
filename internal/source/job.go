package source

import "treecast/internal/events"

// A job is to watch a directory and everything under it. When all visits that
// belong to it are done, its top is hinted, deep: the watches come first, so
// that no change falls between.
type job struct {
	top    events.Path
	open   int               // visits that are not done
	checks bool              // known directories are compared with the disk
	silent bool              // no hint at the end
	ended  []chan<- struct{} // to be closed then
}

// A visit is to watch one directory and to look for directories in it.
type visit struct {
	node *node
	job  *job
}

// adopt makes the end of j tell what the end of old was to tell.
func (j *job) adopt(old *job) {
	j.ended = append(j.ended, old.ended...)
	old.ended = nil
}

func (w *Watcher) push(n *node, j *job) {
	j.open++
	w.work = append(w.work, visit{node: n, job: j})
}

// visitNext does the visit that was pushed last, and reports whether there was
// one.
func (w *Watcher) visitNext() bool {
	if len(w.work) == 0 || w.fsn == nil {
		return false
	}
	v := w.work[len(w.work)-1]
	w.work[len(w.work)-1] = visit{}
	w.work = w.work[:len(w.work)-1]
	if p, ok := v.node.path(w.root); ok {
		w.visit(v, p)
	}
	if v.job.open--; v.job.open == 0 {
		w.finish(v.job)
	}
	return true
}

func (w *Watcher) finish(j *job) {
	w.ended = append(w.ended, j.ended...)
	if !j.silent {
		w.burst.add(j.top, true)
	}
}
