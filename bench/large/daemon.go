package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// program returns a command that is ended with ctx, by SIGTERM and after a time
// by SIGKILL, and with this process, whatever ends that. No setting of treecast's
// comes to it from our environment.
func program(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TREECAST_") }), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Setpgid:   true, // Ctrl-C is for us alone; we end the rest in order
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) } // its group: children too
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// daemons are the processes of a sequence that run until they are stopped.
type daemons struct {
	dir  string      // has their logs
	fail func(error) // is told of the end of one that was not stopped
	all  []*daemon
}

type daemon struct {
	name string
	log  string // a file
	cmd  *exec.Cmd
	end  context.CancelFunc
	done chan struct{}
}

// start runs a program until stop, and returns its pid.
func (d *daemons) start(ctx context.Context, name, path string, args ...string) (pid int, err error) {
	log := filepath.Join(d.dir, name+".log")
	f, err := os.Create(log)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	ctx, end := context.WithCancel(ctx)
	p := &daemon{name: name, log: log, end: end, done: make(chan struct{})}
	p.cmd = program(ctx, path, args...)
	p.cmd.Stdout, p.cmd.Stderr = f, f
	if err := p.cmd.Start(); err != nil {
		end()
		return 0, err
	}
	go func() { // ends with the process; stop waits for it
		defer close(p.done)
		_ = p.cmd.Wait() // its state says more
		if ctx.Err() == nil {
			d.fail(fmt.Errorf("%s: %w: %v", name, errEnded, p.cmd.ProcessState))
		}
	}()
	d.all = append(d.all, p)
	return p.cmd.Process.Pid, nil
}

var errEnded = errors.New("ended, and nobody stopped it")

// stop ends all, the last one first, and returns when they have ended.
func (d *daemons) stop() {
	for _, p := range slices.Backward(d.all) {
		p.end()
		<-p.done
	}
}

// printLogs shows the end of each log.
func (d *daemons) printLogs(w io.Writer) {
	for _, p := range d.all {
		text, err := os.ReadFile(p.log)
		if err != nil {
			continue
		}
		lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
		fmt.Fprintf(w, "--- %s\n%s\n", p.name, bytes.Join(lines[max(0, len(lines)-10):], []byte("\n")))
	}
}

// freeAddr returns a loopback address that nobody listens on.
func freeAddr(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// listens waits until somebody takes connections on addr.
func listens(ctx context.Context, addr string) error {
	for deadline := time.Now().Add(20 * time.Second); ; {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// peakMemory returns the most memory that a running process had, in bytes:
// VmHWM, see proc_pid_status(5). What wait4 tells of a process that has ended
// will not do: it starts at the size of the process that started it.
func peakMemory(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parsePeak(string(text))
}

func parsePeak(status string) (int64, error) {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			var kib int64
			if _, err := fmt.Sscanf(value, "%d kB", &kib); err != nil {
				return 0, fmt.Errorf("VmHWM %q: %w", value, err)
			}
			return kib << 10, nil
		}
	}
	return 0, errors.New("no VmHWM: the process has ended")
}
