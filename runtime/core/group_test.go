package core

import (
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// What a change of a running resource means: only what a plan calls a restart is one.
func TestSameResource(t *testing.T) {
	base := func() spec.Resource {
		return spec.Resource{Name: "a", Type: "ip_address", Attributes: map[string]any{"address": "10.0.0.5", "probe": "25ms"}}
	}
	for _, tt := range []struct {
		name   string
		change func(*spec.Resource)
		same   bool
	}{
		{"nothing", func(*spec.Resource) {}, true},
		{"a check", func(r *spec.Resource) { r.LooksAlive.TCP = "10.0.0.5:80" }, true},
		{"an attribute for the next start", func(r *spec.Resource) { r.Attributes["probe"] = "1s" }, true},
		{"an attribute of what runs", func(r *spec.Resource) { r.Attributes["address"] = "10.0.0.6" }, false},
		{"a new attribute of what runs", func(r *spec.Resource) { r.Attributes["interface"] = "eth1" }, false},
		{"another process", func(r *spec.Resource) { r.SeparateMonitor = true }, false},
		{"made anew", func(r *spec.Resource) { r.ID = "2" }, false},
		{"another type", func(r *spec.Resource) { r.Type = "script" }, false},
	} {
		b := base()
		tt.change(&b)
		if got := sameResource(base(), b); got != tt.same {
			t.Errorf("%s: same %v, want %v", tt.name, got, tt.same)
		}
	}
}

// A resource that has another name starts under it once it is down under the old one.
func TestRenamedResourceGoesDownFirst(t *testing.T) {
	group := func(first string) *confdb.Group {
		return &confdb.Group{Spec: spec.Group{Name: "g", Resources: []spec.Resource{
			{ID: "1", Name: first, Type: "script"}, {ID: "2", Name: "b", Type: "script"}, {Name: "of no id", Type: "script"}}}}
	}
	r := newRun("g", group("a"))
	for i := range r.resources {
		r.resources[i].state = spec.StateOnline
	}
	if !r.define(group("c")) || len(r.old) != 1 || r.old[0].spec.Name != "a" {
		t.Fatalf("what goes down: %+v", r.old)
	}
	for i, want := range []bool{true, false, false} {
		if got := r.goesFirst(&r.resources[i].spec); got != want {
			t.Errorf("%s waits for an older one: %v", r.resources[i].spec.Name, got)
		}
	}
	r.old = nil
	if r.goesFirst(&r.resources[0].spec) {
		t.Error("it waits for nobody")
	}
}

// A planned stop has the time that stop_timeout gives it, also where that is more than
// the time between two signs of progress; and how long that is, an agent that is to end
// knows, for what runs, whatever the definition says since.
func TestStopHasItsTime(t *testing.T) {
	web := func(stop string) *confdb.Group {
		return &confdb.Group{Spec: spec.Group{ID: "g", Name: "g", Resources: []spec.Resource{{Name: "a", Type: "generic_application",
			Attributes: map[string]any{"stop_timeout": stop}, PendingTimeout: spec.Duration(3 * time.Minute)}}}}
	}
	now := spec.Instant(10 * time.Hour)
	m := New(Config{Node: "n1", Name: "n1", Server: 1, Incarnation: 11, Wall: time.Unix(0, 0)}, now, nil)
	m.now, m.monitor, m.leaseEnd = now, true, now.Add(time.Hour)
	r := newRun("g", web("10m"))
	m.owner.runs["g"], m.state.Groups["g"] = r, web("10m")
	if bound := m.StopBound(); bound != 0 {
		t.Errorf("nothing runs, and may take %s to stop", bound)
	}
	r.phase = phaseUp
	m.driveUp(r)
	r.resources[0].state = spec.StateOnline
	r.define(web("10s")) // from its next start on
	if bound := m.StopBound(); bound != 10*time.Minute {
		t.Errorf("it runs with a stop_timeout of 10m, and may take %s", bound)
	}
	r.phase, r.deadline = phaseStopping, 0
	for _, tt := range []struct {
		at   time.Duration
		want phase
	}{{0, phaseStopping}, {3 * time.Minute, phaseStopping}, {10*time.Minute - 1, phaseStopping}, {10 * time.Minute, phaseEnding}} {
		m.now = now.Add(tt.at)
		if m.driveDown(r); r.phase != tt.want {
			t.Fatalf("%s after its stop began: phase %d, want %d", tt.at, r.phase, tt.want)
		}
		if next := r.deadline; tt.want == phaseStopping && next != now.Add(10*time.Minute) {
			t.Errorf("it looks again at %s, want 10m", next.Sub(now))
		}
	}
}

// Whether a fence covers the node is known once its state is as new as that of a leader
// who is proven to speak now.
func TestFenceCoversIsKnown(t *testing.T) {
	m := New(Config{Node: "n1", Name: "n1", Server: 1, Incarnation: 11, Wall: time.Unix(0, 0)}, 1, nil)
	known := func(want bool, when string) {
		t.Helper()
		if _, got := m.FenceCovers(); got != want {
			t.Errorf("%s: known %v", when, got)
		}
	}
	known(false, "at the start")
	m.drv = confdb.Status{Leader: 2, Term: 3}
	p := m.peer(2)
	p.leads, p.term = true, 3
	known(false, "a leader whose state is empty as well")
	m.state = confdb.NewState()
	m.state.Cluster.ID, m.state.Revision, p.revision = "c", 9, 10
	known(false, "a recording of a leader")
	p.echo = 1
	known(false, "its state is newer")
	m.state.Revision = 10
	known(true, "the same state")
	m.drv.Term = 4
	known(false, "a leader of before")
	m.lead = &leadership{}
	known(false, "it leads, and has not applied what others did")
	m.lead.ready = true
	known(true, "it leads")
}

// A freezer that died and whose successor does not get ready, as a script that was left on
// does not stop, leaves its node up: where a fence covers that, it gives its lease up after
// the time that the stop may take, so that it is fenced. Else that is no help.
func TestFreezerThatDoesNotComeBack(t *testing.T) {
	for _, tt := range []struct{ fence, leads, gives bool }{{true, false, true}, {false, false, false}, {true, true, false}} {
		now := spec.Instant(10 * time.Hour)
		s := confdb.NewState()
		s.Nodes["n1"] = &confdb.Node{Spec: spec.Node{ID: "n1", Name: "n1"}, ServerID: 1, Joined: true}
		g := &confdb.Group{Want: spec.WantOnline, Owner: confdb.Ownership{Node: "n1", Epoch: 1, Freeze: true}, Spec: spec.Group{ID: "g", Name: "g", NoQuorum: spec.NoQuorumFreeze,
			Resources: []spec.Resource{{Name: "a", Type: "script", Attributes: map[string]any{"stop_timeout": "10s"}}}}}
		s.Groups["g"] = g
		if tt.fence {
			s.Fences["f"] = &confdb.Fence{Spec: spec.Fence{ID: "f", Name: "f", Level: 1}}
		}
		m := New(Config{Node: "n1", Name: "n1", Server: 1, Incarnation: 11, Wall: time.Unix(0, 0)}, now, s)
		m.leaseEnd = now.Add(time.Hour)
		m.Step(now, MonitorUp{})
		m.Step(now, MonitorUp{Freezer: true})
		if r := m.owner.runs["g"]; r.phase != phaseUp {
			t.Fatalf("the group does not run: phase %d", r.phase)
		}
		if tt.leads {
			m.lead = &leadership{}
		}
		died := now.Add(time.Minute)
		m.Step(died, MonitorDown{Freezer: true})
		at := spec.Instant(0)
		for end := died.Add(10 * time.Minute); at == 0 && m.now < end; {
			next := m.owner.deadline
			if next <= m.now {
				break
			}
			m.now = next
			m.stepGroups()
			if !m.asksForLease() {
				at = m.now
			}
		}
		switch took := at.Sub(died); {
		case tt.gives != (at != 0):
			t.Errorf("%+v: no leases from %s on", tt, took)
		case tt.gives && (took < 10*time.Second || took > 30*time.Second):
			t.Errorf("%+v: after %s", tt, took)
		}
		m.lead = nil
		m.Step(m.now, MonitorUp{Freezer: true})
		if !m.asksForLease() {
			t.Errorf("%+v: the next freezer is ready, and the node takes no lease", tt)
		}
	}
}
