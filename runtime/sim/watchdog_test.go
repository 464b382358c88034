package sim

import (
	"testing"
	"time"
)

// A group that leaves something behind, on nodes with watchdogs and without any
// fence: never two owners, though stops and clean-ups hang and hosts are reset,
// and everything runs again afterwards. Without the time-out in W this fails:
// bench/sim's mutations.
func TestWatchdogs(t *testing.T) {
	seeds := 10
	if testing.Short() {
		seeds = 5
	}
	faults, failovers, resets := 0, 0, 0
	for seed := range seeds {
		r := Run(Config{Seed: uint64(2000 + seed), Nodes: 3 + 2*(seed%2), Groups: 3, For: 40 * time.Second, Watchdog: true})
		if len(r.Violations) > 0 {
			fail(t, r)
		}
		faults, failovers, resets = faults+r.Faults, failovers+r.Failovers, resets+r.Resets
	}
	t.Logf("%d seeds: %d faults, %d changes of owner, %d resets", seeds, faults, failovers, resets)
	if faults < 10*seeds || failovers < seeds || resets < seeds/2 {
		t.Error("the runs were too tame to prove anything")
	}
}

// Whole nodes crash, and their watchdogs reset them: each failover within the
// plan's bound, which the time-out is a term of.
func TestWatchdogFailovers(t *testing.T) {
	r := Failovers(Config{Seed: 5, Nodes: 3, Groups: 2, Watchdog: true}, 8)
	if len(r.Violations) > 0 {
		fail(t, r)
	}
	longest := time.Duration(0)
	for _, d := range r.Times {
		longest = max(longest, d)
	}
	if len(r.Times) < 2 || longest < watchdogTimeout.D() {
		t.Errorf("%d failovers, the longest %v: none waited for a watchdog", len(r.Times), longest)
	}
}
