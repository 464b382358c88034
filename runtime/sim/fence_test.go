package sim

import (
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// With a fence that is used whenever it could be faster than the wait, which is
// slow, fails now and then, and turns off nodes that are back by then, and with a
// group that goes on without a lease: never two owners, and everything runs again
// afterwards.
func TestFences(t *testing.T) {
	seeds := few(10)
	faults, failovers, frozen, wedged, slack := 0, 0, 0, 0, time.Hour
	for seed := range seeds {
		cfg := Config{Seed: uint64(1000 + seed), Nodes: 3 + 2*(seed%2), Groups: 3, For: 40 * time.Second, Fence: true}
		if seed%5 == 3 {
			cfg.Nodes, cfg.Model = 3, spec.SingleQuorum // an agent there knows of no fence at its start
		}
		r := Run(cfg)
		if len(r.Violations) > 0 {
			fail(t, r)
		}
		faults, failovers, frozen, wedged, slack = faults+r.Faults, failovers+r.Failovers, frozen+r.Frozen, wedged+r.Wedged, min(slack, r.LeastSlack)
	}
	t.Logf("%d seeds: %d faults, %d changes of owner, %d times frozen, %d scripts that failed and did not stop, least slack %v", seeds, faults, failovers, frozen, wedged, slack)
	if faults < 10*seeds || failovers < seeds || frozen < seeds || wedged < seeds/2 {
		t.Error("the runs were too tame to prove anything")
	}
}
