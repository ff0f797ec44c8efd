package apply

import (
	"sync"

	"treecast/internal/events"
)

// known remembers of large files that this process wrote, or read whole, what
// is in them, so that they need not be read again: to be found right, to be
// linked under a new name, to give chunks to a new version. The kernel's word
// that nothing happened to the inode since (see stat.same) is the proof.
//
// It may be used from many goroutines.
type known struct {
	mu     sync.Mutex
	files  map[uint64]knownFile // by inode
	chunks int                  // in all lists
}

type knownFile struct {
	st     stat
	path   events.Path
	digest events.Digest
	list   events.ChunkList // nil: not known
	trail  events.Trail     // of the digest; nil: not known
}

// maxKnownChunks bounds the memory: 40 bytes each, and a trail for each file.
const maxKnownChunks = 1 << 18

func newKnown() *known { return &known{files: map[uint64]knownFile{}} }

// put remembers a file that is st.
func (k *known) put(f knownFile) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drop(f.st.ino)
	for ino := range k.files { // any will do
		if k.chunks+len(f.list) < maxKnownChunks {
			break
		}
		k.drop(ino)
	}
	k.files[f.st.ino] = f
	k.chunks += len(f.list) + 1
}

func (k *known) drop(ino uint64) {
	if f, ok := k.files[ino]; ok {
		k.chunks -= len(f.list) + 1
		delete(k.files, ino)
	}
}

// forget drops what is known of the file that is st.
func (k *known) forget(st stat) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drop(st.ino)
}

// get returns what is known of the file that is st now.
func (k *known) get(st stat) (knownFile, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f, ok := k.files[st.ino]
	return f, ok && f.st.same(st)
}

// unlinked notes that one of the names of the file that was st is gone; look
// says what its other one is. That changes ctime, and nothing else.
func (k *known) unlinked(p events.Path, st stat, look func(events.Path) (stat, error)) {
	f, ok := k.get(st)
	if !ok {
		return
	}
	now, err := look(f.path)
	was := st
	was.ctime = now.ctime
	k.mu.Lock()
	defer k.mu.Unlock()
	switch f, still := k.files[st.ino]; {
	case !still:
	case f.path == p || err != nil || !now.same(was):
		k.drop(st.ino)
	default:
		f.st = now
		k.files[st.ino] = f
	}
}
