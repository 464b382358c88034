package member

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// Docs/runtime.md, "Where a group goes", sentence by sentence, on whole
// clusters. The order of candidates has its tables in runtime/placement.

func homing(g spec.Group, mode string, delay time.Duration) spec.Group {
	g.Failback = spec.Failback{Mode: mode, Delay: spec.Duration(delay)}
	return g
}

// fail has a group's app fail past its restarts where it is.
func (w *world) fail(name string) {
	w.t.Helper()
	h, g := w.owner(name), w.group(name)
	epoch := g.Owner.Epoch
	h.fails["app"] = 3
	h.end("g-"+name, "app")
	h.input(ResourceChanged{Group: "g-" + name, Epoch: epoch, Resource: "app", State: spec.StateFailed, Reason: "exit 1"})
	w.until(name+" gives up", 5*time.Second, func() bool { return w.group(name).Owner.Epoch > epoch || w.group(name).LeftFailed != "" })
}

// slow has hours go by in fewer frames; fast is as it was.
func (w *world) slow() { w.interval(30 * time.Second) }
func (w *world) fast() { w.interval(0) }

func (w *world) interval(d time.Duration) {
	w.t.Helper()
	c := w.state().Cluster
	c.Heartbeat = spec.Timings{Interval: spec.Duration(d)}
	w.must(w.leader(), confdb.Command{PutCluster: &c})
	w.run(2 * max(d, time.Second))
}

func (w *world) runsOn(name string, h *host, limit time.Duration) time.Duration {
	w.t.Helper()
	return w.until(name+" runs on "+h.name, limit, func() bool { return w.leader() != nil && w.online(name) && w.running["g-"+name] == h.name })
}

func (w *world) staysOn(name string, h *host, d time.Duration, why string) {
	w.t.Helper()
	for end := w.now + int64(d); w.now < end; w.run(20 * time.Millisecond) {
		if w.running["g-"+name] != h.name {
			w.t.Fatalf("it left %s: %s\n%s", h.name, why, w.describe())
		}
	}
}

// A group that failed by itself doesn't go back to the node where it failed
// because that node is up: it was up all along. Once the node has come up
// anew, it is home again.
func TestNoFailbackToWhereItFailed(t *testing.T) {
	w := newWorld(t, 3)
	n1, n2, n3 := w.hosts[0], w.hosts[1], w.hosts[2]
	w.put(homing(groupSpec("web", "n1", "n2", "n3"), spec.FailbackImmediate, 0))
	w.runsOn("web", n1, time.Second)
	w.fail("web")
	w.runsOn("web", n2, 5*time.Second)
	w.staysOn("web", n2, 10*time.Second, "a failback to where it failed")
	w.fail("web") // the threshold is nodes - 1 = 2
	w.runsOn("web", n3, 5*time.Second)
	w.staysOn("web", n3, 10*time.Second, "a failback to one of the two nodes where it failed")
	n2.kill()
	w.run(2 * time.Second)
	n2.start()
	w.runsOn("web", n2, 10*time.Second)
	n1.kill()
	w.until("another one leads", 5*time.Second, func() bool { return w.leader() != nil && w.leader() != n1 })
	w.run(2 * time.Second)
	n1.start()
	w.runsOn("web", n1, 10*time.Second)
	if g := w.group("web"); len(g.FailedOn) != 0 || g.HomeFrom != "" {
		t.Errorf("at home: %+v", g)
	}
}

// An operator's online is an order to try again from the start: the node
// where it failed is home again.
func TestOnlineForgivesTheNode(t *testing.T) {
	w := newWorld(t, 3)
	w.put(homing(groupSpec("web", "n1", "n2"), spec.FailbackImmediate, 0))
	w.fail("web")
	w.runsOn("web", w.hosts[1], 5*time.Second)
	w.must(w.leader(), confdb.Command{Author: "ann", SetWant: &confdb.SetWant{Group: "g-web", Want: spec.WantOnline}})
	w.runsOn("web", w.hosts[0], 5*time.Second)
	if by := w.group("web").WantBy; by != nil {
		t.Errorf("an order that is carried out is still listed: %+v", by)
	}
}

