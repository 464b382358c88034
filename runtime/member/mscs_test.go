package member

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
)

// seedSchedule is when the 18 probes leave after the end of the wait for an
// answer, as the first source says it: 4 at 0.70 s, 3 within 0.75 s, 2 at 0.30 s,
// 5 within 0.90 s, 2 at 0.30 s, 2 within 0.30 s.
var seedSchedule = []time.Duration{
	700, 1400, 2100, 2800,
	3050, 3300, 3550,
	3850, 4150,
	4330, 4510, 4690, 4870, 5050,
	5350, 5650,
	5800, 5950,
}

func (w *world) profile(t spec.Timings) {
	w.t.Helper()
	cluster := w.state().Cluster
	cluster.Heartbeat = t.WithDefaults()
	w.must(w.leader(), confdb.Command{PutCluster: &cluster})
}

// lapses are the leases that ended on live nodes, and the groups that stopped.
func (w *world) lapses() []string {
	var out []string
	for _, h := range w.hosts {
		for _, l := range h.logs {
			if strings.Contains(l, "the lease is over") {
				out = append(out, h.name+": "+l)
			}
		}
	}
	return out
}

// asked records when frames that ask for an answer leave each host.
func (w *world) asked() map[[2]string][]time.Duration {
	out := map[[2]string][]time.Duration{}
	w.onFrame = func(from, to *host, f *heartbeat.Frame) bool {
		if f.Asks {
			out[[2]string{from.name, to.name}] = append(out[[2]string{from.name, to.name}], time.Duration(w.now))
		}
		return true
	}
	return out
}

// Profile mscs: beats each half second from every node to every other, and after
// a crash the probes of the seed's schedule, from both survivors. The node is
// down within 6.85 s, no lease of another lapses, and its group starts elsewhere
// after W.
func TestProbesKeepTheSeedsSchedule(t *testing.T) {
	w := newWorld(t, 3)
	w.profile(spec.Timings{Profile: spec.ProfileMSCS})
	leader := w.leader()
	var victim, other *host
	for _, h := range w.hosts {
		switch {
		case h == leader:
		case victim == nil:
			victim = h
		default:
			other = h
		}
	}
	w.put(groupSpec("web", victim.name))
	w.put(groupSpec("mail", other.name))
	w.run(20 * time.Second)
	asked := w.asked()
	w.run(3100 * time.Millisecond)
	for _, from := range w.hosts {
		for _, to := range w.hosts {
			at := asked[[2]string{from.name, to.name}]
			if from != to && len(at) != 6 && len(at) != 7 {
				t.Errorf("%s asked %s %d times in 3.1 s, not each half second: %v", from.name, to.name, len(at), at)
			}
			for i := range at[min(1, len(at)):] {
				if d := at[i+1] - at[i]; d < 495*time.Millisecond || d > 505*time.Millisecond {
					t.Errorf("%s to %s: two beats are %s apart", from.name, to.name, d)
				}
			}
		}
	}
	clear(asked)
	crash := time.Duration(w.now)
	victim.kill()
	took := w.until("the crashed node is down", 7*time.Second, func() bool { return !slices.Contains(w.state().View.Up, victim.id) })
	if took < 6*time.Second || took > 6850*time.Millisecond+2*netDelay+2*diskDelay {
		t.Errorf("down %s after the crash; at most 6.85 s and a commit", took)
	}
	w.until("web runs again", 4*time.Second, func() bool { return w.running["g-web"] != "" && w.running["g-web"] != victim.name })
	for _, from := range []*host{leader, other} {
		at := asked[[2]string{from.name, victim.name}]
		if len(at) < 19 {
			t.Fatalf("%s asked the crashed node %d times, not a beat and 18 probes: %v", from.name, len(at), at)
		}
		if at[0]-crash > 500*time.Millisecond {
			t.Errorf("the first unanswered beat left %s after the crash", at[0]-crash)
		}
		for i, want := range seedSchedule {
			want = at[0] + 200*time.Millisecond + want*time.Millisecond
			if d := at[i+1] - want; d < -5*time.Millisecond || d > 5*time.Millisecond {
				t.Errorf("%s: probe %d left at %s after the beat, the schedule says %s", from.name, i+1, at[i+1]-at[0], want-at[0])
			}
		}
	}
	if l := w.lapses(); len(l) > 0 {
		t.Errorf("%q", l)
	}
}

