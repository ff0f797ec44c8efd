package apply

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// mounts reports whether something is mounted at or under name. The kernel
// does not mind if a directory is renamed that has a mount below it; the
// mount would go to the trash with it. Where there is no /proc it says no.
func (d *kernelDir) mounts(name string) (bool, error) {
	self, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(d.fd))
	if err == nil {
		var info []byte
		if info, err = os.ReadFile("/proc/self/mountinfo"); err == nil {
			return mountUnder(string(info), strings.TrimSuffix(self, "/")+"/"+name), nil
		}
	}
	if errors.Is(err, syscall.ENOENT) {
		err = nil
	}
	return false, err
}

// mountUnder looks for path in the text of proc_pid_mountinfo(5), whose fifth
// field is the mount point, with space, tab, newline and backslash in octal.
func mountUnder(info, path string) bool {
	escaped := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(path)
	for line := range strings.Lines(info) {
		fields := strings.Fields(line)
		if len(fields) > 4 && (fields[4] == escaped || strings.HasPrefix(fields[4], escaped+"/")) {
			return true
		}
	}
	return false
}