// delay: the node must have been up, and the group where it is, for so long.
// A drained node was up all along.
func TestFailbackDelay(t *testing.T) {
	w := newWorld(t, 3)
	n1, n2 := w.hosts[0], w.hosts[1]
	w.put(homing(groupSpec("web", "n1", "n2"), spec.FailbackImmediate, 20*time.Second))
	w.run(30 * time.Second)
	w.must(w.leader(), confdb.Command{PauseNode: &confdb.PauseNode{Node: n1.id, Drain: true}})
	w.runsOn("web", n2, 5*time.Second)
	w.must(w.leader(), confdb.Command{ResumeNode: &confdb.NodeRef{Node: n1.id}})
	if took := w.runsOn("web", n1, 30*time.Second); took < 19*time.Second {
		t.Errorf("back after %v", took)
	}
	n1.kill()
	w.runsOn("web", n2, 10*time.Second)
	w.run(30 * time.Second)
	n1.start()
	if took := w.runsOn("web", n1, 30*time.Second); took < 20*time.Second {
		t.Errorf("back %v after its node", took)
	}
}

// A better home that only waits for its delay is waited for: no two moves.
func TestFailbackWaitsForTheBestHome(t *testing.T) {
	w := newWorld(t, 3)
	n1, n2, n3 := w.hosts[0], w.hosts[1], w.hosts[2]
	w.put(homing(groupSpec("web", "n1", "n2", "n3"), spec.FailbackImmediate, 10*time.Second))
	n1.kill()
	w.runsOn("web", n2, 10*time.Second)
	w.must(w.leader(), confdb.Command{PauseNode: &confdb.PauseNode{Node: n2.id, Drain: true}})
	w.runsOn("web", n3, 5*time.Second)
	w.run(7 * time.Second) // n2 would be due in 3 s
	w.must(w.leader(), confdb.Command{ResumeNode: &confdb.NodeRef{Node: n2.id}})
	n1.start() // due in 10 s
	for w.running["g-web"] != n1.name {
		if w.running["g-web"] == n2.name {
			t.Fatal("it moves twice")
		}
		w.run(100 * time.Millisecond)
	}
}

// Where the best home is none, for what the group is softly kept apart from is there, the
// next one has its delay too.
func TestFailbackDelayOfTheNextHome(t *testing.T) {
	w := newWorld(t, 4)
	n2, n3 := w.hosts[1], w.hosts[2]
	w.put(groupSpec("db", "n1"))
	g := homing(groupSpec("web", "n1", "n2", "n3"), spec.FailbackImmediate, 10*time.Second)
	g.KeepApartSoft = []string{"db"}
	w.put(g)
	w.runsOn("web", n2, 5*time.Second)
	n2.kill()
	w.runsOn("web", n3, 10*time.Second)
	w.run(20 * time.Second)
	n2.start()
	if took := w.runsOn("web", n2, 30*time.Second); took < 10*time.Second {
		t.Errorf("back %v after its node", took)
	}
}

// Failback waits for its window; a failed owner doesn't.
func TestFailbackWindow(t *testing.T) {
	w := newWorld(t, 3)
	n1, n2, n3 := w.hosts[0], w.hosts[1], w.hosts[2]
	g := groupSpec("web", "n1", "n2")
	g.PossibleOwners = []string{"n1", "n2"}
	// The world begins at 22:13:20 UTC, 23:13:20 in Stockholm.
	g.Failback = spec.Failback{Mode: spec.FailbackWindow, Window: "23:30-23:45", Timezone: "Europe/Stockholm"}
	w.put(g)
	n1.kill()
	w.runsOn("web", n2, 10*time.Second)
	n1.start()
	w.staysOn("web", n2, time.Minute, "outside of its window")
	n2.kill()
	w.runsOn("web", n1, 10*time.Second) // a failed owner overrides the window
	n2.start()
	w.run(time.Second)
	w.must(w.leader(), confdb.Command{PauseNode: &confdb.PauseNode{Node: n1.id, Drain: true}})
	w.runsOn("web", n2, 5*time.Second)
	w.must(w.leader(), confdb.Command{ResumeNode: &confdb.NodeRef{Node: n1.id}})
	before := w.now
	w.until("it goes home in the window", 30*time.Minute, func() bool { w.run(time.Second); return w.running["g-web"] == n1.name })
	open := int64(16*time.Minute + 40*time.Second)
	if w.now < open || w.now > open+int64(10*time.Second) {
		t.Errorf("home at %v (since %v), the window opens at %v", time.Duration(w.now), time.Duration(before), time.Duration(open))
	}
	_ = n3
}

