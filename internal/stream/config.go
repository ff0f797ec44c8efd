package stream

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"treecast/internal/events"
)

// Config is what a publisher wants of a site's stream and bucket.
type Config struct {
	Replicas     int           // 0: as it is, 1 for a new stream
	MaxBytes     int64         // -1 or 0: as it is, no limit for a new stream
	BucketBytes  int64         // MaxBytes for the bucket of large bodies
	TombstoneTTL time.Duration // goes into the stream's metadata, see Info; each tombstone has its own
}

// NodeConfig is what a node wants of its consumer. Zero values mean the
// defaults below.
type NodeConfig struct {
	AckWait           time.Duration // after which what is not acked comes again
	MaxAckPending     int           // messages that may be on their way or at work
	InactiveThreshold time.Duration // a consumer that nobody used for so long is forgotten by the server
	Version, Host     string        // for `nats consumer info`
}

const (
	defaultAckWait           = time.Minute
	defaultMaxAckPending     = 4096
	defaultInactiveThreshold = 30 * 24 * time.Hour

	apiPrefix    = "$JS.API."
	maxConsumers = 20_000 // a positive number lifts the server's own default of 1,000

	// A message has at most a header of an entry, an inline body (zstd can
	// make bytes larger by little), and the headers that fence it.
	minMessageBytes = events.MaxInlineBytes + events.MaxHeaderBytes + 16<<10
	maxMessageBytes = 1 << 20

	maxStatusBytes = 64 << 10

	tombstoneTTLKey = "treecast.tombstone-ttl"
)

func streamName(site events.Site) string   { return string(site) }
func statusBucket(site events.Site) string { return string(site) + "-nodes" }
func statusStream(site events.Site) string { return "KV_" + statusBucket(site) }
func bucketStream(site events.Site) string { return "OBJ_" + string(site) }
func statusSubject(site events.Site, node string) string {
	return "$KV." + statusBucket(site) + "." + node
}

// streamConfig is the configuration of a new stream on a broker that takes
// messages of maxPayload bytes.
func streamConfig(site events.Site, cfg Config, maxPayload int64) jetstream.StreamConfig {
	sc := jetstream.StreamConfig{
		Name:               streamName(site),
		Description:        "treecast: the latest entry of every path of site " + string(site),
		Subjects:           []string{site.FileSubjects(), site.LeaseSubject()},
		Retention:          jetstream.LimitsPolicy,
		Storage:            jetstream.FileStorage,
		Replicas:           max(cfg.Replicas, 1),
		MaxMsgsPerSubject:  1,
		MaxMsgs:            -1,
		MaxBytes:           -1,
		MaxMsgSize:         int32(min(max(maxPayload, minMessageBytes), maxMessageBytes)),
		MaxConsumers:       maxConsumers,
		Discard:            jetstream.DiscardNew, // DiscardOld would drop paths without a word
		Compression:        jetstream.NoCompression,
		AllowDirect:        true,
		AllowAtomicPublish: true,
		AllowMsgTTL:        true,
		DenyDelete:         true,
		DenyPurge:          true,
	}
	if cfg.MaxBytes > 0 {
		sc.MaxBytes = cfg.MaxBytes
	}
	if cfg.TombstoneTTL > 0 {
		sc.Metadata = map[string]string{tombstoneTTLKey: cfg.TombstoneTTL.String()}
	}
	return sc
}

// nodesConfig is the configuration of the bucket of the nodes' status.
func nodesConfig(site events.Site, cfg Config) jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket:       statusBucket(site),
		Description:  "treecast: status of the nodes of site " + string(site),
		MaxValueSize: maxStatusBytes,
		History:      1,
		Storage:      jetstream.FileStorage,
		Replicas:     max(cfg.Replicas, 1),
	}
}

// consumerConfig is the configuration of a node's consumer.
func consumerConfig(node string, cfg NodeConfig) jetstream.ConsumerConfig {
	cc := jetstream.ConsumerConfig{
		Durable:           node,
		Description:       "treecast node " + node,
		DeliverPolicy:     jetstream.DeliverAllPolicy,
		AckPolicy:         jetstream.AckExplicitPolicy,
		ReplayPolicy:      jetstream.ReplayInstantPolicy,
		AckWait:           defaultAckWait,
		MaxDeliver:        -1,
		MaxAckPending:     defaultMaxAckPending,
		InactiveThreshold: defaultInactiveThreshold,
		Metadata:          map[string]string{"treecast.node": node},
	}
	if cfg.AckWait > 0 {
		cc.AckWait = cfg.AckWait
	}
	if cfg.MaxAckPending > 0 {
		cc.MaxAckPending = cfg.MaxAckPending
	}
	if cfg.InactiveThreshold > 0 {
		cc.InactiveThreshold = cfg.InactiveThreshold
	}
	if cfg.Version != "" {
		cc.Metadata["treecast.version"] = cfg.Version
	}
	if cfg.Host != "" {
		cc.Metadata["treecast.host"] = cfg.Host
	}
	return cc
}

