package cli

import "runtime"

// ballastBytes is how much a service's heap may at least grow before the
// collector runs again. What a service keeps is a few megabytes, and a burst of
// small files leaves more garbage than that every few milliseconds.
const ballastBytes = 24 << 20

// HoldBallast has the collector count what is never touched, and so takes no
// memory: until release, it runs as rarely with little in use as with 24 MiB.
func HoldBallast() (release func()) {
	ballast := make([]byte, ballastBytes)
	return func() { runtime.KeepAlive(ballast) }
}
