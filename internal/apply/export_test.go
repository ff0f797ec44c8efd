package apply

import "pgregory.net/rapid"

// What the tests of package apply_test use of a power.

// The faults.
const (
	FailBefore = failBefore
	FailAfter  = failAfter
	Crash      = crash
	CrashNames = crashNames
)

// Fault is what happens to the call that breaks.
type Fault = fault

// A Power is a file system whose power can fail.
type Power = power

// NewPower returns one for the tree and its staging below top, all of it durable.
func NewPower(t rapid.TB, top string) *Power { return newPower(t, top, failBefore, 0) }

// OpenOn is [Open] on p.
func OpenOn(o Options, p *Power) (*Tree, error) { return open(o, p) }

// Arm makes the at-th call from now on break; 0: none does.
func (p *power) Arm(kind Fault, at int) { p.arm(kind, at) }

// Dead reports whether the power has failed.
func (p *power) Dead() bool { return p.dead }

// Revive brings the power back as if only the process had died.
func (p *power) Revive() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead, p.at = false, 0
}

// Survive builds at dst what a power cut leaves.
func (p *power) Survive(t rapid.TB, dst string) { p.survive(t, dst) }