// Any answer ends the probes, and a node that answers only now and then stays up.
func TestAnAnswerEndsTheProbes(t *testing.T) {
	w := newWorld(t, 3)
	w.profile(spec.Timings{Profile: spec.ProfileMSCS})
	w.run(20 * time.Second)
	victim := w.hosts[1]
	if victim == w.leader() {
		victim = w.hosts[2]
	}
	epoch := w.state().View.Epoch
	for range 4 {
		w.isolate(victim, true)
		w.run(5500 * time.Millisecond)
		w.isolate(victim, false)
		w.run(1500 * time.Millisecond)
	}
	if got := w.state().View.Epoch; got != epoch {
		t.Errorf("the view changed %d times for a node that answered in time\n%s", got-epoch, w.describe())
	}
	asked := w.asked()
	w.run(3 * time.Second)
	if n := len(asked[[2]string{w.leader().name, victim.name}]); n < 5 || n > 7 {
		t.Errorf("%d beats in 3 s after the probes ended", n)
	}
}

// A change of leader under mscs stops nobody: leases of 8.5 s outlast it.
func TestMSCSLeaderLost(t *testing.T) {
	w := newWorld(t, 3, 10000, -10000, 0)
	w.profile(spec.Timings{Profile: spec.ProfileMSCS})
	w.run(20 * time.Second)
	lost := w.leader()
	var groups []string
	for _, h := range w.hosts {
		if h != lost {
			w.put(groupSpec("on-"+h.name, h.name))
			groups = append(groups, "on-"+h.name)
		}
	}
	w.run(7300 * time.Millisecond)
	starts := map[string]int{}
	for _, h := range w.hosts {
		starts[h.name] = len(h.starts)
	}
	lost.kill()
	took := w.until("another leads", 9*time.Second, func() bool { l := w.leader(); return l != nil && l != lost })
	if took < 5*time.Second || took > 7300*time.Millisecond {
		t.Errorf("another leads after %s", took)
	}
	w.run(15 * time.Second)
	for _, h := range w.hosts {
		if h != lost && len(h.starts) != starts[h.name] {
			t.Errorf("%s started %v", h.name, h.starts[starts[h.name]:])
		}
	}
	if l := w.lapses(); len(l) > 0 || !w.online(groups[0]) || !w.online(groups[1]) {
		t.Errorf("%q\n%s", l, w.describe())
	}
}

// From fast to mscs, or to slow frames without probes, and back with groups online: nobody is interrupted, and W
// counts with 8.5 s from the first update on until the last node has confirmed
// the shorter lease.
func TestChangeOfProfileInterruptsNobody(t *testing.T) {
	slowly := []spec.Timings{{Profile: spec.ProfileMSCS}, {Profile: spec.ProfileCustom, Interval: spec.Duration(time.Second)}}
	for _, slow := range slowly {
		slow = slow.WithDefaults()
		w := newWorld(t, 3, 10000, -10000, 0)
		for _, h := range w.hosts {
			w.put(groupSpec("on-"+h.name, h.name))
		}
		w.run(time.Second)
		starts := 0
		for _, h := range w.hosts {
			starts += len(h.starts)
		}
		lease := func() (most spec.Duration) {
			for _, g := range w.state().Groups {
				most = max(most, g.Owner.Lease)
			}
			return most
		}
		long := slow.Lease
		for range 3 {
			// One node misses what is said for a while, also the first longer grant.
			follower := w.hosts[0]
			if follower == w.leader() {
				follower = w.hosts[1]
			}
			w.isolate(follower, true)
			w.after(240*time.Millisecond, func() { w.isolate(follower, false) })
			w.profile(slow)
			if lease() != long {
				t.Errorf("right after the update W counts with a lease of %s", lease())
			}
			w.run(15 * time.Second)
			w.profile(spec.Timings{})
			if lease() != long {
				t.Errorf("unconfirmed, W counts with a lease of %s", lease())
			}
			w.until("the shorter leases are confirmed", 13*time.Second, func() bool { return lease() < long })
			w.run(time.Second)
			w.profile(slow) // and without waiting for the confirmations
			w.run(3 * time.Second)
			w.profile(spec.Timings{})
			w.run(500 * time.Millisecond)
		}
		w.until("all have confirmed", 13*time.Second, func() bool {
			for _, g := range w.state().Groups {
				if g.Owner.Lease >= long {
					return false
				}
			}
			return true
		})
		after := 0
		for _, h := range w.hosts {
			after += len(h.starts)
		}
		if l := w.lapses(); len(l) > 0 || after != starts {
			t.Errorf("%d starts before, %d after; %q\n%s", starts, after, l, w.describe())
		}
		// And W is the short one again.
		w.owner("on-n2").kill()
		if took := w.until("on-n2 runs again", 5*time.Second, func() bool { o := w.running["g-on-n2"]; return o != "" && o != "n2" }); took > wait+200*time.Millisecond {
			t.Errorf("failover took %v, W is %v", took, wait)
		}
	}
}