// bucketConfig is the configuration of the stream behind a new bucket of
// large bodies: as nats.go makes one, and with messages that expire.
func bucketConfig(site events.Site, cfg Config) jetstream.StreamConfig {
	sc := jetstream.StreamConfig{
		Name:        bucketStream(site),
		Description: "treecast: large bodies of site " + string(site) + ", in chunks",
		Subjects:    []string{dataSubject(site, ">"), metaSubjects(site)},
		Storage:     jetstream.FileStorage,
		Replicas:    max(cfg.Replicas, 1),
		MaxBytes:    -1,
		Discard:     jetstream.DiscardNew, // DiscardOld would drop chunks without a word
		AllowDirect: true,
		AllowRollup: true,
		AllowMsgTTL: true,
	}
	if cfg.BucketBytes > 0 {
		sc.MaxBytes = cfg.BucketBytes
	}
	return sc
}

// mergeStream returns have with all the differences from want that are safe
// to change, and the names of the fields changed. One that is not safe is a
// *ConfigError. An operator's limits on bytes and more replicas stay unless
// the publisher was told otherwise.
func mergeStream(have, want jetstream.StreamConfig, cfg Config, used uint64) (jetstream.StreamConfig, []string, error) {
	merged, changed, err := mergeCommon("stream", have, want, cfg.MaxBytes, cfg.Replicas, used)
	if err != nil {
		return have, nil, err
	}
	note := func(field string) { changed = append(changed, field) }
	for _, flag := range []struct {
		field string
		is    *bool
	}{
		{"allow_atomic", &merged.AllowAtomicPublish},
		{"deny_delete", &merged.DenyDelete},
		{"deny_purge", &merged.DenyPurge},
	} {
		if !*flag.is {
			*flag.is = true
			note(flag.field)
		}
	}
	if have.MaxMsgSize > 0 && have.MaxMsgSize < min(want.MaxMsgSize, minMessageBytes) {
		merged.MaxMsgSize = want.MaxMsgSize
		note("max_msg_size")
	}
	if cfg.TombstoneTTL > 0 && have.Metadata[tombstoneTTLKey] != want.Metadata[tombstoneTTLKey] {
		merged.Metadata = mergeMetadata(have.Metadata, want.Metadata)
		note("metadata")
	}
	return merged, changed, nil
}

// mergeBucket is mergeStream for the bucket of large bodies.
func mergeBucket(have, want jetstream.StreamConfig, cfg Config, used uint64) (jetstream.StreamConfig, []string, error) {
	if have.DenyPurge { // the server does not take that back
		return have, nil, configErr("bucket", have.Name, "deny_purge", true, false)
	}
	merged, changed, err := mergeCommon("bucket", have, want, cfg.BucketBytes, cfg.Replicas, used)
	if err == nil && have.MaxMsgSize > 0 && have.MaxMsgSize < partBytes+headerSlack {
		merged.MaxMsgSize = -1
		changed = append(changed, "max_msg_size")
	}
	return merged, changed, err
}

