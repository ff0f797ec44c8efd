package stream

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
)

// TestBrokenWireIsDisconnection: what the client returns when the connection
// breaks in the midst of a write is no error of its own kind.
func TestBrokenWireIsDisconnection(t *testing.T) {
	for _, err := range []error{
		io.ErrClosedPipe, io.EOF, net.ErrClosed, &net.OpError{Op: "write", Err: syscall.EPIPE},
		fmt.Errorf("wrapped: %w", &net.OpError{Op: "write", Err: syscall.ECONNRESET}),
	} {
		if got := translate(t.Context(), err); !errors.Is(got, ErrDisconnected) {
			t.Errorf("%v: %v", err, got)
		}
	}
	if got := translate(t.Context(), errors.New("else")); errors.Is(got, ErrDisconnected) {
		t.Error(got)
	}
}
