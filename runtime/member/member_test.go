package member

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
)

// W of the fast profile: (600 + 100 + 50 ms) x 1.01/0.99.
var wait = spec.Timings{}.WithDefaults().TakeoverWait(0)

// A node is lost: its group runs elsewhere after W and little more, whether it
// led or not, and the events tell why.
func TestFailover(t *testing.T) {
	for _, leads := range []bool{false, true} {
		t.Run(fmt.Sprintf("leader=%v", leads), func(t *testing.T) {
			w := newWorld(t, 3)
			name := "n2"
			if leads {
				name = w.leader().name
			}
			owner := w.put(groupSpec("web", name))
			if owner.name != name {
				t.Fatalf("web started on %s", owner.name)
			}
			w.run(2 * time.Second)
			epoch := w.group("web").Owner.Epoch
			owner.kill()
			took := w.until("web runs elsewhere", 5*time.Second, func() bool {
				return w.running["g-web"] != "" && w.running["g-web"] != name
			})
			t.Logf("failover in %v", took)
			if took > wait+150*time.Millisecond {
				t.Errorf("failover took %v, W is %v", took, wait)
			}
			w.until("web is reported online", time.Second, func() bool { return w.online("web") })
			if g := w.group("web"); g.Owner.Epoch != epoch+1 || g.HomeFrom != owner.id || len(g.Failovers) != 0 {
				t.Errorf("after the failover: %+v", g)
			}
			chain := why(w, "group_online")
			if want := "node_down group_failover group_online"; chain != want {
				t.Errorf("cause chain %q, want %q\n%s", chain, want, w.describe())
			}
			// The node returns: failback is prevented.
			owner.start()
			w.until("the node is up again", 5*time.Second, func() bool { return len(w.state().View.Up) == 3 })
			w.run(3 * time.Second)
			if w.running["g-web"] == name {
				t.Error("the group went back although failback is prevented")
			}
		})
	}
}

// why walks from the newest event of a kind to its first cause.
func why(w *world, kind string) string {
	events := w.state().Events
	byID := map[uint64]confdb.Event{}
	var id uint64
	for _, e := range events {
		byID[e.ID] = e
		if e.Kind == kind {
			id = e.ID
		}
	}
	var out []string
	for id != 0 {
		out = append(out, byID[id].Kind)
		id = byID[id].Cause
	}
	slices.Reverse(out)
	return strings.Join(out, " ")
}

// A partition and a pause of any length: the old owner's processes are gone
// before the new ones start, at the bounds of the clocks' rates. (Overlaps
// fail every test: see newWorld.)
func TestNoOverlap(t *testing.T) {
	for _, ppm := range []int64{-5000, 5000} {
		for _, what := range []string{"partition", "pause", "agent killed", "one way out", "one way in"} {
			t.Run(fmt.Sprintf("%s %d", what, ppm), func(t *testing.T) {
				w := newWorld(t, 3, ppm, -ppm, ppm)
				owner := w.put(groupSpec("web", "n2"))
				w.run(time.Second)
				switch what {
				case "partition":
					w.isolate(owner, true)
				case "pause":
					owner.freeze()
				case "agent killed":
					owner.killAgent()
				case "one way out":
					for _, o := range w.hosts {
						w.cut[[2]int{owner.i, o.i}] = true
					}
				case "one way in":
					for _, o := range w.hosts {
						w.cut[[2]int{o.i, owner.i}] = true
					}
				}
				took := w.until("web runs elsewhere", 5*time.Second, func() bool {
					return w.running["g-web"] != "" && w.running["g-web"] != owner.name
				})
				t.Logf("%v", took)
				if took < 700*time.Millisecond {
					t.Errorf("it was taken over after %v, before the owner's lease can be over", took)
				}
				w.run(5 * time.Second)
				w.cut = map[[2]int]bool{}
				if what == "agent killed" {
					owner.start()
				}
				owner.thaw()
				w.until("all are up again", 10*time.Second, func() bool { return len(w.state().View.Up) == 3 })
				w.run(time.Second)
				if len(owner.procs) > 0 || !w.online("web") {
					t.Errorf("after healing:\n%s", w.describe())
				}
			})
		}
	}
}

