package main

import (
	"encoding/json"
	"testing"
)

func TestParseStats(t *testing.T) {
	const out = `
Number of files: 3 (reg: 2, dir: 1)
Total file size: 268,435,463 bytes
Total bytes sent: 1,234,567
Total bytes received: 89

sent 1,234,567 bytes  received 89 bytes  823,104.00 bytes/sec
`
	if got, err := parseStats(out); err != nil || got != 1234656 {
		t.Errorf("got %d, %v", got, err)
	}
	for _, bad := range []string{"", "Total bytes sent: 1\n", "Total bytes sent: 1.2M\nTotal bytes received: 3\n"} {
		if got, err := parseStats(bad); err == nil {
			t.Errorf("%q: got %d", bad, got)
		}
	}
}

func TestBucketMessages(t *testing.T) {
	var j jsz
	const page = `{"streams":3,"account_details":[{"name":"$G","stream_detail":[
		{"name":"web","state":{"messages":5}},
		{"name":"OBJ_web","state":{"messages":42,"bytes":1}}]}]}`
	if err := json.Unmarshal([]byte(page), &j); err != nil {
		t.Fatal(err)
	}
	if got := j.messages("OBJ_web"); got != 42 {
		t.Errorf("got %d", got)
	}
	if got := j.messages("OBJ_other"); got != 0 {
		t.Errorf("got %d of a stream that is not there", got)
	}
}
