package rig

import (
	"math"
	"strings"
	"testing"
)

func TestEnoughSpace(t *testing.T) {
	for _, dir := range []string{t.TempDir(), "/dev/shm"} {
		if err := EnoughSpace(dir, 1); err != nil {
			t.Error(err)
		}
		if err := EnoughSpace(dir, math.MaxInt64); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if n, err := memoryAvailable(); err != nil || n < 1<<20 {
		t.Errorf("available: %d, %v", n, err)
	}
}