// A minority stops what it runs by its own deadline, and the whole cluster
// stops without a majority; when the lease comes back, so do the groups,
// under the same epoch.
func TestLeaseLostAndBack(t *testing.T) {
	w := newWorld(t, 3)
	owner := w.put(groupSpec("web", "n1"))
	epoch := w.group("web").Owner.Epoch
	for _, h := range w.hosts {
		w.isolate(h, true)
	}
	took := w.until("the owner stops web", 2*time.Second, func() bool { return w.running["g-web"] == "" })
	if took > 750*time.Millisecond {
		t.Errorf("it stopped after %v", took)
	}
	w.run(5 * time.Second)
	w.cut = map[[2]int]bool{}
	w.until("web is back", 5*time.Second, func() bool { return w.running["g-web"] != "" && w.leader() != nil && w.online("web") })
	w.run(2 * time.Second)
	if g := w.group("web"); g.Owner.Node == owner.id && g.Owner.Epoch != epoch {
		t.Errorf("same owner, epoch %d, was %d", g.Owner.Epoch, epoch)
	}
}

// An unsplit change of leader stops nobody.
func TestLeaderChangeStopsNobody(t *testing.T) {
	w := newWorld(t, 3)
	lead := w.leader()
	other := w.hosts[(lead.i+1)%3]
	third := w.hosts[(lead.i+2)%3]
	w.put(groupSpec("web", other.name))
	w.put(groupSpec("db", third.name))
	w.run(time.Second)
	starts := len(other.starts) + len(third.starts)
	lead.kill()
	w.run(5 * time.Second)
	if len(other.starts)+len(third.starts) != starts {
		t.Errorf("groups were started again:\n%s", w.describe())
	}
}

// An operator's move, a drain, an offline and an online, a delete: the owner
// stops and releases first, no wait.
func TestOrders(t *testing.T) {
	w := newWorld(t, 3)
	owner := w.put(groupSpec("web", "n1"))
	w.run(time.Second)
	move := func(c confdb.Command, to string) {
		t.Helper()
		before := w.group("web").Owner.Epoch
		w.must(w.leader(), c)
		took := w.until("web is on "+to, 3*time.Second, func() bool { return w.online("web") && w.running["g-web"] == to })
		if took > 300*time.Millisecond {
			t.Errorf("%v for an orderly change of owner", took)
		}
		if g := w.group("web"); g.Owner.Epoch != before+1 || g.Move != nil || g.Handover != nil {
			t.Errorf("after it: %+v", g)
		}
	}
	move(confdb.Command{MoveGroup: &confdb.MoveGroup{Group: "g-web", To: "id-n3"}}, "n3")
	if chain := why(w, "group_online"); !strings.HasSuffix(chain, "group_move group_handover group_assigned group_online") {
		t.Errorf("cause chain %q\n%s", chain, w.describe())
	}
	move(confdb.Command{PauseNode: &confdb.PauseNode{Node: "id-n3", Drain: true}}, "n1") // next after n3, round and round
	w.must(w.leader(), confdb.Command{ResumeNode: &confdb.NodeRef{Node: "id-n3"}})
	w.must(w.leader(), confdb.Command{PauseNode: &confdb.PauseNode{Node: "id-n2"}})
	move(confdb.Command{MoveGroup: &confdb.MoveGroup{Group: "g-web"}}, "n3") // n2 is paused
	w.must(w.leader(), confdb.Command{SetWant: &confdb.SetWant{Group: "g-web", Want: spec.WantOffline}})
	w.until("web is offline", time.Second, func() bool {
		g := w.group("web")
		return g.Owner.Node == "" && g.State == spec.StateOffline && w.running["g-web"] == ""
	})
	w.run(2 * time.Second)
	if w.running["g-web"] != "" {
		t.Error("it was started although an operator wants it offline")
	}
	w.must(w.leader(), confdb.Command{SetWant: &confdb.SetWant{Group: "g-web", Want: spec.WantOnline}})
	w.until("web is online", time.Second, func() bool { return w.online("web") })
	w.must(w.leader(), confdb.Command{DeleteGroup: &confdb.GroupRef{Group: "g-web"}})
	w.until("web is gone", time.Second, func() bool { return w.group("web") == nil && w.running["g-web"] == "" })
	_ = owner
}

