package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"treecast/internal/events"
)

// A loanRequest asks the holder of the lease for a consumer that reads the
// headers of a snapshot, from a sequence on. Who may create one himself may have
// the server send anything anywhere, so that nodes should not.
type loanRequest struct {
	Node string `json:"node"`
	From uint64 `json:"from"`
}

// A loan is the answer.
type loan struct {
	Consumer string `json:"consumer"`
	Refused  string `json:"refused,omitempty"` // why there is none
}

const (
	// The server forgets a consumer of headers that nobody reads from for so long.
	ownIdle  = time.Minute
	lentIdle = 5 * time.Second // then the node may have it lent again

	lendPatience = 2 * time.Second
)

// lentConsumer names the one that is lent to node, by no name that a node may
// have. A right to read from it can say the name.
func lentConsumer(node string) string { return node + "+snapshot" }

// createHeaders makes a consumer in the server's memory that reads site's stream
// from a sequence on, without bodies. It fails if there is one of that name: no
// two readers may share one, and the server would take two of the same settings
// for the same.
func (c *Conn) createHeaders(ctx context.Context, site events.Site, name string, from uint64, idle time.Duration) error {
	cc := jetstream.ConsumerConfig{
		Name:              name,
		Description:       "treecast snapshot " + randomToken(),
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       max(from, 1),
		AckPolicy:         jetstream.AckNonePolicy,
		HeadersOnly:       true,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: idle,
	}
	ctx, done := c.guard(ctx, apiTimeout, exactly(apiPrefix+"CONSUMER.CREATE."+streamName(site)+"."+name))
	defer done()
	_, err := c.js.CreateConsumer(ctx, streamName(site), cc)
	return translate(ctx, err)
}

// LendConsumers lends nodes that ask a consumer for their snapshots, one at a
// time to each node that has a consumer of its own, until stop is called or the
// lease is over. Errors are those of [Lease.Wants].
func (l *Lease) LendConsumers() (stop func(), err error) {
	ctx, cancel := context.WithCancel(context.Background())
	unlisten, err := l.c.listen(ctx, l.site.SnapshotSubject(), func(msg *nats.Msg) {
		if l.over() != nil {
			return
		}
		var r loanRequest
		err := json.Unmarshal(msg.Data, &r)
		if err == nil {
			err = l.lend(ctx, r)
		}
		answer := loan{Consumer: lentConsumer(r.Node)}
		if err != nil {
			answer = loan{Refused: err.Error()}
		}
		l.c.respond(msg, answer)
	})
	if err != nil {
		cancel()
		return nil, failed("listen for snapshots", l.site, err)
	}
	return func() {
		cancel()
		unlisten()
	}, nil
}

func (l *Lease) lend(ctx context.Context, r loanRequest) error {
	ctx, cancel := context.WithTimeout(ctx, lendPatience)
	defer cancel()
	if err := events.CheckName(r.Node); err != nil {
		return err
	}
	if _, err := l.c.consumerInfo(ctx, l.site, r.Node); err != nil {
		return err
	}
	return l.c.createHeaders(ctx, l.site, lentConsumer(r.Node), r.From, lentIdle)
}

// errNoLoan reports that the publisher lends no consumer: there is none, or of an
// older version, or another reader of this node has it.
var errNoLoan = errors.New("no consumer is lent")

// borrow asks the publisher for a consumer that reads on from s.next.
func (s *snapshot) borrow(ctx context.Context) (name string, err error) {
	var answer loan
	if err := s.c.ask(ctx, s.site.SnapshotSubject(), loanRequest{s.node, s.next}, &answer); err != nil {
		return "", fmt.Errorf("%w: %w", errNoLoan, err)
	}
	if answer.Consumer != lentConsumer(s.node) {
		return "", fmt.Errorf("%w: %s", errNoLoan, answer.Refused)
	}
	return answer.Consumer, nil
}
