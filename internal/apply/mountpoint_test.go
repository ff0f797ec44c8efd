package apply

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUnmountedRootIsNotFilled: what stands below a mount point is another tree,
// until an operator says that it is the one.
func TestUnmountedRootIsNotFilled(t *testing.T) {
	for name, mountDisk := range map[string]func(t *testing.T, root string){
		"a file system":               func(t *testing.T, root string) { mount(t, "tmpfs", root, "tmpfs", 0, "mode=755") },
		"a directory of the same one": func(t *testing.T, root string) { mount(t, t.TempDir(), root, "", unix.MS_BIND, "") },
	} {
		t.Run(name, func(t *testing.T) {
			b := benchAt(t, t.TempDir())
			mark := filepath.Join(b.top, ".html.treecast")
			t.Run("mounted", func(t *testing.T) {
				mountDisk(t, b.root)
				b.reopen()
				b.apply(reg("f", "1"))
				b.reopen()
				b.close()
				if st, err := os.Lstat(mark); err != nil || !st.Mode().IsRegular() {
					t.Fatalf("the mark: %v, %v", st, err)
				}
			})
			if _, err := Open(b.opts); !errors.Is(err, ErrUnmounted) || Permanent(err) {
				t.Errorf("unmounted: %v", err)
			}
			if names, err := os.ReadDir(b.root); err != nil || len(names) > 0 {
				t.Errorf("the directory below has %v, %v", names, err)
			}
			t.Run("another disk", func(t *testing.T) {
				mountDisk(t, b.root)
				b.reopen()
				b.close()
			})
			must(t, os.Remove(mark))
			b.reopen()
			b.apply(reg("f", "1"))
			if st, err := os.Lstat(mark); err != nil || !st.IsDir() {
				t.Errorf("the staging: %v, %v", st, err)
			}
		})
	}
}