// Restarts by policy, then failover, then left failed past the threshold; an
// operator's online tries again.
func TestFailures(t *testing.T) {
	w := newWorld(t, 3)
	owner := w.put(groupSpec("web", "n1"))
	w.run(time.Second)
	// One failure of the process: started again at once, on the same node.
	starts := len(owner.starts)
	owner.end("g-web", "app")
	owner.input(ResourceChanged{Group: "g-web", Epoch: w.group("web").Owner.Epoch, Resource: "app", State: spec.StateFailed, Reason: "exit 3"})
	if len(owner.starts) != starts+1 {
		t.Fatalf("not started again in the same step: %v", owner.starts)
	}
	w.until("web is online again", time.Second, func() bool { return w.online("web") })
	// It fails for good, everywhere.
	for _, h := range w.hosts {
		h.fails["app"] = 1000
	}
	for _, h := range w.hosts[:1] {
		h.end("g-web", "app")
		h.input(ResourceChanged{Group: "g-web", Epoch: w.group("web").Owner.Epoch, Resource: "app", State: spec.StateFailed, Reason: "exit 3"})
	}
	w.until("web is left failed", 10*time.Second, func() bool { return w.group("web").LeftFailed != "" })
	g := w.group("web")
	if len(g.Failovers) != 2 || g.Owner.Node != "" || g.State != spec.StateFailed || w.running["g-web"] != "" {
		t.Errorf("left failed: %+v\n%s", g, w.describe())
	}
	if g.Resources[1].State != spec.StateFailed || g.Resources[1].Reason != "exit 1" {
		t.Errorf("its resources: %+v", g.Resources)
	}
	w.run(5 * time.Second)
	for _, h := range w.hosts {
		h.fails["app"] = 0
	}
	w.must(w.leader(), confdb.Command{SetWant: &confdb.SetWant{Group: "g-web", Want: spec.WantOnline}})
	w.until("web is online", 3*time.Second, func() bool { return w.online("web") })
}

// A group starts only once those that it depends on are online; an offline
// stops dependents first; a failure of a dependency stops no running dependent.
func TestGroupDependencies(t *testing.T) {
	w := newWorld(t, 3)
	db := groupSpec("db", "n1")
	web := groupSpec("web", "n2")
	web.DependsOn = []string{"db"}
	w.hosts[0].fails["ip"] = 1
	w.must(w.leader(), confdb.Command{PutGroup: &web})
	w.run(time.Second)
	if w.running["g-web"] != "n2" { // a name that nothing has yet holds nothing back
		t.Fatalf("web: %s", w.describe())
	}
	w.must(w.leader(), confdb.Command{SetWant: &confdb.SetWant{Group: "g-web", Want: spec.WantOffline}})
	w.until("web is down", time.Second, func() bool { return w.group("web").Owner.Node == "" })
	db.PersistentState = spec.WantOffline
	w.must(w.leader(), confdb.Command{PutGroup: &db})
	w.must(w.leader(), confdb.Command{SetWant: &confdb.SetWant{Group: "g-web", Want: spec.WantOnline}})
	w.run(time.Second)
	if w.running["g-web"] != "" {
		t.Fatal("web started without db")
	}
	w.must(w.leader(), confdb.Command{SetWant: &confdb.SetWant{Group: "g-db", Want: spec.WantOnline}})
	w.until("both run", 2*time.Second, func() bool { return w.online("db") && w.online("web") })
	// db's node is lost: web goes on.
	starts := len(w.hosts[1].starts)
	w.hosts[0].kill()
	w.until("db failed over", 3*time.Second, func() bool { return w.leader() != nil && w.online("db") && w.running["g-db"] != "n1" })
	if len(w.hosts[1].starts) != starts && w.running["g-db"] != "n2" || w.running["g-web"] != "n2" {
		t.Errorf("web was touched: %v", w.hosts[1].starts[starts:])
	}
	// db offline: web first.
	w.must(w.leader(), confdb.Command{SetWant: &confdb.SetWant{Group: "g-db", Want: spec.WantOffline}})
	w.until("web is down", 2*time.Second, func() bool {
		if w.running["g-db"] == "" && w.running["g-web"] != "" {
			t.Fatal("db stopped before web, which depends on it")
		}
		return w.running["g-web"] == "" && w.running["g-db"] == ""
	})
}

