package sim

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func fail(t *testing.T, r Report) {
	t.Helper()
	t.Fatal(r.Tell())
}

// Through crashes, pauses, partitions, loss, lag, slow disks and clocks at
// their bounds: never two owners, and everything runs again afterwards.
func TestFaults(t *testing.T) {
	seeds := 24
	if testing.Short() {
		seeds = 4
	}
	var faults, starts, failovers, acked int
	slack := time.Hour
	for seed := range seeds {
		cfg := Vary(uint64(seed))
		cfg.For = 40 * time.Second
		r := Run(cfg)
		if len(r.Violations) > 0 {
			fail(t, r)
		}
		faults, starts, failovers, acked = faults+r.Faults, starts+r.Starts, failovers+r.Failovers, acked+r.Acked
		slack = min(slack, r.LeastSlack)
	}
	t.Logf("%d seeds: %d faults, %d starts, %d changes of owner, %d updates acknowledged, least slack %v", seeds, faults, starts, failovers, acked, slack)
	if faults < 10*seeds || failovers < seeds || acked < seeds {
		t.Errorf("the runs were too tame to prove anything: %d faults, %d changes of owner, %d updates", faults, failovers, acked)
	}
}

// A node crashes and all else is well: its groups run elsewhere within the plan's
// bound, whether it led or not, and no other group stops.
func TestCrashes(t *testing.T) {
	var crashes, failovers int
	for seed := range 6 {
		r := Run(Config{Seed: uint64(seed), Nodes: 3 + seed%3, Groups: 5, Crashes: true, For: 40 * time.Second})
		if len(r.Violations) > 0 {
			fail(t, r)
		}
		crashes, failovers = crashes+r.Faults, failovers+r.Failovers
	}
	t.Logf("%d crashes, %d changes of owner", crashes, failovers)
	if crashes < 30 || failovers < 30 {
		t.Error("too tame to prove anything")
	}
}

// Without a fault nothing moves, whatever the clocks' rates.
func TestQuiet(t *testing.T) {
	for seed := range 4 {
		r := Run(Config{Seed: uint64(seed), NoFault: true, For: time.Minute, Nodes: 3 + seed})
		if len(r.Violations) > 0 {
			fail(t, r)
		}
		if r.Starts != 3 {
			t.Fatalf("seed %d: %d starts of 3 groups in a healthy cluster:\n%s", seed, r.Starts, strings.Join(r.Story, "\n"))
		}
	}
}

// A seed tells the same story twice.
func TestSameSeedSameStory(t *testing.T) {
	a := Run(Config{Seed: 5, For: 15 * time.Second})
	b := Run(Config{Seed: 5, For: 15 * time.Second})
	if a.Steps != b.Steps || !slices.Equal(a.Story, b.Story) {
		for i := range min(len(a.Story), len(b.Story)) {
			if a.Story[i] != b.Story[i] {
				t.Fatalf("stories part at line %d:\n%s\n%s", i, a.Story[i], b.Story[i])
			}
		}
		t.Fatalf("%d steps, then %d", a.Steps, b.Steps)
	}
}