// Failback is prevented by default.
func TestFailbackIsPrevented(t *testing.T) {
	w := newWorld(t, 3)
	w.put(groupSpec("web", "n1", "n2"))
	w.hosts[0].kill()
	w.runsOn("web", w.hosts[1], 10*time.Second)
	w.hosts[0].start()
	w.staysOn("web", w.hosts[1], 5*time.Minute, "failback is prevented")
}

// After a failure of the whole cluster, groups wait up to 120 s for a preferred
// owner that has not come up yet; for one that was up and is lost again not a
// moment longer than ever.
func TestColdStartWaitsForPreferredOwners(t *testing.T) {
	w := newWorld(t, 3)
	n1, n2, n3 := w.hosts[0], w.hosts[1], w.hosts[2]
	w.put(groupSpec("web", "n1", "n2"))
	w.put(groupSpec("db")) // prefers nobody
	w.must(w.leader(), confdb.Command{MoveGroup: &confdb.MoveGroup{Group: "g-db", To: "id-n1"}})
	w.runsOn("db", n1, 5*time.Second)
	w.run(time.Minute)
	for _, h := range w.hosts {
		h.kill()
	}
	w.run(time.Second)
	n2.start()
	n3.start()
	w.until("db, which prefers nobody, doesn't wait", 10*time.Second, func() bool { return w.leader() != nil && w.online("db") })
	w.run(60 * time.Second)
	if w.running["g-web"] != "" {
		t.Fatalf("web didn't wait for its preferred owner:\n%s", w.describe())
	}
	n1.start()
	w.runsOn("web", n1, 5*time.Second)
	n1.kill() // within the 120 s
	if took := w.runsOn("web", n2, 5*time.Second); took > 3*time.Second {
		t.Errorf("a lost owner that had been up was waited for: %v", took)
	}
	for _, h := range w.hosts {
		h.kill()
	}
	w.run(time.Minute)
	n1.start()
	n3.start()
	took := w.until("web runs", 4*time.Minute, func() bool { return w.leader() != nil && w.online("web") })
	if w.running["g-web"] != "n1" || took > 10*time.Second {
		t.Errorf("its owner is not up, the head of its preferred owners is: it ran on %s after %v", w.running["g-web"], took)
	}
	for _, h := range w.hosts {
		h.kill()
	}
	w.run(time.Minute)
	n2.start()
	n3.start()
	took = w.until("web runs without its preferred owner", 4*time.Minute, func() bool { return w.leader() != nil && w.online("web") })
	if took < 115*time.Second || took > 130*time.Second {
		t.Errorf("after %v", took)
	}
}

// A preferred owner that never joined is no member yet, and one that is paused would
// get nothing: a cluster's start waits for neither.
func TestColdStartWaitsForNobodyElse(t *testing.T) {
	w := newWorld(t, 3)
	w.must(w.leader(), confdb.Command{PutNode: &confdb.PutNode{Spec: nodeSpec(8), ServerID: 999, Endpoint: "nowhere:1"}})
	if h := w.put(groupSpec("web", nodeSpec(8).Name, "n2")); h.name != "n2" {
		t.Errorf("web runs on %s", h.name)
	}
	w.must(w.leader(), confdb.Command{PauseNode: &confdb.PauseNode{Node: "id-n1"}})
	w.run(time.Second)
	for _, h := range w.hosts {
		h.kill()
	}
	w.run(time.Second)
	w.hosts[1].start()
	w.hosts[2].start()
	w.until("one leads", 5*time.Second, func() bool { return w.leader() != nil })
	if h := w.put(groupSpec("db", "n1", "n3")); h.name != "n3" {
		t.Errorf("db runs on %s", h.name)
	}
}

