package member

import (
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
)

// A frame of an earlier incarnation, recorded at a time when that one was young
// and had heard the very leader it is played to, takes no one's place: the node
// stays up, and keeps its lease and its group.
func TestReplayedIncarnation(t *testing.T) {
	w := newWorld(t, 3)
	leader := w.leader()
	node := w.hosts[1]
	var recorded []heartbeat.Frame
	node.kill()
	w.onFrame = func(from, to *host, f *heartbeat.Frame) bool {
		if from == node && to == leader && len(recorded) < 5 {
			recorded = append(recorded, *f)
		}
		return true
	}
	node.start()
	w.run(2 * time.Second)
	node.kill()
	node.start()
	w.run(2 * time.Second)
	w.put(groupSpec("web", "n2"))
	w.run(2 * time.Second)
	epoch, view := w.group("web").Owner.Epoch, w.state().View.Epoch
	for i := range 40 {
		f := recorded[i%len(recorded)]
		leader.input(FrameIn{From: node.endpoint(), Frame: f})
		w.run(50 * time.Millisecond)
	}
	w.run(time.Second)
	if g := w.group("web"); g.Owner.Epoch != epoch || w.state().View.Epoch != view || w.running["g-web"] != "n2" {
		t.Errorf("a recording took a live node down:\n%s", w.describe())
	}
}

// Who has just started believes any incarnation of its peers until one echoes
// its own, and then that one: a recording can't keep a node from its leader.
func TestReplayToANewcomer(t *testing.T) {
	w := newWorld(t, 3)
	leader, node := w.leader(), w.hosts[1]
	var recorded *heartbeat.Frame
	w.onFrame = func(from, to *host, f *heartbeat.Frame) bool {
		if from == leader && to == node && recorded == nil {
			recorded = new(*f)
		}
		return true
	}
	w.run(200 * time.Millisecond)
	w.onFrame = nil
	node.kill()
	leader.kill()
	w.run(2 * time.Second)
	leader.start()
	node.start()
	for range 40 {
		node.input(FrameIn{From: leader.endpoint(), Frame: *recorded})
		w.run(50 * time.Millisecond)
	}
	w.until("all are up", 5*time.Second, func() bool { return w.leader() != nil && len(w.state().View.Up) == 3 })
}

// Only the answer to an EndGroup proves that a group is down: a word that the
// monitor said of its own, before it took the newest order to start, does not.
func TestDownOfBefore(t *testing.T) {
	w := newWorld(t, 3)
	owner := w.put(groupSpec("web", "n2"))
	w.run(time.Second)
	owner.mute = true // ip goes on
	epoch := w.group("web").Owner.Epoch
	w.must(w.leader(), confdb.Command{SetWant: &confdb.SetWant{Group: "g-web", Want: spec.WantOffline}})
	w.run(5 * time.Millisecond)
	owner.input(GroupDown{Group: "g-web", Epoch: epoch})
	w.run(time.Second)
	if g := w.group("web"); w.running["g-web"] == "n2" && g.Owner.Node == "" {
		t.Errorf("it was released while it runs:\n%s", w.describe())
	}
}

// The monitor and the core mean the same moment by the end of a lease, for the
// monitor stops at its own: each Renew that is due is passed on, and none is for
// next to nothing.
func TestRenewals(t *testing.T) {
	w := newWorld(t, 3)
	owner := w.put(groupSpec("web", w.leader().name))
	for range 200 {
		w.run(3 * time.Millisecond)
		if end := owner.m.Status().LeaseEnd; end != owner.lease {
			t.Fatalf("the core's lease ends %v after the monitor's", end.Sub(owner.lease))
		}
	}
	before := owner.renewals
	w.run(time.Second)
	if n := owner.renewals - before; n > 25 {
		t.Errorf("%d renewals in a second with a frame each 50 ms", n)
	}
}

// A start that the monitor refuses as the lease is over is no failure of the resource.
func TestRefusedForWantOfALease(t *testing.T) {
	w := newWorld(t, 3)
	owner := w.put(groupSpec("web", "n2"))
	w.run(time.Second)
	w.isolate(owner, true)
	w.until("its lease ends", 2*time.Second, func() bool { return owner.m.Status().LeaseEnd <= owner.clock()+spec.Instant(50*time.Microsecond) })
	epoch := w.group("web").Owner.Epoch
	for range 4 {
		owner.input(ResourceChanged{Group: "g-web", Epoch: epoch, Resource: "app", State: spec.StateFailed, Reason: "refused: this node holds no lease"})
		w.run(100 * time.Microsecond)
	}
	w.isolate(owner, false)
	w.until("web is online", 5*time.Second, func() bool { return w.leader() != nil && w.online("web") })
	for _, e := range w.state().Events {
		if e.Kind == "resource_failed" || e.Kind == "group_failed" {
			t.Errorf("%s: %s", e.Kind, e.Text)
		}
	}
}

