package sim

import (
	"testing"
	"time"
)

// A cluster that begins as a single node's becomes a majority's of three or five
// in the middle of all faults, with the first node dying before, during and right
// after the write: never two owners, nothing acknowledged lost, and all of them
// are members in the end.
func TestGrowing(t *testing.T) {
	seeds := few(24)
	grown, died, failovers := 0, 0, 0
	for seed := range seeds {
		r := Run(Config{Seed: uint64(9000 + seed), Nodes: 3 + seed%2*2, Grow: true, For: 30 * time.Second, Fence: seed%5 == 3})
		if len(r.Violations) > 0 {
			fail(t, r)
		}
		grown, died, failovers = grown+r.Grown, died+r.Edges["grow"], failovers+r.Failovers
	}
	t.Logf("%d seeds: grown %d times, died at it %d times, %d changes of owner", seeds, grown, died, failovers)
	// It may die when all is written, before it says so.
	if grown+died < seeds || died < seeds/4 || failovers < seeds {
		t.Errorf("the runs were too tame: grown %d times, died at it %d times, %d changes of owner in %d seeds", grown, died, failovers, seeds)
	}
}
