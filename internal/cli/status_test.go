package cli

import (
	"testing"
	"time"

	"treecast/internal/publisher"
	"treecast/internal/stream"
	"treecast/internal/subscriber"
)

// TestStatusCodes: what monitoring is told.
func TestStatusCodes(t *testing.T) {
	node := func(n NodeReport) *StatusReport {
		return &StatusReport{Holder: &stream.Holder{}, Source: &publisher.Status{}, Nodes: []NodeReport{n}}
	}
	behind := node(NodeReport{State: "connected", Behind: 5, Seconds: 20})
	for name, c := range map[string]struct {
		r    *StatusReport
		lag  string
		code int
	}{
		"current":         {node(NodeReport{State: "connected"}), "0", 0},
		"behind":          {behind, "0", 1},
		"behind in time":  {behind, "1m", 0},
		"too long behind": {behind, "10s", 1},
		"few entries":     {behind, "5", 0},
		"many entries":    {behind, "4", 1},
		"away":            {node(NodeReport{State: "away"}), "1h", 1},
		"halted":          {node(NodeReport{State: "halted"}), "1h", 1},
		"held":            {node(NodeReport{State: "connected", Says: subscriber.Status{HeldAll: 1}}), "1h", 1},
		"parked":          {node(NodeReport{State: "connected", Says: subscriber.Status{ParkAll: 1}}), "1h", 1},
		"no publisher":    {&StatusReport{}, "1h", 2},
		"source halted":   {&StatusReport{Holder: &stream.Holder{}, Source: &publisher.Status{Halted: "x"}}, "0", 2},
	} {
		var lag Lag
		if err := lag.UnmarshalText([]byte(c.lag)); err != nil {
			t.Fatal(err)
		}
		if code := c.r.code(lag, true); code != c.code {
			t.Errorf("%s: %d, want %d", name, code, c.code)
		}
	}
	for _, bad := range []string{"", "-1", "-1s", "soon"} {
		if new(Lag).UnmarshalText([]byte(bad)) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	var l Lag
	if err := l.UnmarshalText([]byte("90s")); err != nil || l.Time != 90*time.Second || l.Entries != 0 {
		t.Error(l, err)
	}
}