// mergeCommon merges what a stream and a bucket have in common.
func mergeCommon(kind string, have, want jetstream.StreamConfig, maxBytes int64, replicas int, used uint64) (jetstream.StreamConfig, []string, error) {
	fixed := []struct {
		field      string
		have, want any
		same       bool
	}{
		{"subjects", have.Subjects, want.Subjects, sameSubjects(have.Subjects, want.Subjects)},
		{"storage", have.Storage.String(), want.Storage.String(), have.Storage == want.Storage},
		{"retention", have.Retention.String(), want.Retention.String(), have.Retention == want.Retention},
		{"max_msgs_per_subject", have.MaxMsgsPerSubject, want.MaxMsgsPerSubject, max(have.MaxMsgsPerSubject, 0) == max(want.MaxMsgsPerSubject, 0)},
		{"max_age", have.MaxAge, want.MaxAge, have.MaxAge == 0},
		{"max_msgs", have.MaxMsgs, want.MaxMsgs, have.MaxMsgs <= 0},
		{"discard_new_per_subject", have.DiscardNewPerSubject, false, !have.DiscardNewPerSubject},
		{"no_ack", have.NoAck, false, !have.NoAck},
		{"sealed", have.Sealed, false, !have.Sealed},
		{"mirror", have.Mirror != nil, false, have.Mirror == nil},
		{"sources", len(have.Sources), 0, len(have.Sources) == 0},
		{"subject_transform", have.SubjectTransform != nil, false, have.SubjectTransform == nil},
		{"persist_mode", have.PersistMode.String(), want.PersistMode.String(), have.PersistMode == want.PersistMode},
		{"max_bytes", have.MaxBytes, maxBytes, maxBytes <= 0 || uint64(maxBytes) >= used},
	}
	for _, f := range fixed {
		if !f.same {
			return have, nil, configErr(kind, have.Name, f.field, f.have, f.want)
		}
	}
	merged, changed := have, []string(nil)
	note := func(field string) { changed = append(changed, field) }
	if have.Discard != want.Discard {
		merged.Discard = want.Discard
		note("discard")
	}
	for _, flag := range []struct {
		field string
		is    *bool
		want  bool
	}{
		{"allow_direct", &merged.AllowDirect, want.AllowDirect},
		{"allow_msg_ttl", &merged.AllowMsgTTL, want.AllowMsgTTL},
		{"allow_rollup_hdrs", &merged.AllowRollup, want.AllowRollup},
	} {
		if *flag.is != flag.want {
			*flag.is = flag.want
			note(flag.field)
		}
	}
	if maxBytes > 0 && have.MaxBytes != maxBytes {
		merged.MaxBytes = maxBytes
		note("max_bytes")
	}
	if replicas > have.Replicas {
		merged.Replicas = replicas
		note("num_replicas")
	}
	return merged, changed, nil
}

func sameSubjects(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	has := make(map[string]bool, len(a))
	for _, s := range a {
		has[s] = true
	}
	for _, s := range b {
		if !has[s] {
			return false
		}
	}
	return true
}

// mergeConsumer is mergeStream for a node's consumer.
func mergeConsumer(have, want jetstream.ConsumerConfig) (jetstream.ConsumerConfig, []string, error) {
	filtered := have.FilterSubject != "" || len(have.FilterSubjects) > 0
	fixed := []struct {
		field      string
		have, want any
		same       bool
	}{
		{"deliver_subject", have.DeliverSubject, "", have.DeliverSubject == ""},
		{"durable_name", have.Durable, want.Durable, have.Durable == want.Durable},
		{"ack_policy", have.AckPolicy.String(), want.AckPolicy.String(), have.AckPolicy == want.AckPolicy},
		{"deliver_policy", have.DeliverPolicy.String(), want.DeliverPolicy.String(), have.DeliverPolicy == want.DeliverPolicy},
		{"replay_policy", have.ReplayPolicy.String(), want.ReplayPolicy.String(), have.ReplayPolicy == want.ReplayPolicy},
		{"filter_subject", filtered, false, !filtered},
		{"headers_only", have.HeadersOnly, false, !have.HeadersOnly},
		{"priority_groups", len(have.PriorityGroups), 0, len(have.PriorityGroups) == 0},
	}
	for _, f := range fixed {
		if !f.same {
			return have, nil, configErr("consumer", want.Durable, f.field, f.have, f.want)
		}
	}
	merged, changed := have, []string(nil)
	if have.AckWait != want.AckWait {
		merged.AckWait = want.AckWait
		changed = append(changed, "ack_wait")
	}
	if have.MaxDeliver != want.MaxDeliver {
		merged.MaxDeliver = want.MaxDeliver
		changed = append(changed, "max_deliver")
	}
	if have.MaxAckPending != want.MaxAckPending {
		merged.MaxAckPending = want.MaxAckPending
		changed = append(changed, "max_ack_pending")
	}
	if have.InactiveThreshold != want.InactiveThreshold {
		merged.InactiveThreshold = want.InactiveThreshold
		changed = append(changed, "inactive_threshold")
	}
	for key, value := range want.Metadata {
		if have.Metadata[key] != value {
			merged.Metadata = mergeMetadata(have.Metadata, want.Metadata)
			changed = append(changed, "metadata")
			break
		}
	}
	return merged, changed, nil
}

func mergeMetadata(have, want map[string]string) map[string]string {
	merged := make(map[string]string, len(have)+len(want))
	for key, value := range have {
		merged[key] = value
	}
	for key, value := range want {
		merged[key] = value
	}
	return merged
}