// A leader that started a moment ago makes no cluster start of it, where another node
// has been up all along.
func TestRestartedLeaderIsNoColdStart(t *testing.T) {
	w := newWorld(t, 3)
	n1, n3 := w.hosts[0], w.hosts[2]
	w.run(3 * time.Minute)
	n1.kill()
	n3.kill()
	n3.start()
	w.until("one leads", 10*time.Second, func() bool { return w.leader() != nil && len(w.state().View.Up) == 2 })
	w.until("n3 leads", 10*time.Second, func() bool {
		return w.leader() == n3 || w.leader() != nil && w.change(w.leader(), Membership{Op: "transfer", Server: n3.server}).Code == "" && w.leader() == n3
	})
	if h := w.put(groupSpec("web", "n1", "n2")); h.name != "n2" {
		t.Errorf("web runs on %s", h.name)
	}
}

// What failed more than a period ago doesn't count any more: then there are as many
// restarts again.
func TestRestartPeriod(t *testing.T) {
	w := newWorld(t, 3)
	n1 := w.put(groupSpec("web", "n1", "n2"))
	exits := func() {
		t.Helper()
		n1.end("g-web", "app")
		n1.input(ResourceChanged{Group: "g-web", Epoch: w.group("web").Owner.Epoch, Resource: "app", State: spec.StateFailed, Reason: "exit 1"})
	}
	thrice := func() {
		t.Helper()
		for range 3 { // restart.threshold
			exits()
			w.runsOn("web", n1, 5*time.Second)
			w.run(time.Second)
		}
	}
	thrice()
	w.slow()
	w.run(15 * time.Minute) // restart.period
	w.fast()
	thrice()
	exits()
	w.runsOn("web", w.hosts[1], 5*time.Second)
}

// A group that stays down with its node starts as at first once that is evicted.
func TestEvictFreesWhatDoesNotFailOver(t *testing.T) {
	w := newWorld(t, 4)
	g := groupSpec("web", "n4", "n2")
	g.Failover.Mode = spec.FailoverNone
	n4 := w.put(g)
	n4.kill()
	w.run(30 * time.Second)
	if w.running["g-web"] != "" {
		t.Fatalf("it runs on %s", w.running["g-web"])
	}
	w.must(w.leader(), confdb.Command{EvictNode: &confdb.NodeRef{Node: n4.id}})
	w.runsOn("web", w.hosts[1], 10*time.Second)
}

// Priority 0 is not started by itself, and an operator's online is what keeps
// it started.
func TestPriorityZero(t *testing.T) {
	w := newWorld(t, 3)
	g := groupSpec("web", "n1")
	g.Priority = 0
	w.must(w.leader(), confdb.Command{PutGroup: &g})
	w.run(3 * time.Second)
	if w.running["g-web"] != "" {
		t.Fatal("it started by itself")
	}
	w.must(w.leader(), confdb.Command{SetWant: &confdb.SetWant{Group: "g-web", Want: spec.WantOnline}})
	w.runsOn("web", w.hosts[0], 5*time.Second)
	w.hosts[0].kill()
	w.runsOn("web", w.hosts[1], 10*time.Second)
}

// A move without a target takes the best node there is.
func TestMoveToTheBest(t *testing.T) {
	w := newWorld(t, 4)
	w.put(groupSpec("web", "n1", "n2", "n3"))
	for _, c := range []struct{ to, want string }{{"", "n2"}, {"", "n1"}, {"id-n4", "n4"}, {"", "n1"}} {
		w.must(w.leader(), confdb.Command{MoveGroup: &confdb.MoveGroup{Group: "g-web", To: c.to}})
		w.until(fmt.Sprintf("to %s", c.want), 5*time.Second, func() bool { return w.online("web") && w.running["g-web"] == c.want })
	}
}

