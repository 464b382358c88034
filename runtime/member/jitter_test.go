package member

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
)

// Lost frames and hosts that stand still for a moment take nobody out of the
// view: a node that answers irregularly is suspected later, and a leader that
// was held up itself suspects nobody for it. When such a node crashes its group
// is elsewhere no later than any other's.
func TestJitter(t *testing.T) {
	limit := spec.Timings{}.WithDefaults().SuspicionLimit()
	if limit != 500*time.Millisecond {
		t.Fatalf("a suspicion may grow to %s", limit)
	}
	rng := rand.New(rand.NewPCG(7, 7))
	loss := func(percent int) func(w *world) {
		return func(w *world) {
			w.onFrame = func(_, _ *host, _ *heartbeat.Frame) bool { return rng.IntN(100) >= percent }
			w.run(2 * time.Minute)
			w.onFrame = nil
		}
	}
	// A host that is busy has shorter stalls than its longest.
	bursts := func(pick func(w *world) *host) func(w *world) {
		return func(w *world) {
			for i := range 60 {
				h := pick(w)
				h.freeze()
				w.run(time.Duration(110+190*min(i, 1)) * time.Millisecond)
				h.thaw()
				w.run(time.Second + time.Duration(rng.IntN(100))*time.Millisecond)
			}
		}
	}
	follower := func(w *world) *host {
		if h := w.hosts[1]; h != w.leader() {
			return h
		}
		return w.hosts[2]
	}
	for _, c := range []struct {
		name    string
		trouble func(w *world)
	}{
		{"nothing", func(w *world) { w.run(time.Second) }},
		{"5% loss", loss(5)},
		{"20% loss", loss(20)},
		{"a follower stands still", bursts(follower)},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 3)
			owner := w.put(groupSpec("web", follower(w).name))
			w.run(2 * time.Second)
			view, epoch := w.state().View.Epoch, w.group("web").Owner.Epoch
			c.trouble(w)
			if v := w.state().View; v.Epoch != view || w.group("web").Owner.Epoch != epoch || !w.online("web") {
				t.Errorf("the view changed: %s\n%s", fmt.Sprint(v), w.describe())
			}
			w.run(time.Second)
			if w.leader() == owner {
				t.Fatal("the owner leads") // another case: its group waits for W after an election
			}
			owner.kill()
			down := w.until("it is out of the view", 5*time.Second, func() bool { return len(w.state().View.Up) == 2 })
			took := down + w.until("web runs elsewhere", 5*time.Second, func() bool { return w.running["g-web"] != "" && w.running["g-web"] != owner.name })
			t.Logf("down after %v, failover in %v", down, took)
			if most := limit + 60*time.Millisecond; down > most {
				t.Errorf("it was down after %v; the bound with a commit is %v", down, most)
			}
			if took > wait+150*time.Millisecond {
				t.Errorf("failover took %v, W is %v", took, wait)
			}
			// What was observed is forgotten: back, it is as others are.
			owner.start()
			w.until("it is up again", 5*time.Second, func() bool { return len(w.state().View.Up) == 3 })
			w.run(5 * time.Minute)
			owner.kill()
			if down := w.until("it is out of the view again", 5*time.Second, func() bool { return len(w.state().View.Up) == 2 }); down > 310*time.Millisecond {
				t.Errorf("minutes later it was down after %v", down)
			}
		})
	}
	// Held up itself, a leader has sent nothing to answer.
	t.Run("the leader stands still", func(t *testing.T) {
		w := newWorld(t, 3)
		w.run(2 * time.Second)
		leader, view := w.leader(), w.state().View.Epoch
		for i := range 20 {
			leader.freeze()               // at any moment between two of its frames
			w.run(235 * time.Millisecond) // any longer, and another is elected
			leader.thaw()
			w.run(time.Second + time.Duration(7*i)*time.Millisecond)
		}
		if w.leader() != leader || w.state().View.Epoch != view {
			t.Errorf("led by %s, was %s; view %+v\n%s", w.leader().name, leader.name, w.state().View, w.describe())
		}
	})
}

// A node that hears nothing any more speaks on: it asks to be elected, and its
// frames answer what it heard last, again and again. That is no life, no
// irregularity, and nothing to grant a lease for: its group is elsewhere as soon
// as a dead node's, also where it answered irregularly before, or was away.
func TestDeafFollower(t *testing.T) {
	for _, before := range []string{"nothing", "an outage", "20% loss"} {
		t.Run(before, func(t *testing.T) {
			w := newWorld(t, 3)
			rng := rand.New(rand.NewPCG(7, 7))
			home := w.hosts[1]
			if home == w.leader() {
				home = w.hosts[2]
			}
			owner := w.put(groupSpec("web", home.name))
			w.run(2 * time.Second)
			deaf := func(_, to *host, _ *heartbeat.Frame) bool { return to != owner }
			switch before {
			case "an outage": // short of the lease's end
				w.onFrame = func(from, to *host, _ *heartbeat.Frame) bool { return from != owner && to != owner }
				w.run(550 * time.Millisecond)
			case "20% loss":
				w.onFrame = func(_, _ *host, _ *heartbeat.Frame) bool { return rng.IntN(100) >= 20 }
				w.run(time.Minute)
			}
			w.onFrame = nil
			w.run(5 * time.Second)
			if w.leader() == owner || w.running["g-web"] != owner.name {
				t.Fatalf("led by %s, web runs on %q, not by %s", w.leader().name, w.running["g-web"], owner.name)
			}
			w.onFrame = deaf
			took := w.until("web runs elsewhere", 5*time.Second, func() bool { return w.running["g-web"] != "" && w.running["g-web"] != owner.name })
			t.Logf("failover in %v", took)
			if took > wait+150*time.Millisecond {
				t.Errorf("failover took %v, W is %v", took, wait)
			}
		})
	}
}

// Who is out of the view comes back by an answer alone: not because its leader was
// held up meanwhile, nor because other timings would have more patience with it.
func TestDeadStaysDown(t *testing.T) {
	w := newWorld(t, 3)
	w.run(2 * time.Second)
	leader, dead := w.leader(), w.hosts[1]
	if dead == leader {
		dead = w.hosts[2]
	}
	dead.kill()
	w.until("it is out of the view", 5*time.Second, func() bool { return len(w.state().View.Up) == 2 })
	down := w.state().View
	same := func(after string) {
		t.Helper()
		w.run(2 * time.Second)
		if v := w.state().View; v.Epoch != down.Epoch || w.leader() != leader {
			t.Fatalf("after %s the view is %+v, was %+v\n%s", after, v, down, w.describe())
		}
	}
	leader.freeze()
	w.run(120 * time.Millisecond)
	leader.thaw()
	same("its leader was held up")
	for _, timings := range []spec.Timings{
		{Interval: spec.Duration(60 * time.Millisecond)}, {Suspicion: spec.Duration(10 * time.Second), Lease: spec.Duration(11 * time.Second)}, {Profile: spec.ProfileMSCS}, {},
	} {
		c := w.state().Cluster
		c.Heartbeat = timings
		w.must(leader, confdb.Command{PutCluster: &c})
		w.run(10 * time.Second)
		same(fmt.Sprintf("new timings (%+v)", timings))
	}
	dead.start()
	w.until("it is up again", 5*time.Second, func() bool { return len(w.state().View.Up) == 3 })
}
