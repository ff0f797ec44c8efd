package rig

import (
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CPU returns the CPU time that the processes of each role have used so far,
// with all that they have started. What has ended is counted in hundredths of a
// second.
func (d *Daemons) CPU() map[string]time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := maps.Clone(d.spent)
	if all == nil {
		all = map[string]time.Duration{}
	}
	for _, p := range d.all {
		all[p.role] += cpuTime(family(p.Pid)...)
	}
	return all
}

// family returns a process and what its threads have started and what that has.
func family(pid int) []int {
	all := []int{pid}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return all // it has just ended
	}
	for _, thread := range threads {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, thread.Name()))
		if err != nil {
			continue // as above
		}
		for child := range strings.FieldsSeq(string(text)) {
			if n, err := strconv.Atoi(child); err == nil {
				all = append(all, family(n)...)
			}
		}
	}
	return all
}

// cpuTime returns what processes have used, and those of their children that
// have ended. One that has just ended is left out: its parent has it.
func cpuTime(pids ...int) (sum time.Duration) {
	for _, pid := range pids {
		var own unix.Timespec
		if unix.ClockGettime(cpuClock(pid), &own) != nil {
			continue
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		if children, err := parseChildren(string(text)); err == nil {
			sum += time.Duration(own.Nano()) + children
		}
	}
	return sum
}

// cpuClock is clock_getcpuclockid(3): to the nanosecond, and with the threads
// that have ended.
func cpuClock(pid int) int32 { return ^int32(pid)<<3 | 2 } //nolint:gosec // pids have 22 bits

// parseChildren returns cutime and cstime of proc_pid_stat(5).
func parseChildren(stat string) (time.Duration, error) {
	const tick = 10 * time.Millisecond                                  // USER_HZ is 100 wherever Go runs
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:]) // the name before may have anything
	if len(fields) < 15 {
		return 0, fmt.Errorf("stat %q is too short", stat)
	}
	var sum time.Duration
	for _, f := range fields[13:15] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

// Loopback returns the bytes that have gone over the loopback, whoever sent
// them.
func Loopback() (int64, error) {
	text, err := os.ReadFile("/sys/class/net/lo/statistics/tx_bytes")
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}