// A manual group waits for an operator, one without failover for its node.
func TestColdGroups(t *testing.T) {
	w := newWorld(t, 3)
	cold, none := groupSpec("cold", "n2"), groupSpec("none", "n2")
	cold.Failover.Mode, none.Failover.Mode = spec.FailoverManual, spec.FailoverNone
	w.put(cold)
	w.put(none)
	n2 := w.hosts[1]
	n2.kill()
	w.run(time.Minute)
	if w.running["g-cold"]+w.running["g-none"] != "" {
		t.Fatalf("they run: %v", w.running)
	}
	if !slices.ContainsFunc(w.state().Events, func(e confdb.Event) bool {
		return e.Kind == "group_waits" && strings.Contains(e.Text, "clusterplan move")
	}) {
		t.Error("no word on why it waits")
	}
	w.must(w.leader(), confdb.Command{MoveGroup: &confdb.MoveGroup{Group: "g-cold", To: "id-n3"}})
	w.runsOn("cold", w.hosts[2], 5*time.Second)
	n2.start()
	w.runsOn("none", n2, 10*time.Second)
	w.staysOn("cold", w.hosts[2], time.Minute, "an operator moved it")
}

// A resource that stays failed is tried again after an hour, in a group that
// it doesn't affect, and in one that has nowhere else to go.
func TestRetryAfterAnHour(t *testing.T) {
	w := newWorld(t, 3)
	g := groupSpec("web", "n1")
	g.Resources[1].Restart.AffectGroup = false
	w.put(g)
	h := w.hosts[0]
	h.fails["app"] = 3
	h.end("g-web", "app")
	h.input(ResourceChanged{Group: "g-web", Epoch: 1, Resource: "app", State: spec.StateFailed, Reason: "exit 1"})
	w.until("it rests", 5*time.Second, func() bool { return w.group("web").State == spec.StatePartialOnline })
	w.slow()
	took := w.until("it is tried again", 2*time.Hour, func() bool { w.run(time.Second); return w.online("web") })
	w.fast()
	if took < 57*time.Minute || took > 61*time.Minute {
		t.Errorf("after %v", took)
	}
	lone := groupSpec("lone", "n1")
	lone.PossibleOwners = []string{"n1"}
	w.put(lone)
	h.fails["app"] = 3
	h.end("g-lone", "app")
	h.input(ResourceChanged{Group: "g-lone", Epoch: 1, Resource: "app", State: spec.StateFailed, Reason: "exit 1"})
	w.until("it failed", 5*time.Second, func() bool { return w.group("lone").State == spec.StateFailed })
	w.slow()
	took = w.until("it is tried again", 2*time.Hour, func() bool { w.run(time.Second); return w.online("lone") })
	if took < 57*time.Minute || took > 61*time.Minute {
		t.Errorf("after %v", took)
	}
}

// The hour until a failed group is tried again goes on under another leader.
func TestRetryOutlivesTheLeader(t *testing.T) {
	w := newWorld(t, 3)
	g := groupSpec("lone")
	for _, h := range w.hosts {
		if h != w.leader() {
			g.PossibleOwners = []string{h.name}
		}
	}
	h := w.put(g)
	h.fails["app"] = 3
	h.end("g-lone", "app")
	h.input(ResourceChanged{Group: "g-lone", Epoch: 1, Resource: "app", State: spec.StateFailed, Reason: "exit 1"})
	w.until("it failed", 5*time.Second, func() bool { return w.group("lone").State == spec.StateFailed })
	w.slow()
	w.run(40 * time.Minute)
	w.fast()
	was := w.leader()
	was.kill()
	w.until("another leads", 30*time.Second, func() bool { return w.leader() != nil && w.leader() != was })
	w.slow()
	took := w.until("it is tried again", 2*time.Hour, func() bool { w.run(time.Second); return w.online("lone") })
	if took < 15*time.Minute || took > 21*time.Minute {
		t.Errorf("after 40 minutes under one leader and %v under another", took)
	}
}