// Failback: at once, or after a delay of stability.
func TestFailback(t *testing.T) {
	w := newWorld(t, 3)
	g := groupSpec("web", "n3", "n2")
	g.Failback = spec.Failback{Mode: spec.FailbackImmediate, Delay: spec.Duration(4 * time.Second)}
	home := w.put(g)
	w.run(time.Second)
	home.kill()
	w.until("web is on n2", 3*time.Second, func() bool { return w.leader() != nil && w.online("web") && w.running["g-web"] == "n2" })
	home.start()
	w.until("n3 is up", 5*time.Second, func() bool { return len(w.state().View.Up) == 3 })
	took := w.until("web is home", 10*time.Second, func() bool { return w.online("web") && w.running["g-web"] == "n3" })
	if took < 3900*time.Millisecond || took > 5*time.Second {
		t.Errorf("failback after %v, delay is 4s", took)
	}
	if w.group("web").HomeFrom != "" {
		t.Error("home, and still told to go home")
	}
}

// Wherever failures and drains take a group, an immediate failback ends at the
// head of its preferred owners, each time again.
func TestFailbackEndsAtTheHead(t *testing.T) {
	w := newWorld(t, 3)
	g := groupSpec("web", "n1", "n2", "n3")
	g.Failback = spec.Failback{Mode: spec.FailbackImmediate, Delay: spec.Duration(time.Second)}
	w.put(g)
	w.run(time.Second)
	on := func(node string) func() bool {
		return func() bool { return w.leader() != nil && w.online("web") && w.running["g-web"] == node }
	}
	killed := func(node, to string) {
		t.Helper()
		h := w.owner("web")
		if h.name != node {
			t.Fatalf("web is on %s, not %s", h.name, node)
		}
		h.kill()
		w.until("web is on "+to, 4*time.Second, on(to))
		h.start()
	}
	// An operator moved it to n2, where it stays until n2 is lost.
	w.must(w.leader(), confdb.Command{MoveGroup: &confdb.MoveGroup{Group: "g-web", To: "id-n2"}})
	w.until("web has moved", 5*time.Second, on("n2"))
	w.run(3 * time.Second)
	killed("n2", "n3")
	w.until("web is home", 15*time.Second, on("n1"))
	w.until("all are up", 5*time.Second, func() bool { return len(w.state().View.Up) == 3 })
	// And once more: home was not forgotten.
	killed("n1", "n2")
	w.until("web is home again", 15*time.Second, on("n1"))
	w.until("all are up again", 5*time.Second, func() bool { return len(w.state().View.Up) == 3 })
	// A drain takes it away, a resume brings it home.
	home := w.owner("web").id
	w.must(w.leader(), confdb.Command{PauseNode: &confdb.PauseNode{Node: home, Drain: true}})
	w.until("web has left the drained node", 5*time.Second, func() bool { return w.online("web") && w.running["g-web"] != "n1" })
	w.run(3 * time.Second)
	if w.running["g-web"] == "n1" {
		t.Fatal("web went to a drained node")
	}
	w.must(w.leader(), confdb.Command{ResumeNode: &confdb.NodeRef{Node: home}})
	w.until("web is home after the resume", 10*time.Second, on("n1"))
	if w.group("web").HomeFrom != "" {
		t.Error("home, and still told to go home")
	}
}

