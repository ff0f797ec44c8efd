package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"treecast/internal/events"
)

// What went wrong. Permanent ones need an operator; the others are worth
// another try after a pause.
var (
	// ErrAuth reports credentials that the broker refuses, that cannot be read,
	// or a certificate that does not verify. Permanent.
	ErrAuth = errors.New("not accepted by the broker")
	// ErrServer reports a broker that lacks what treecast needs. Permanent.
	ErrServer = errors.New("unsuitable broker")
	// ErrDenied reports a right that this user does not have. Permanent. The
	// error is or wraps a *[DeniedError].
	ErrDenied = errors.New("permission denied by the broker")
	// ErrConfig reports a stream, bucket or consumer that exists with settings
	// that cannot be changed safely. Permanent. The error is a *[ConfigError].
	ErrConfig = errors.New("exists with other settings")
	// ErrNoStream reports that the site has no stream (yet, or any more).
	ErrNoStream = errors.New("no such stream")
	// ErrNoConsumer reports that the node has no consumer (any more), or that
	// it was made anew.
	ErrNoConsumer = errors.New("no such consumer")
	// ErrHeld reports a lease whose holder answers. The error is a *[HeldError].
	ErrHeld = errors.New("another publisher holds the lease")
	// ErrFenced reports a lease that was taken over. Permanent for this lease.
	// The error is or wraps a *[FencedError].
	ErrFenced = errors.New("the lease was taken over")
	// ErrWentBack reports a stream that has lost what it had acknowledged: it
	// was wiped, restored or lost its tail. Permanent for this lease: acquire
	// it anew and take a new snapshot.
	ErrWentBack = errors.New("the stream went back")
	// ErrReleased reports the use of a lease after its release.
	ErrReleased = errors.New("the lease was released")
	// ErrFull reports a stream, an account or a store at its limit. The message
	// is not stored.
	ErrFull = errors.New("no room in the stream: raise its limit, or give the broker's store more room")
	// ErrTooMany reports a broker that has too much to do, or that still
	// compares an earlier publish. The message is not stored.
	ErrTooMany = errors.New("the broker is busy")
	// ErrTooLarge reports a message over the broker's or the stream's limit.
	// Permanent for this message, which is not stored.
	ErrTooLarge = errors.New("message too large")
	// ErrNotSent reports a message that was held back because an earlier one of
	// the same call was not stored. It is not stored.
	ErrNotSent = errors.New("not sent")
	// ErrUnknown reports a publish without an answer: stored or not.
	ErrUnknown = errors.New("outcome unknown")
	// ErrDisconnected reports a call without, or cut short by the loss of, a
	// connection. For a publish it means that nothing was sent.
	ErrDisconnected = errors.New("not connected to the broker")
	// ErrSilent reports a publisher or a node that does not answer: it is not
	// there, or has something else to do for seconds.
	ErrSilent = errors.New("nobody answers")
	// ErrUnavailable reports a broker that does not answer in time.
	ErrUnavailable = errors.New("no answer from the broker")
)

// An OpError says which call failed, and on which site.
type OpError struct {
	Op   string // as in "open consumer"
	Site events.Site
	Err  error
}

func (e *OpError) Error() string {
	if e.Site == "" {
		return e.Op + ": " + e.Err.Error()
	}
	return e.Op + ", site " + string(e.Site) + ": " + e.Err.Error()
}

func (e *OpError) Unwrap() error { return e.Err }

// failed wraps err, if there is one.
func failed(op string, site events.Site, err error) error {
	if err == nil {
		return nil
	}
	return &OpError{op, site, err}
}

// A DeniedError names the subject that the user may not use; it is an
// [ErrDenied].
type DeniedError struct {
	Subject   string
	Subscribe bool // else publish
}

func (e *DeniedError) Error() string {
	verb := "publish to"
	if e.Subscribe {
		verb = "subscribe to"
	}
	return fmt.Sprintf("%v: may not %s %q; deploy/nats-example.conf has the rights that are needed", ErrDenied, verb, e.Subject)
}

func (e *DeniedError) Unwrap() error { return ErrDenied }