// A node's wrong time of day neither shortens the hour until its failed group is
// tried again, nor stretches it.
func TestRetryWithAWrongClock(t *testing.T) {
	for _, off := range []time.Duration{-2 * time.Hour, 12 * time.Hour} {
		w := newWorld(t, 3)
		g := groupSpec("lone", "n2")
		g.PossibleOwners = []string{"n2"}
		h := w.put(g)
		if h == w.leader() {
			t.Fatal("the leader has the group")
		}
		h.input(Clock{Wall: time.Unix(1_700_000_000, 0).Add(time.Duration(w.now) + off)})
		h.fails["app"] = 3
		h.end("g-lone", "app")
		h.input(ResourceChanged{Group: "g-lone", Epoch: 1, Resource: "app", State: spec.StateFailed, Reason: "exit 1"})
		w.until("it failed", 5*time.Second, func() bool { return w.group("lone").State == spec.StateFailed })
		w.slow()
		took := w.until("it is tried again", 2*time.Hour, func() bool { w.run(time.Second); return w.online("lone") })
		if took < 57*time.Minute || took > 61*time.Minute {
			t.Errorf("its clock is %v off: after %v", off, took)
		}
	}
}

// The threshold is nodes - 1 within 6 h: past it the group is left failed,
// with an event; hours later it has as many again.
func TestThreshold(t *testing.T) {
	w := newWorld(t, 3)
	w.put(groupSpec("web", "n1", "n2", "n3"))
	w.fail("web")
	w.run(time.Second)
	w.slow()
	w.run(6 * time.Hour) // the first one is forgotten
	w.fast()
	w.fail("web")
	w.runsOn("web", w.hosts[2], 5*time.Second)
	w.fail("web")
	w.runsOn("web", w.hosts[0], 5*time.Second)
	w.fail("web")
	w.until("it is left failed", 5*time.Second, func() bool { g := w.group("web"); return g.LeftFailed != "" && g.State == spec.StateFailed })
	if w.running["g-web"] != "" || !slices.ContainsFunc(w.state().Events, func(e confdb.Event) bool { return e.Kind == confdb.KindGroupLeft }) {
		t.Errorf("%v\n%s", w.running, w.describe())
	}
	w.slow()
	w.run(2 * time.Hour)
	w.fast()
	if w.running["g-web"] != "" {
		t.Error("it was tried again by itself")
	}
	w.must(w.leader(), confdb.Command{SetWant: &confdb.SetWant{Group: "g-web", Want: spec.WantOnline}})
	w.until("it is online", 30*time.Second, func() bool { return w.online("web") })
}

// A definition that changes while a failed group stops is a new try where it
// is, whichever word of it comes first.
func TestChangedWhileItGivesUp(t *testing.T) {
	for _, wait := range []time.Duration{0, 6, 12, 20, 40} {
		w := newWorld(t, 3)
		g := groupSpec("web", "n1", "n2")
		h := w.put(g)
		h.fails["app"] = 3
		h.end("g-web", "app")
		h.input(ResourceChanged{Group: "g-web", Epoch: 1, Resource: "app", State: spec.StateFailed, Reason: "exit 1"})
		w.until("it gives up", 5*time.Second, func() bool { return w.group("web").GaveUp })
		w.run(wait * time.Millisecond)
		next := w.group("web").Spec
		next.Description = "mended"
		w.must(w.leader(), confdb.Command{PutGroup: &next})
		w.until("it is online again", 5*time.Second, func() bool { return w.online("web") })
		if g := w.group("web"); wait == 0 && g.Owner.Node != "id-n1" {
			t.Errorf("a failover in spite of a mended definition, after %v ms\n%s", int(wait), w.describe())
		}
	}
}