// A restarted agent gets no lease before the old incarnation's is over, even
// when its monitor is up at once.
func TestRestartWaits(t *testing.T) {
	w := newWorld(t, 3)
	owner := w.put(groupSpec("web", "n2"))
	w.run(time.Second)
	owner.kill()
	w.run(20 * time.Millisecond)
	starts := len(owner.starts)
	owner.start()
	back := w.until("web runs", 4*time.Second, func() bool { return w.running["g-web"] != "" })
	if back < 700*time.Millisecond {
		t.Errorf("web ran %v after the restart; W is %v", back, wait)
	}
	if len(owner.starts) > starts && w.group("web").Owner.Epoch != 1 {
		t.Errorf("restarted in place under epoch %d", w.group("web").Owner.Epoch)
	}
}

// A shutdown stops, releases and hands leadership over: no wait.
func TestShutdown(t *testing.T) {
	for _, name := range []string{"leader", "follower"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3)
			h := w.leader()
			if name == "follower" {
				h = w.hosts[(h.i+1)%3]
			}
			w.put(groupSpec("web", h.name))
			w.run(time.Second)
			h.input(Shutdown{})
			took := w.until("web runs elsewhere", 3*time.Second, func() bool { return w.running["g-web"] != "" && w.running["g-web"] != h.name })
			if took > 500*time.Millisecond {
				t.Errorf("handed over in %v", took)
			}
			w.until("stopped", 4*time.Second, func() bool { return h.stopped })
			h.kill()
			took = w.until("there is a leader", 3*time.Second, func() bool { return w.leader() != nil })
			t.Logf("a leader %v later", took)
		})
	}
}

// A release counts for one group, epoch and incarnation; and what a frame of
// another term says does not count at all.
func TestForgedFramesChangeNothing(t *testing.T) {
	forge := map[string]func(f *heartbeat.Frame){
		"release of another incarnation": func(f *heartbeat.Frame) {
			f.Releases = []heartbeat.Release{{Group: "g-web", Epoch: 99, Incarnation: f.Incarnation + 1}}
		},
		"release of an older epoch": func(f *heartbeat.Frame) {
			f.Releases = []heartbeat.Release{{Group: "g-web", Epoch: 0, Incarnation: f.Incarnation}}
		},
		"release in an older term": func(f *heartbeat.Frame) {
			f.Term--
			f.Releases = []heartbeat.Release{{Group: "g-web", Epoch: 99, Incarnation: f.Incarnation}}
		},
		"release that answers another incarnation of the leader": func(f *heartbeat.Frame) {
			f.AckIncarnation++
			f.Releases = []heartbeat.Release{{Group: "g-web", Epoch: 99, Incarnation: f.Incarnation}}
		},
	}
	for name, do := range forge {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3)
			owner := w.put(groupSpec("web", "n2"))
			w.run(time.Second)
			epoch := w.group("web").Owner.Epoch
			w.onFrame = func(from, to *host, f *heartbeat.Frame) bool {
				if from == owner {
					do(f)
				}
				return true
			}
			w.run(200 * time.Millisecond) // shorter than a suspicion: some forgeries are no answers
			w.onFrame = nil
			w.run(2 * time.Second)
			if g := w.group("web"); g.Owner.Node != owner.id || g.Owner.Epoch != epoch || w.running["g-web"] != "n2" {
				t.Errorf("it was believed:\n%s", w.describe())
			}
		})
	}
}
