package rig

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Peaks returns the most memory, in bytes, that one process of each role had.
// A process that lives for less than the pause of Watch may not have been seen.
func (d *Daemons) Peaks() map[string]int64 {
	for _, p := range d.running() {
		d.look(p)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.peaks)
}

// Watch looks at the memory of what the daemons start, until ctx ends.
func (d *Daemons) Watch(ctx context.Context) {
	const pause = 100 * time.Millisecond
	for tick := time.NewTicker(pause); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		for _, p := range d.running() {
			if len(family(p.Pid)) > 1 {
				d.look(p)
			}
		}
	}
}

func (d *Daemons) look(p *Daemon) {
	var most int64
	for _, pid := range family(p.Pid) {
		if n, err := PeakMemory(pid); err == nil { // else it has just ended
			most = max(most, n)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.peaks == nil {
		d.peaks = map[string]int64{}
	}
	d.peaks[p.role] = max(d.peaks[p.role], most)
}

// PeakMemory returns the most memory that a running process had, in bytes:
// VmHWM, see proc_pid_status(5). What wait4 tells of a process that has ended
// will not do: it starts at the size of the process that started it.
func PeakMemory(pid int) (int64, error) { return memory(pid, "VmHWM:") }

func memory(pid int, field string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parseMemory(string(text), field)
}

func parseMemory(status, field string) (int64, error) {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, field); ok {
			var kib int64
			if _, err := fmt.Sscanf(value, "%d kB", &kib); err != nil {
				return 0, fmt.Errorf("%s %q: %w", field, value, err)
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("no %s the process has ended", field)
}

// Resident returns the memory, in bytes, that one process of each role has now,
// the one that has most of it: VmRSS.
func (d *Daemons) Resident() (map[string]int64, error) {
	all := map[string]int64{}
	for _, p := range d.running() {
		n, err := memory(p.Pid, "VmRSS:")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		all[p.role] = max(all[p.role], n)
	}
	return all, nil
}

// ResetPeaks has Peaks begin anew: see clear_refs in proc_pid_clear_refs(5).
func (d *Daemons) ResetPeaks() error {
	for _, p := range d.running() {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.Pid), []byte("5"), 0); err != nil {
			return fmt.Errorf("%s: its peak of memory cannot be reset: %w", p.name, err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.peaks)
	return nil
}

// InotifyWatches returns how many a process has.
func InotifyWatches(pid int) (n int, err error) {
	dir := fmt.Sprintf("/proc/%d/fdinfo", pid)
	all, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, f := range all {
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			continue // it was closed just now
		}
		n += strings.Count("\n"+string(text), "\ninotify ")
	}
	return n, nil
}