// A node's new data directory gets no lease while the server that it was before
// may hold one, though both run at once for whatever reason.
func TestTwoServersOfANode(t *testing.T) {
	for _, change := range []bool{false, true} {
		w := newWorld(t, 3)
		g := groupSpec("web", "n2")
		g.PossibleOwners = []string{"n2"}
		old := w.put(g)
		// The node's other server waits long before it is joined.
		s := nodeSpec(1)
		other := &host{w: w, i: 3, id: s.ID, name: "n2 again", server: 777, procs: map[string]map[string]uint64{}, fails: map[string]int{}}
		w.hosts = append(w.hosts, other)
		other.start()
		w.run(5 * time.Second)
		w.until("n1 leads", time.Second, func() bool { return w.leader() == w.hosts[0] })
		if r := w.change(w.leader(), Membership{Op: "remove", Server: old.server}); r.Code != "" {
			t.Fatalf("%+v", r)
		}
		w.must(w.leader(), confdb.Command{PutNode: &confdb.PutNode{Spec: s, ServerID: other.server, Endpoint: other.endpoint(), Version: "1"}})
		w.change(w.leader(), Membership{Op: "add_learner", Server: other.server, Endpoint: other.endpoint()})
		if change {
			w.change(w.leader(), Membership{Op: "transfer", Server: w.hosts[2].server})
		}
		w.until("web runs on the new server", 5*time.Second, func() bool { return w.running["g-web"] == "n2 again" })
		old.kill()
	}
}

// A server that its node is no more still hears of updates, and holds a lease: a
// group that comes to the node then is the new server's alone.
func TestTheServerThatItWas(t *testing.T) {
	w := newWorld(t, 3)
	g := groupSpec("web", "n2")
	g.PossibleOwners = []string{"n2"}
	w.put(g)
	w.must(w.leader(), confdb.Command{SetWant: &confdb.SetWant{Group: "g-web", Want: spec.WantOffline}})
	w.until("web is nobody's", time.Second, func() bool { return w.group("web").Owner.Node == "" })
	s := nodeSpec(1)
	other := &host{w: w, i: 3, id: s.ID, name: "n2 again", server: 777, procs: map[string]map[string]uint64{}, fails: map[string]int{}}
	w.hosts = append(w.hosts, other)
	other.start()
	w.change(w.leader(), Membership{Op: "add_learner", Server: other.server, Endpoint: other.endpoint()})
	w.until("the other server has caught up", 5*time.Second, func() bool { return other.m.State().Revision == w.state().Revision })
	w.must(w.leader(), confdb.Command{PutNode: &confdb.PutNode{Spec: s, ServerID: other.server, Endpoint: other.endpoint(), Version: "1"}})
	w.must(w.leader(), confdb.Command{SetWant: &confdb.SetWant{Group: "g-web", Want: spec.WantOnline}})
	w.until("web runs on the new server", 500*time.Millisecond, func() bool { return len(other.starts) > 0 })
	if left := w.hosts[1].m.Status().LeaseEnd.Sub(w.hosts[1].clock()); left < 50*time.Millisecond {
		t.Errorf("the old server's lease lasts %v: this shows nothing", left)
	}
	w.run(time.Second)
}

// Leases become shorter by a change of the settings: one that was granted before
// lasts as long as it was granted for, and W counts with that.
func TestShorterLease(t *testing.T) {
	w := newWorld(t, 3)
	cluster := w.state().Cluster
	cluster.Heartbeat = spec.Timings{Lease: spec.Duration(1500 * time.Millisecond)}
	w.must(w.leader(), confdb.Command{PutCluster: &cluster})
	w.run(2 * time.Second)
	cluster.Heartbeat = spec.Timings{}
	w.must(w.leader(), confdb.Command{PutCluster: &cluster})
	g := groupSpec("web", "n2")
	w.must(w.leader(), confdb.Command{PutGroup: &g})
	w.until("web runs", time.Second, func() bool { return w.running["g-web"] == "n2" })
	w.hosts[1].freeze()
	w.until("web runs elsewhere", 5*time.Second, func() bool { return w.running["g-web"] != "" && w.running["g-web"] != "n2" })
	w.hosts[1].thaw()
	w.until("web is online", 5*time.Second, func() bool { return w.online("web") })
	w.run(3 * time.Second)
	// From then on, W is the short one.
	w.owner("web").kill()
	if took := w.until("web runs again", 5*time.Second, func() bool { return w.running["g-web"] != "" }); took > wait+150*time.Millisecond {
		t.Errorf("failover took %v, W is %v", took, wait)
	}
}