// A ConfigError names a setting of what exists already; it is an [ErrConfig].
type ConfigError struct {
	Kind, Name string // "stream" "web"
	Field      string // as the JetStream API spells it
	Have, Want string
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("%s %q %v: %s is %s, want %s; change that with the nats command, or remove the %[1]s",
		e.Kind, e.Name, ErrConfig, e.Field, e.Have, e.Want)
}

func (e *ConfigError) Unwrap() error { return ErrConfig }

// A HeldError names the publisher that holds the lease and answers; it is an
// [ErrHeld].
type HeldError struct{ Holder Holder }

func (e *HeldError) Error() string { return ErrHeld.Error() + ": " + e.Holder.String() }

func (e *HeldError) Unwrap() error { return ErrHeld }

// A FencedError names the publisher that took the lease over; it is an
// [ErrFenced]. Its Holder is zero where that could not be found out.
type FencedError struct{ Holder Holder }

func (e *FencedError) Error() string {
	if e.Holder == (Holder{}) {
		return ErrFenced.Error()
	}
	return ErrFenced.Error() + " by " + e.Holder.String()
}

func (e *FencedError) Unwrap() error { return ErrFenced }

// Error codes of the JetStream API, from nats-server's errors.json.
const (
	codeNoResources      jetstream.ErrorCode = 10002 // of the account
	codeUnavailable      jetstream.ErrorCode = 10008
	codeNoConsumer       jetstream.ErrorCode = 10014
	codeInsufficient     jetstream.ErrorCode = 10023 // of the server
	codeNoMessage        jetstream.ErrorCode = 10037
	codeNotEnabledForAcc jetstream.ErrorCode = 10039
	codeStorage          jetstream.ErrorCode = 10047
	codeTooLarge         jetstream.ErrorCode = 10054
	codeNoStream         jetstream.ErrorCode = 10059
	codeWrongLast        jetstream.ErrorCode = 10071
	codeNoReplicas       jetstream.ErrorCode = 10074
	codeNotEnabled       jetstream.ErrorCode = 10076
	codeStoreFailed      jetstream.ErrorCode = 10077
	codeWrongLastNow     jetstream.ErrorCode = 10164 // while another is compared
	codeTooMany          jetstream.ErrorCode = 10167
	codeBatchInflight    jetstream.ErrorCode = 10210
)

// apiCode returns the JetStream API's code in err, 0 if it has none.
func apiCode(err error) jetstream.ErrorCode {
	if e, ok := errors.AsType[*jetstream.APIError](err); ok {
		return e.ErrorCode
	}
	return 0
}

// translate turns what nats.go returned under ctx into this package's terms.
func translate(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrReconnectBufExceeded),
		errors.Is(err, nats.ErrConnectionReconnecting), errors.Is(err, nats.ErrConnectionClosed),
		errors.Is(err, nats.ErrBadSubscription):
		return fmt.Errorf("%w: %w", ErrDisconnected, err)
	case brokenWire(err):
		return fmt.Errorf("%w: %w", ErrDisconnected, err)
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case errors.Is(err, jetstream.ErrTooManyStalledMsgs):
		return fmt.Errorf("%w: %w", ErrTooMany, err)
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	if what := meaning(apiCode(err)); what != nil {
		return fmt.Errorf("%w: %w", what, err)
	}
	return err
}

// brokenWire reports an error of the connection itself, which the client
// returns as it is when it fails in the midst of a write.
func brokenWire(err error) bool {
	var op net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.As(err, &op)
}

func meaning(code jetstream.ErrorCode) error {
	switch code {
	case codeNoStream:
		return ErrNoStream
	case codeNoConsumer:
		return ErrNoConsumer
	case codeNotEnabled, codeNotEnabledForAcc, codeNoReplicas:
		return ErrServer
	case codeUnavailable:
		return ErrUnavailable
	case codeTooMany, codeWrongLastNow, codeBatchInflight:
		return ErrTooMany
	case codeTooLarge:
		return ErrTooLarge
	case codeNoResources, codeInsufficient, codeStorage, codeStoreFailed:
		return ErrFull
	}
	return nil
}

func configErr(kind, name, field string, have, want any) error {
	return &ConfigError{kind, name, field, show(have), show(want)}
}

func show(v any) string {
	if s, ok := v.(string); ok {
		return strconv.Quote(s)
	}
	return fmt.Sprint(v)
}
