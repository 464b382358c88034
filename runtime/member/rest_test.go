package member

import (
	"slices"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
)

// lateRound is 50 ms of the cluster whose leader reads the answers of the last
// round when the next one is due, with the moments when they came; it returns
// those of this round. Who is silent hears and answers nothing.
func (i *idle) lateRound(came []*FrameIn, silent ...int) []*FrameIn {
	i.tb.Helper()
	leader := i.members[0]
	leader.w.now += int64(max(leader.trueSpan(leader.m.NextDeadline()), 0))
	i.step(0, &FramesIn{Frames: came})
	leader.w.now += int64(300 * time.Microsecond)
	return i.answers(silent...)
}

// answers are those to the leader's newest round.
func (i *idle) answers(silent ...int) (list []*FrameIn) {
	for at := 1; at < 3; at++ {
		if slices.Contains(silent, at) {
			continue
		}
		i.step(at, &i.in[at])
		f := i.in[0]
		f.Frame.Driver = nil
		for _, d := range i.in[0].Frame.Driver {
			f.Frame.Driver = append(f.Frame.Driver, slices.Clone(d))
		}
		f.At = i.members[0].clock()
		list = append(list, &f)
	}
	return list
}

// left is what is left of each node's lease, the leader's first.
func (i *idle) left() (list []time.Duration) {
	for _, h := range i.members {
		list = append(list, h.m.Status().LeaseEnd.Sub(h.clock()))
	}
	return list
}

func newCalm(t *testing.T) *idle {
	t.Helper()
	i := newIdle(t)
	for range 25 {
		i.round()
	}
	if !i.members[0].m.Calm() {
		t.Fatal("a leader that had nothing but its rounds to do for more than a second is not calm")
	}
	if i.members[1].m.Calm() || i.members[2].m.Calm() {
		t.Fatal("a follower is calm: what its leader says may not wait")
	}
	return i
}

// A leader that reads answers a round late grants leases as long as ever, sees no
// jitter in it, and its own lease is counted from the same moments.
func TestCalmLeases(t *testing.T) {
	i := newCalm(t)
	for range 1300 {
		i.round() // what was irregular when the cluster formed counts no more
	}
	leader := i.members[0]
	leader.w.now += int64(300 * time.Microsecond)
	want := i.left()
	var came []*FrameIn
	for n := range 40 {
		if n%10 == 9 { // to and fro
			for _, f := range came {
				f.At = 0
				i.step(0, f)
			}
			came = nil
			i.round()
			continue
		}
		came = i.lateRound(came)
		if !leader.m.Calm() {
			t.Fatalf("round %d: not calm any more", n)
		}
		i.renewed = 0
		for k, left := range i.left() {
			short := want[k] - left
			if k == 0 {
				short -= 50 * time.Millisecond // what the newest answers prove is read with the next round
			}
			if n%10 > 1 && (short > time.Millisecond || short < -time.Millisecond) {
				t.Errorf("round %d: %v are left of the lease of %s, %v where answers are read at once", n, left, i.members[k].name, want[k])
			}
		}
	}
	// Who falls silent now is down a suspicion after its last answer, as ever: a
	// round that was read late is no irregular one.
	last := leader.clock()
	for leader.m.Status().UpNodes != nil && len(leader.m.Status().UpNodes) == 3 {
		leader.w.now += int64(max(leader.trueSpan(leader.m.NextDeadline()), 0))
		leader.m.Step(leader.clock(), &FramesIn{Frames: came})
		came = nil
		if leader.clock().Sub(last) > time.Second {
			t.Fatal("who says nothing is not down after a second")
		}
	}
	if d := leader.clock().Sub(last); d > 251*time.Millisecond {
		t.Errorf("down %v after the last answer, want a suspicion, 250ms", d)
	}
}

