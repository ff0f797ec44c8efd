package stream

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"treecast/internal/events"
)

var update = flag.Bool("update", false, "write the golden files")

// TestGoldenConfigs fails when what we ask the server for changes: then sites
// that exist meet the change too.
func TestGoldenConfigs(t *testing.T) {
	stream := streamConfig(site, Config{Replicas: 3, MaxBytes: 10 << 30, TombstoneTTL: 720 * time.Hour}, 8<<20)
	consumer := consumerConfig("b", NodeConfig{Version: "1.2.3", Host: "b.example"})
	for name, config := range map[string]any{
		"stream.json":   stream,
		"default.json":  streamConfig(site, Config{MaxBytes: -1}, 1_000_000),
		"consumer.json": consumer,
		"nodes.json":    nodesConfig(site, Config{}),
		"bucket.json":   bucketConfig(site, Config{Replicas: 3, BucketBytes: 100 << 30}),
	} {
		got, err := json.MarshalIndent(config, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(string(want)) != string(got) {
			t.Errorf("%s is now\n%s", name, got)
		}
	}
}

// What the server made of our configurations needs no change afterwards.
func TestEnsureStreamAgainChangesNothing(t *testing.T) {
	s, c := newSite(t, nil)
	for _, cfg := range []Config{{}, {MaxBytes: -1}, {Replicas: 1}, {MaxBytes: 1 << 20, TombstoneTTL: time.Hour}, {MaxBytes: 1 << 20, TombstoneTTL: time.Hour}} {
		info, err := c.EnsureStream(t.Context(), site, cfg)
		if err != nil {
			t.Fatal(err)
		}
		si, err := c.lookUpStream(t.Context(), "web")
		if err != nil {
			t.Fatal(err)
		}
		if _, changed, err := mergeStream(si.Config, streamConfig(site, cfg, c.nc.MaxPayload()), cfg, 0); err != nil || len(changed) > 0 {
			t.Errorf("%+v: %v still to change, %v", cfg, changed, err)
		}
		if cfg.TombstoneTTL > 0 && info.TombstoneTTL != cfg.TombstoneTTL {
			t.Errorf("TTL is %s", info.TombstoneTTL)
		}
	}
	node := s.connect("b")
	for range 2 {
		openConsumer(t, node, "b", NodeConfig{})
	}
	info, err := c.consumerInfo(t.Context(), site, "b")
	if err != nil {
		t.Fatal(err)
	}
	if _, changed, err := mergeConsumer(info.Config, consumerConfig("b", NodeConfig{})); err != nil || len(changed) > 0 {
		t.Errorf("%v still to change, %v", changed, err)
	}
}

func TestEnsureStreamMendsWhatIsSafe(t *testing.T) {
	s := startServer(t, nil)
	c := s.connect("p")
	if _, err := c.js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "web", Subjects: []string{site.LeaseSubject(), site.FileSubjects()},
		MaxMsgsPerSubject: 1, MaxMsgSize: 1000, AllowRollup: true, MaxBytes: 1 << 20,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.EnsureStream(t.Context(), site, Config{MaxBytes: -1}); err != nil {
		t.Fatal(err)
	}
	si, err := c.lookUpStream(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	sc := si.Config
	if sc.Discard != jetstream.DiscardNew || !sc.AllowDirect || !sc.AllowAtomicPublish || !sc.AllowMsgTTL || !sc.DenyDelete ||
		!sc.DenyPurge || sc.AllowRollup || sc.MaxMsgSize != 1<<20 {
		t.Errorf("not mended: %+v", sc)
	}
	if sc.MaxBytes != 1<<20 {
		t.Errorf("the operator's limit is now %d", sc.MaxBytes)
	}
	publish(t, acquire(t, c, "a"), messages(t, 50, "x")...)
}

func TestEnsureStreamReportsWhatIsNot(t *testing.T) {
	s := startServer(t, nil)
	c := s.connect("p")
	for field, change := range map[string]func(*jetstream.StreamConfig){
		"subjects":             func(sc *jetstream.StreamConfig) { sc.Subjects = []string{"treecast." + sc.Name + ".>"} },
		"storage":              func(sc *jetstream.StreamConfig) { sc.Storage = jetstream.MemoryStorage },
		"retention":            func(sc *jetstream.StreamConfig) { sc.Retention = jetstream.InterestPolicy },
		"max_msgs_per_subject": func(sc *jetstream.StreamConfig) { sc.MaxMsgsPerSubject = 5 },
		"max_age":              func(sc *jetstream.StreamConfig) { sc.MaxAge = time.Hour },
		"max_msgs":             func(sc *jetstream.StreamConfig) { sc.MaxMsgs = 1000 },
		"no_ack":               func(sc *jetstream.StreamConfig) { sc.NoAck = true; sc.AllowAtomicPublish = false },
	} {
		// A site each: the server removes a deleted stream's files after it has
		// answered, so that one of the same name may not be had at once.
		of := events.Site(field)
		sc := streamConfig(of, Config{}, 1<<20)
		change(&sc)
		if _, err := c.js.CreateStream(t.Context(), sc); err != nil {
			t.Fatalf("%s: %v", field, err)
		}
		_, err := c.EnsureStream(t.Context(), of, Config{})
		if e, ok := errors.AsType[*ConfigError](err); !ok || !errors.Is(err, ErrConfig) || e.Field != field || e.Have == e.Want {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestMergeConsumerRefuses(t *testing.T) {
	want := consumerConfig("b", NodeConfig{})
	for field, change := range map[string]func(*jetstream.ConsumerConfig){
		"deliver_subject": func(cc *jetstream.ConsumerConfig) { cc.DeliverSubject = "x" },
		"durable_name":    func(cc *jetstream.ConsumerConfig) { cc.Durable = "" },
		"ack_policy":      func(cc *jetstream.ConsumerConfig) { cc.AckPolicy = jetstream.AckNonePolicy },
		"deliver_policy":  func(cc *jetstream.ConsumerConfig) { cc.DeliverPolicy = jetstream.DeliverLastPolicy },
		"filter_subject":  func(cc *jetstream.ConsumerConfig) { cc.FilterSubjects = []string{"a", "b"} },
		"headers_only":    func(cc *jetstream.ConsumerConfig) { cc.HeadersOnly = true },
	} {
		have := consumerConfig("b", NodeConfig{})
		change(&have)
		if _, _, err := mergeConsumer(have, want); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}
