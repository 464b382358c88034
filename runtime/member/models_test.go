package member

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/placement"
)

// The configuration models (Microsoft Cluster Service's five), as whole clusters do them.
// What a definition must say for each, lang/spec/rules_models.go asks.

func (w *world) configure(model string, edit func(i int, n *spec.Node)) {
	w.t.Helper()
	c := w.state().Cluster
	c.Configuration = model
	w.must(w.leader(), confdb.Command{PutCluster: &c})
	for i := range w.hosts {
		s := nodeSpec(i)
		edit(i, &s)
		w.must(w.leader(), confdb.Command{PutNode: &confdb.PutNode{Spec: s}})
	}
}

func (w *world) where(names ...string) string {
	text := ""
	for _, n := range names {
		text += fmt.Sprintf("%s:%s ", n, w.running["g-"+n])
	}
	return text
}

// Hot spare: the spare has nothing while a primary is up, takes all when none
// is, and gives it back at once.
func TestHotSpare(t *testing.T) {
	w := newWorld(t, 3)
	w.configure(spec.HotSpare, func(i int, n *spec.Node) { n.Spare = i == 2 })
	for _, name := range []string{"a", "b"} {
		g := groupSpec(name, "n1")
		g.Failback.Mode = "" // the model's
		w.put(g)
	}
	n1, n2 := w.hosts[0], w.hosts[1]
	n1.kill()
	w.until("the other primary has them", 10*time.Second, func() bool { return w.where("a", "b") == "a:n2 b:n2 " && w.leader() != nil })
	n1.start()
	w.until("home again", 10*time.Second, func() bool { return w.where("a", "b") == "a:n1 b:n1 " })
	for _, h := range []*host{n1, n2} {
		w.must(w.leader(), confdb.Command{PauseNode: &confdb.PauseNode{Node: h.id, Drain: true}})
	}
	w.until("the spare has them", 10*time.Second, func() bool { return w.where("a", "b") == "a:n3 b:n3 " })
	w.must(w.leader(), confdb.Command{ResumeNode: &confdb.NodeRef{Node: n1.id}})
	w.until("given back", 10*time.Second, func() bool { return w.where("a", "b") == "a:n1 b:n1 " })
}

// Static load balancing: each member has its own, and the others carry what a
// failed one had; home again by hand, for failback is prevented.
func TestStaticLoadBalancing(t *testing.T) {
	w := newWorld(t, 3)
	w.configure(spec.StaticLoadBalancing, func(_ int, n *spec.Node) { n.Capacity = map[string]int64{"cpu": 3} })
	var names []string
	for i, name := range []string{"a", "b", "c", "d", "e", "f"} {
		g := groupSpec(name, w.hosts[i%3].name, w.hosts[(i+1)%3].name, w.hosts[(i+2)%3].name)
		g.Demand = map[string]int64{"cpu": 1}
		w.put(g)
		names = append(names, name)
	}
	if got := w.where(names...); got != "a:n1 b:n2 c:n3 d:n1 e:n2 f:n3 " {
		t.Fatal(got)
	}
	w.hosts[1].kill()
	// b takes the next one, which is full then: e takes the one after.
	w.until("the others carry them", 10*time.Second, func() bool { return w.leader() != nil && w.online("b") && w.online("e") })
	if got := w.where(names...); got != "a:n1 b:n3 c:n3 d:n1 e:n1 f:n3 " {
		t.Error(got)
	}
}

// Partial: what is no part of failover stays down with its node, the rest goes
// on elsewhere.
func TestPartial(t *testing.T) {
	w := newWorld(t, 3)
	w.configure(spec.Partial, func(int, *spec.Node) {})
	stays := groupSpec("stays", "n2")
	stays.Failover.Mode = spec.FailoverNone
	w.put(stays)
	w.put(groupSpec("goes", "n2", "n1"))
	n2 := w.hosts[1]
	n2.kill()
	w.until("goes on", 10*time.Second, func() bool { return w.leader() != nil && w.online("goes") && w.running["g-goes"] == "n1" })
	w.staysOn("goes", w.hosts[0], time.Minute, "")
	if w.running["g-stays"] != "" {
		t.Errorf("it runs on %s", w.running["g-stays"])
	}
	n2.start()
	w.until("it is back with its node", 10*time.Second, func() bool { return w.online("stays") })
	if got := w.where("stays", "goes"); got != "stays:n2 goes:n1 " {
		t.Error(got)
	}
}