// Where a suspicion is only two intervals, the answers that are not read yet when a
// round is due may be that old: a timer that is a little late would take nodes
// down that answer all the while, and those with a fence wait for no more than that.
func TestCalmNeedsSuspicion(t *testing.T) {
	for suspicion, want := range map[time.Duration]bool{100 * time.Millisecond: false, 150 * time.Millisecond: true} {
		t.Run(suspicion.String(), func(t *testing.T) {
			i := newIdle(t)
			leader := i.members[0]
			cl := leader.w.state().Cluster
			cl.Heartbeat.Suspicion = spec.Duration(suspicion)
			leader.w.must(leader, confdb.Command{PutCluster: &cl})
			leader.w.must(leader, confdb.Command{PutFence: &spec.Fence{ID: "f0", Name: "power", Addr: addr.Fence("power", addr.NoKey), Agent: "fence_sim", Level: 1, Action: spec.FenceOff, When: spec.FenceAlways}})
			leader.w.run(5 * time.Second)
			rested := false
			var came []*FrameIn
			for n := range 100 {
				late := int64(n%3/2) * int64(40*time.Millisecond)
				leader.w.now += int64(max(leader.trueSpan(leader.m.NextDeadline()), 0)) + late
				i.step(0, &FramesIn{Frames: came}) // more than frames would be a word that a node is down
				leader.w.now += int64(300 * time.Microsecond)
				if came = i.answers(); leader.m.Calm() {
					rested = true
					continue
				}
				for _, f := range came {
					i.step(0, f)
				}
				came = nil
			}
			if rested != want {
				t.Errorf("frames waited: %v, want %v", rested, want)
			}
		})
	}
}

// Whatever is more than a round, or less, ends the calm: at once where it is an
// input of its own, else when it is read.
func TestCalmEnds(t *testing.T) {
	for name, end := range map[string]func(i *idle, came []*FrameIn){
		"a missing answer": func(i *idle, came []*FrameIn) { i.lateRound(came[:1]) },
		"an update": func(i *idle, came []*FrameIn) {
			i.members[0].m.Step(i.members[0].clock(), Submit{Token: 1, Command: confdb.Command{ID: "x"}})
		},
		"a message":                        func(i *idle, _ []*FrameIn) { i.members[0].m.Step(i.members[0].clock(), MessageIn{}) },
		"a monitor that dies":              func(i *idle, _ []*FrameIn) { i.members[0].m.Step(i.members[0].clock(), MonitorDown{}) },
		"a shutdown":                       func(i *idle, _ []*FrameIn) { i.members[0].m.Step(i.members[0].clock(), Shutdown{}) },
		"a release":                        first(func(f *heartbeat.Frame) { f.Releases = []heartbeat.Release{{Group: "x", Epoch: 1}} }),
		"a node that leaves":               first(func(f *heartbeat.Frame) { f.Leaving = true }),
		"a node without its monitor":       first(func(f *heartbeat.Frame) { f.Ready = false }),
		"another leader":                   first(func(f *heartbeat.Frame) { f.Leader = 99 }),
		"another term":                     first(func(f *heartbeat.Frame) { f.Term++ }),
		"a restarted agent":                first(func(f *heartbeat.Frame) { f.Incarnation++; f.Seq = 1 }),
		"a frame that answers nothing new": first(func(f *heartbeat.Frame) { f.AckSeq -= 2 }),
		"a stranger":                       first(func(f *heartbeat.Frame) { f.From = 99 }),
		"a question":                       first(func(f *heartbeat.Frame) { f.Asks = true }),
		"a lagging state":                  first(func(f *heartbeat.Frame) { f.Revision-- }),
	} {
		t.Run(name, func(t *testing.T) {
			i := newCalm(t)
			came := i.lateRound(nil)
			if !i.members[0].m.Calm() {
				t.Fatal("not calm before")
			}
			end(i, came)
			if i.members[0].m.Calm() {
				t.Error("still calm")
			}
		})
	}
}

// first reads a round of which the first answer is another.
func first(with func(f *heartbeat.Frame)) func(i *idle, came []*FrameIn) {
	return func(i *idle, came []*FrameIn) {
		with(&came[0].Frame)
		i.members[0].m.Step(i.members[0].clock(), &FramesIn{Frames: came})
	}
}
