package publisher

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"treecast/internal/events"
	"treecast/internal/source"
	"treecast/internal/stream"
)

// largeFile writes a file of several chunks and looks at it.
func largeFile(t *testing.T, s *session, name string) source.Meta {
	t.Helper()
	content := make([]byte, 5<<20)
	_, _ = rand.Read(content)
	if err := os.WriteFile(filepath.Join(s.Root, name), content, 0o644); err != nil {
		t.Fatal(err)
	}
	path, err := events.ParsePath(name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.src.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// uploadFile uploads it without publishing it.
func uploadFile(t *testing.T, s *session, j *upload) events.ChunkList {
	t.Helper()
	j.change.task.attempts = giveUp // it need not settle
	j.average = events.AverageFor(j.change.meta.Entry.Size, 0)
	if err := s.uploads.run(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	list, err := s.codec.List(&j.meta.Entry, j.packed.Payload)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A node names few of the chunks that it lacks in one message. Where the bucket
// has lost them all, they all come back.
func TestMendingLooksAtAllChunks(t *testing.T) {
	s := newTestSession(t)
	m := largeFile(t, s, "file")
	j := &upload{change: change{meta: m}}
	list := uploadFile(t, s, j)
	j.meta.Entry.Epoch = s.lease.Epoch()
	message, err := s.message(&j.meta.Entry, j.packed.Payload)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.lease.Publish(t.Context(), []stream.Message{*message})...); err != nil {
		t.Fatal(err)
	}
	lose := func(digests []events.Digest) {
		have, err := s.uploads.bucket.Lookup(t.Context(), digests)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range have {
			if err := s.uploads.bucket.Delete(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		}
	}
	var digests []events.Digest
	for _, c := range list {
		digests = append(digests, c.Digest)
	}
	lose(digests)
	uploadFile(t, s, &upload{change: change{meta: m}, known: true, mend: digests[:1]})
	have, err := s.uploads.bucket.Lookup(t.Context(), digests)
	if err != nil || len(have) != len(digests) || len(digests) < 3 {
		t.Fatalf("%d of %d chunks are there, %v", len(have), len(digests), err)
	}
}

// What an upload has stored in vain is found without anything else happening,
// also if it ended well.
func TestAnUploadThatIsSupersededStirs(t *testing.T) {
	s := newTestSession(t)
	m := largeFile(t, s, "file")
	j := &upload{change: change{meta: m}}
	uploadFile(t, s, j)
	s.uploads.jobs[m.Entry.Path] = &upload{} // a newer state
	if err := s.uploaded(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.collection.stirred:
	default:
		t.Fatal("its chunks have no name, and nobody looks for them")
	}
	if sw := sweepOnce(t, s, true); sw.removed == 0 {
		t.Fatal("they are pinned for ever")
	}
}

// What a path was when its upload ended is not published after what it became
// since, which a round may have published without an upload.
func TestAnUploadThatIsLatePublishesNothing(t *testing.T) {
	for what, become := range map[string]func(path string) error{
		"gone":  os.Remove,
		"small": func(path string) error { return os.WriteFile(path, []byte("small"), 0o644) },
	} {
		t.Run(what, func(t *testing.T) {
			s := newTestSession(t)
			m := largeFile(t, s, "file")
			j := &upload{change: change{meta: m}}
			uploadFile(t, s, j)
			s.uploads.jobs[m.Entry.Path] = j
			if err := become(filepath.Join(s.Root, "file")); err != nil {
				t.Fatal(err)
			}
			if err := s.uploaded(t.Context(), j); err != nil {
				t.Fatal(err)
			}
			if s.index.Get(m.Entry.Path) != nil {
				t.Error("a state that is over was published")
			}
			if s.dirty.Len() != 1 {
				t.Error("nobody looks at the path again")
			}
		})
	}
}