// Hybrid: each node has its own groups, and each group says what becomes of it.
func TestHybrid(t *testing.T) {
	w := newWorld(t, 3)
	w.configure(spec.Hybrid, func(int, *spec.Node) {})
	for name, mode := range map[string]string{"auto": spec.FailoverAutomatic, "cold": spec.FailoverManual, "none": spec.FailoverNone} {
		g := groupSpec(name, "n3", "n1")
		g.Failover = spec.Failover{Mode: mode, Stated: true}
		g.Failback.Mode = spec.FailbackImmediate
		w.put(g)
	}
	n3 := w.hosts[2]
	n3.kill()
	w.until("auto goes on", 10*time.Second, func() bool { return w.leader() != nil && w.online("auto") })
	w.run(5 * time.Second)
	if got := w.where("auto", "cold", "none"); got != "auto:n1 cold: none: " {
		t.Error(got)
	}
	n3.start()
	w.until("all are home", 10*time.Second, func() bool { return w.where("auto", "cold", "none") == "auto:n3 cold:n3 none:n3 " })
}

// Virtual server: one node, no failover; a resource that fails is restarted,
// and tried again later.
func TestVirtualServer(t *testing.T) {
	w := newWorldOf(t, 1, openBolt)
	h := w.put(groupSpec("web", "n1"))
	for range 4 { // past its restarts
		h.fails["app"]++
	}
	h.end("g-web", "app")
	h.input(ResourceChanged{Group: "g-web", Epoch: 1, Resource: "app", State: spec.StateFailed, Reason: "exit 1"})
	w.until("it failed", 5*time.Second, func() bool { return w.group("web").State == spec.StateFailed })
	h.fails["app"] = 0
	w.until("it is tried again", 2*time.Hour, func() bool { w.run(10 * time.Second); return w.online("web") })
}

