package sim

import (
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// With a quorum device: the same faults, and a device that is slow, hangs or
// fails. Never two owners, nothing acknowledged is lost, and all runs again.
func TestDeviceFaults(t *testing.T) {
	seeds := few(6)
	var faults, failovers, acked int
	for seed := range seeds {
		r := Run(Config{Seed: uint64(seed), Nodes: []int{2, 3, 2, 4}[seed%4], Model: spec.SingleQuorum, For: 40 * time.Second, Settle: 30 * time.Second})
		if len(r.Violations) > 0 {
			fail(t, r)
		}
		faults, failovers, acked = faults+r.Faults, failovers+r.Failovers, acked+r.Acked
	}
	t.Logf("%d faults, %d changes of owner, %d updates acknowledged", faults, failovers, acked)
	if faults < 10*seeds || failovers == 0 || acked < 2*seeds {
		t.Error("too tame to prove anything")
	}
}

// Crashes of whole nodes, down to one: its groups run elsewhere within the
// plan's bound, and no other group stops, whoever owns the device.
func TestDeviceCrashes(t *testing.T) {
	for seed := range 3 {
		r := Run(Config{Seed: uint64(seed), Nodes: 2 + seed, Groups: 4, Model: spec.SingleQuorum, Crashes: true, For: time.Minute})
		if len(r.Violations) > 0 {
			fail(t, r)
		}
		t.Logf("%d crashes, %d changes of owner", r.Faults, r.Failovers)
	}
}

func TestDeviceQuiet(t *testing.T) {
	r := Run(Config{Seed: 1, Nodes: 3, Model: spec.SingleQuorum, NoFault: true, For: time.Minute})
	if len(r.Violations) > 0 {
		fail(t, r)
	}
	if r.Starts != 3 {
		t.Fatalf("%d starts of 3 groups in a healthy cluster", r.Starts)
	}
}
