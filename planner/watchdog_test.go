package planner

import (
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// The plan counts with the longest watchdog of a group's possible owners, or with
// the fence that some have in its place, and calls it exclusive where all have one.
func TestFailoverTimesWithWatchdogs(t *testing.T) {
	node := func(name, device string, seconds int) spec.Node {
		return spec.Node{Name: name, Addr: addr.Node(name, addr.NoKey), Votes: 1, Role: spec.RoleMember, Watchdog: device, WatchdogTimeout: spec.Duration(seconds) * spec.Duration(time.Second)}
	}
	group := func(kind string) spec.Group {
		return spec.Group{Name: "g", Addr: addr.Group("g", addr.NoKey), Resources: []spec.Resource{{Name: "a", Type: kind}}}
	}
	dog := "/dev/watchdog"
	def := func(kind string, nodes ...spec.Node) spec.Definition {
		return spec.Definition{Cluster: spec.Cluster{Quorum: spec.Quorum{Model: spec.MajorityNodeSet}}, Nodes: nodes, Groups: []spec.Group{group(kind)}}
	}
	half := def("script", node("n1", dog, 5), node("n2", "", 0))
	mixed := def("script", node("n1", dog, 5), node("n2", "", 0))
	mixed.Fences = []spec.Fence{{Name: "f", Nodes: []string{"n2"}, Level: 1, Timeout: spec.Duration(4 * time.Second)}}
	for _, tt := range []struct {
		name            string
		def             spec.Definition
		exclusive       bool
		watchdog, worst int64 // ms; worst 0: with a fence
	}{
		// (600 + 100 + 50 + 10000) x 1.01/0.99, rounded up, commit 60, start 45
		{"all", def("script", node("n1", dog, 5), node("n2", dog, 10)), true, 10_000, 10_968 + 105},
		{"half", half, false, 5000, 5867 + 105},
		{"held by the kernel", def("ip_address", node("n1", dog, 5), node("n2", dog, 10)), true, 0, 766 + 105},
		{"a fence for the other", mixed, true, 0, 0},
	} {
		got := failoverTimes(tt.def)[0]
		terms := got.Terms
		sum := terms.Lease + terms.StopWithin + terms.Kill + terms.Drift + terms.Watchdog + terms.Fence + terms.Commit + terms.Start
		if got.Exclusive != tt.exclusive || terms.Watchdog != tt.watchdog || sum != got.WorstMS || tt.worst != 0 && got.WorstMS != tt.worst || (tt.worst == 0) != (terms.Fence > 0) {
			t.Errorf("%s: %+v", tt.name, got)
		}
	}
}
