package spec

import (
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// Who relies on a watchdog, how long a takeover waits for it, and when a group
// counts as guarded by one.
func TestWatchdog(t *testing.T) {
	second := Duration(time.Second)
	script := Group{Name: "g", Addr: addr.Group("g", addr.Key{}), Resources: []Resource{{Name: "a", Type: "script"}}}
	held := Group{Name: "h", Addr: addr.Group("h", addr.Key{}), Resources: []Resource{{Name: "a", Type: "ip_address"}}}
	node := func(name, device string, timeout Duration) Node {
		return Node{Name: name, Addr: addr.Node(name, addr.Key{}), Votes: 1, Role: RoleMember, Watchdog: device, WatchdogTimeout: timeout}
	}
	dog := "/dev/watchdog"
	a := node("a", dog, 0)
	if got := script.WatchdogOn(&a); got != 5*second {
		t.Errorf("the default time-out is %s", got)
	}
	if got := held.WatchdogOn(&a); got != 0 {
		t.Errorf("a group that the kernel holds relies on a watchdog: %s", got)
	}
	fast := Timings{}.WithDefaults()
	if got, want := fast.TakeoverWaitWith(0, 5*second), StretchRho(5750*time.Millisecond); got != want || fast.TakeoverWaitWith(0, 0) != fast.TakeoverWait(0) {
		t.Errorf("W is %v, want %v", got, want)
	}
	for _, tt := range []struct {
		name    string
		nodes   []Node
		fenced  []string
		guarded bool
		errors  string // attribute: summary
	}{
		{"all", []Node{a, node("b", dog, 10*second), node("c", "/dev/watchdog1", 0)}, nil, true, ""},
		{"one has none", []Node{a, node("b", dog, 0), node("c", "", 0)}, nil, false, ""},
		{"a fence for that", []Node{a, node("b", dog, 0), node("c", "", 0)}, []string{"c"}, true, ""},
		{"half a second", []Node{node("a", dog, 2500*Duration(time.Millisecond))}, nil, true, "Invalid time-out of a watchdog"},
		{"too short", []Node{node("a", dog, second)}, nil, true, "Invalid time-out of a watchdog"},
		{"no device", []Node{node("a", "watchdog", 0)}, nil, true, "Invalid watchdog"},
		{"another's file", []Node{node("a", "/dev/../etc/passwd", 0)}, nil, true, "Invalid watchdog"},
		{"alone", []Node{node("a", "", 5*second)}, nil, false, "Time-out without a watchdog"},
	} {
		d := &Definition{Cluster: Cluster{Quorum: Quorum{Model: MajorityNodeSet}}, Nodes: tt.nodes, Groups: []Group{script}}
		if tt.fenced != nil {
			d.Fences = []Fence{{Name: "f", Agent: "fence_x", Nodes: tt.fenced, Level: 1}}
		}
		if got := d.Guarded(&script); got != tt.guarded {
			t.Errorf("%s: guarded %v", tt.name, got)
		}
		warned, found := false, ""
		for _, p := range Check(d) {
			warned = warned || p.Summary == "Group is not exclusive"
			if !p.Warning && strings.Contains(p.Summary, "atchdog") {
				found = p.Summary
			}
		}
		if warned == tt.guarded || found != tt.errors {
			t.Errorf("%s: warned %v, error %q, want %q", tt.name, warned, found, tt.errors)
		}
	}
}

// Who may be reset by its own agent.
func TestReset(t *testing.T) {
	for _, tt := range []struct{ provider, role, reset, want string }{
		{"ssh", RoleMember, "", ""},
		{"ssh", RoleMember, ResetSysrq, ""},
		{"ssh", RoleMember, "reboot", "Invalid reset"},
		{"local", RoleMember, ResetSysrq, "Reset of a local node"},
		{"ssh", RoleWitness, ResetSysrq, "Reset of a witness"},
	} {
		n := Node{Name: "a", Addr: addr.Node("a", addr.Key{}), Provider: tt.provider, Votes: 1, Role: tt.role, Reset: tt.reset}
		c := &checker{}
		c.reset(&n)
		var got []string
		for _, p := range c.problems {
			got = append(got, p.Summary)
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%+v: %v, want %q", tt, got, tt.want)
		}
	}
}
