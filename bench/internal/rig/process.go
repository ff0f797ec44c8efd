package rig

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
	"sync"
	"syscall"
	"time"
)

// Program returns a command that is ended with ctx, by SIGTERM and after a time
// by SIGKILL, and with this process, whatever ends that. No setting of treecast's
// comes to it from our environment.
func Program(ctx context.Context, name string, args ...string) *exec.Cmd {
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

// FirstLine returns the first line that a program prints, whatever its exit
// code: some call it a failure to be asked for help.
func FirstLine(ctx context.Context, name string, args ...string) (string, error) {
	out, err := Program(ctx, name, args...).Output()
	line, _, _ := strings.Cut(string(out), "\n")
	if line == "" {
		return "", fmt.Errorf("%s prints nothing: %w", name, err)
	}
	return line, nil
}

// Has reports whether a program is installed.
func Has(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// Daemons are the processes of a system: those that run until they are stopped,
// and what they start. Its methods may be called at the same time.
type Daemons struct {
	Dir  string      // has their logs
	Fail func(error) // is told of the end of one that was not stopped

	mu    sync.Mutex
	all   []*Daemon
	spent map[string]time.Duration // CPU time of those that have ended, by role
	peaks map[string]int64         // memory in bytes, the most that was seen, by role
}

// A Daemon is a process that runs until it is stopped.
type Daemon struct {
	Pid int

	role, log string
	name      string
	last      time.Duration // CPU time when it was stopped, with its children's
	cmd       *exec.Cmd
	end       context.CancelFunc
	done      chan struct{}
	owner     *Daemons
}

// Start runs a program until it is stopped. Its name is its log's; what it costs
// is counted under its role, which several may share.
func (d *Daemons) Start(ctx context.Context, role, name, path string, args ...string) (*Daemon, error) {
	log := filepath.Join(d.Dir, name+".log")
	f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ctx, end := context.WithCancel(ctx)
	p := &Daemon{role: role, name: name, log: log, end: end, done: make(chan struct{}), owner: d}
	p.cmd = Program(ctx, path, args...)
	p.cmd.Stdout, p.cmd.Stderr = f, f
	if err := p.cmd.Start(); err != nil {
		end()
		return nil, err
	}
	p.Pid = p.cmd.Process.Pid
	d.mu.Lock()
	d.all = append(d.all, p)
	d.mu.Unlock()
	go func() { // ends with the process; Stop waits for it
		_ = p.cmd.Wait() // its state says more
		d.bury(p)
		if ctx.Err() == nil {
			d.Fail(fmt.Errorf("%s: %w: %v", name, errEnded, p.cmd.ProcessState))
		}
		close(p.done)
	}()
	return p, nil
}

var errEnded = errors.New("ended, and nobody stopped it")

// bury keeps what an ended process has cost.
func (d *Daemons) bury(p *Daemon) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = slices.DeleteFunc(d.all, func(q *Daemon) bool { return q == p })
	d.spend(p.role, max(p.last, total(p.cmd.ProcessState)))
}

func (d *Daemons) spend(role string, used time.Duration) {
	if d.spent == nil {
		d.spent = map[string]time.Duration{}
	}
	d.spent[role] += used
}

// total has what the process waited for, and not what was ended with it.
func total(state *os.ProcessState) time.Duration { return state.UserTime() + state.SystemTime() }

// Run runs a program to its end, and counts what it costs under a role.
func (d *Daemons) Run(ctx context.Context, role, dir, name string, args ...string) error {
	cmd := Program(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState != nil {
		d.mu.Lock()
		d.spend(role, total(cmd.ProcessState))
		d.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// Stop ends it, and returns when it has ended.
func (p *Daemon) Stop() {
	p.owner.look(p)
	used := cpuTime(family(p.Pid)...)
	p.owner.mu.Lock()
	p.last = used
	p.owner.mu.Unlock()
	p.end()
	<-p.done
}

// Stop ends all, the last one first, and returns when they have ended.
func (d *Daemons) Stop() {
	for _, p := range slices.Backward(d.running()) {
		p.Stop()
	}
}

func (d *Daemons) running() []*Daemon {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.all)
}

// PrintLogs shows the end of the log of each that was started.
func (d *Daemons) PrintLogs(w io.Writer) {
	logs, _ := filepath.Glob(filepath.Join(d.Dir, "*.log")) // the pattern is good
	for _, log := range logs {
		text, err := os.ReadFile(log)
		if err != nil {
			continue
		}
		lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
		fmt.Fprintf(w, "--- %s\n%s\n", strings.TrimSuffix(filepath.Base(log), ".log"), bytes.Join(lines[max(0, len(lines)-10):], []byte("\n")))
	}
}

// FreeAddr returns a loopback address that nobody listens on.
func FreeAddr(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// Listens waits until somebody takes connections on addr.
func Listens(ctx context.Context, addr string) error {
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