// What the failure matrix shows is where the cluster ends: after a node's death
// every group is where placement, asked beforehand, said.
func TestEndsWhereTheMatrixSays(t *testing.T) {
	shed := 0
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(3, 4).Draw(rt, "nodes")
		w := newWorld(t, n)
		flag := func(label string, oneIn int) bool { return rapid.IntRange(0, oneIn-1).Draw(rt, label) == 0 }
		// By chance of its own: rapid's is mostly small, and sheds next to nothing.
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		tight := flag("tight", 2) // the nodes that are left have too little room: what counts less is shed, and sheds in turn
		w.configure("", func(i int, s *spec.Node) {
			s.Capacity = map[string]int64{"cpu": int64(2 + rng.IntN(7))}
			s.Spare = i == n-1 && flag("spare", 3)
		})
		var groups []spec.Group
		for i := range 1 + rng.IntN(8) {
			g := groupSpec(fmt.Sprint("g", i))
			for k := range w.hosts {
				if flag("preferred", 2) {
					g.PreferredOwners = append(g.PreferredOwners, w.hosts[(k+i)%n].name)
				}
			}
			g.Demand = map[string]int64{"cpu": int64(rng.IntN(4))}
			g.StopWithin = spec.Duration(rapid.IntRange(1, 6).Draw(rt, "stop_within")) * spec.Duration(50*time.Millisecond)
			g.Priority = 1000 * (1 + rng.IntN(5))
			g.Failover.Mode = rapid.SampledFrom([]string{spec.FailoverAutomatic, spec.FailoverAutomatic, spec.FailoverManual, spec.FailoverNone}).Draw(rt, "mode")
			if tight {
				g.Demand["cpu"], g.Failover.Mode = int64(1+rng.IntN(4)), spec.FailoverAutomatic
			}
			if i > 0 && flag("depends", 4) && groups[i-1].Failover.Mode == spec.FailoverAutomatic {
				g.DependsOn = []string{groups[i-1].Name}
			}
			if i > 0 && flag("apart", 4) {
				g.KeepApart = []string{groups[0].Name}
			}
			groups = append(groups, g)
			w.must(w.leader(), confdb.Command{PutGroup: &g})
		}
		w.run(3 * time.Second) // what can run does
		if flag("drain", 3) {
			w.must(w.leader(), confdb.Command{PauseNode: &confdb.PauseNode{Node: w.hosts[0].id, Drain: true}})
			w.run(3 * time.Second)
		}
		// What the planner asks.
		st := w.state()
		var in placement.Input
		for _, h := range w.hosts {
			node := st.Nodes[h.id]
			in.Nodes = append(in.Nodes, placement.Node{Spec: node.Spec, Up: true, Paused: node.Paused != nil, Drained: node.Drained})
		}
		for _, g := range groups {
			s := st.Groups[g.ID]
			p := placement.Group{Spec: s.Spec, Owner: st.NodeName(s.Owner.Node), Want: s.Want}
			if s.Owner.Node == "" && s.HomeFrom != "" {
				p.Last = st.NodeName(s.HomeFrom)
			}
			in.Groups = append(in.Groups, p)
		}
		dead := w.hosts[rapid.IntRange(0, n-1).Draw(rt, "dead")]
		if tight { // where what counts most is
			top := slices.MaxFunc(groups, func(x, y spec.Group) int { return cmp.Compare(x.Priority, y.Priority) })
			for _, h := range w.hosts {
				if h.id == st.Groups[top.ID].Owner.Node {
					dead = h
				}
			}
		}
		want := placement.Compile(in).Settle(dead.name)
		for _, o := range want {
			if o.Why == placement.WhyShed {
				shed++
			}
		}
		dead.kill()
		w.run(6 * time.Second)
		if w.leader() == nil {
			rt.Fatalf("no leader\n%s", w.describe())
		}
		for _, o := range want {
			got := w.running["g-"+o.Group]
			if got != o.To {
				rt.Fatalf("%s died: %s runs on %q, not on %q (%s): %+v\n%s", dead.name, o.Group, got, o.To, o.Why, want, w.describe())
			}
		}
		if len(w.overlaps) > 0 {
			rt.Fatal(w.overlaps)
		}
	})
	if t.Logf("%d groups were shed", shed); shed == 0 {
		t.Error("nothing was shed: too tame")
	}
}

// A witness votes and never owns; others lead while any of them can.
func TestWitness(t *testing.T) {
	w := newWorld(t, 3)
	s := nodeSpec(0)
	s.Role = spec.RoleWitness
	w.must(w.leader(), confdb.Command{PutNode: &confdb.PutNode{Spec: s}})
	w.until("the witness hands over", 10*time.Second, func() bool { return w.leader() != nil && w.leader() != w.hosts[0] })
	for i, name := range []string{"a", "b", "c"} {
		g := groupSpec(name)
		g.Addr = addr.Group(name, addr.NoKey)
		w.put(g)
		if i == 1 {
			lead := w.leader()
			lead.kill()
			w.until("the other one leads", 10*time.Second, func() bool { return w.leader() != nil && w.leader() != w.hosts[0] })
			w.until("a and b run", 10*time.Second, func() bool { return w.online("a") && w.online("b") })
			lead.start()
			w.until("all are up", 10*time.Second, func() bool { return w.leader() != nil && len(w.state().View.Up) == 3 })
		}
	}
	if slices.Contains([]string{w.running["g-a"], w.running["g-b"], w.running["g-c"]}, "n1") {
		t.Errorf("a witness owns a group: %v", w.running)
	}
}
