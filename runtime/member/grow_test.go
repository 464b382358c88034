package member

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/raftdb"
)

// openGrowing opens what the store holds: a single node's database, until it has
// become a majority's.
func openGrowing(h *host) (confdb.Driver, *confdb.State, uint64, error) {
	if h.i > 0 || raftdb.Holds(h.stored) {
		return openRaft(h)
	}
	return openBolt(h)
}

// single is a single node with a group that runs and a key.
func single(t *testing.T) *world {
	w := newWorldOf(t, 1, openGrowing)
	w.put(groupSpec("web"))
	w.must(w.hosts[0], confdb.Command{ID: "before", KV: &confdb.KVWrite{Key: "k", Value: []byte("v")}})
	return w
}

func (w *world) majority() confdb.Command {
	c := w.state().Cluster
	c.Quorum.Model = spec.MajorityNodeSet
	return confdb.Command{ID: "grow", PutCluster: &c}
}

// whole wants all that the single node had, in the leader's state.
func (w *world) whole() {
	w.t.Helper()
	s := w.state()
	if kv := s.KV.Spaces[""]; kv == nil || string(kv.Entries["k"].Value) != "v" {
		w.t.Errorf("the key is lost: %+v", kv)
	}
	if _, ok := s.Answered("before"); !ok {
		w.t.Error("an update of before counts as new")
	}
	if g := s.Groups["g-web"]; g == nil || g.Owner.Epoch == 0 {
		w.t.Errorf("the group is lost: %+v", g)
	}
	if !slices.ContainsFunc(s.Events, func(e confdb.Event) bool {
		return e.Text == "the quorum model changed from single_node to majority_node_set"
	}) {
		w.t.Error("no event tells of the change of the model")
	}
}

// A single node becomes the first of three while its group runs on, without a
// stop; an update that comes in between is done once; when the first node dies
// the group fails over, with the waits of any failover.
func TestGrows(t *testing.T) {
	w := single(t)
	first := w.hosts[0]
	revision, term, starts := w.state().Revision, first.m.Status().Driver.Term, len(first.starts)
	w.token = 1000
	grow, write := w.majority(), confdb.Command{ID: "between", KV: &confdb.KVWrite{Key: "between", Value: []byte("v")}}
	first.input(Submit{Token: 1, Command: grow})
	w.run(diskDelay + time.Millisecond) // committed, and the database is being made
	if first.m.grow.next == nil {
		t.Fatalf("it is not growing\n%s", w.describe())
	}
	first.input(Submit{Token: 2, Command: write})
	w.until("the database is a majority's", time.Second, func() bool { return w.leader() != nil && !first.m.Status().Driver.Single })
	w.until("the update in between is done", time.Second, func() bool { return w.replies[2].Revision != 0 })
	if r := w.replies[2]; r.Code != "" {
		t.Errorf("the update in between: %+v", r)
	}
	w.whole()
	if s := first.m.Status().Driver; s.Term <= term || w.state().Revision <= revision || w.group("web").Owner.Epoch != 1 {
		t.Errorf("term %d after %d, revision %d after %d, epoch %d", s.Term, term, w.state().Revision, revision, w.group("web").Owner.Epoch)
	}
	for range 2 {
		w.addHost().start()
	}
	w.run(100 * time.Millisecond)
	for _, h := range w.hosts[1:] {
		w.join(h)
	}
	w.until("all nodes are up", 5*time.Second, func() bool { return len(w.state().View.Up) == 3 })
	if len(first.starts) != starts || w.running["g-web"] != "n1" {
		t.Errorf("the group started again: %v\n%s", first.starts, w.describe())
	}
	first.kill()
	took := w.until("the group runs elsewhere", 5*time.Second, func() bool { return w.leader() != nil && w.online("web") })
	if took < 700*time.Millisecond {
		t.Errorf("it was taken after %v, before what the first node had can be over", took)
	}
	w.whole()
	if e := w.group("web").Owner.Epoch; e != 2 {
		t.Errorf("epoch %d after one failover", e)
	}
	first.start()
	w.until("the first node is back", 5*time.Second, func() bool { return len(w.state().View.Up) == 3 && first.m.Status().Driver.Applied > 0 })
}

// Whatever moment the node dies at, and whether the write under way lands or
// not: what lies there is a single node's database or a majority's, whole; once
// it runs again it becomes the latter, and the others join.
func TestGrowsThroughEveryKill(t *testing.T) {
	old, grown := 0, 0
	for point := range 16 {
		for _, landing := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d ms landing %v", 2*point, landing), func(t *testing.T) {
				w := single(t)
				first := w.hosts[0]
				first.landing = landing
				grow := w.majority()
				first.input(Submit{Token: 1, Command: grow})
				w.run(time.Duration(2*point)*time.Millisecond + time.Microsecond)
				first.kill()
				w.run(100 * time.Millisecond)
				if raftdb.Holds(first.stored) {
					grown++
				} else {
					old++
				}
				first.start()
				w.until("the node leads again", 5*time.Second, func() bool { return w.leader() != nil })
				if w.state().Cluster.Quorum.Model == spec.SingleNode { // never committed: asked for again, as an apply does
					grow.ID += " again"
					w.must(first, grow)
				}
				w.until("the database is a majority's", time.Second, func() bool { return w.leader() != nil && !first.m.Status().Driver.Single })
				if !raftdb.Holds(first.stored) {
					t.Error("the store holds a single node's database still")
				}
				for range 2 {
					w.addHost().start()
				}
				w.run(100 * time.Millisecond)
				for _, h := range w.hosts[1:] {
					w.join(h)
				}
				w.until("the group runs", 5*time.Second, func() bool { return w.online("web") && len(w.state().View.Up) == 3 })
				w.whole()
				first.kill()
				w.until("the group runs elsewhere", 5*time.Second, func() bool { return w.leader() != nil && w.online("web") && w.running["g-web"] != "n1" })
				w.whole()
			})
		}
	}
	if old == 0 || grown == 0 {
		t.Errorf("%d kills before the change and %d after: the points miss it", old, grown)
	}
}

// A copy of the single node's database from before serves nobody once others
// speak, although it would be alone by itself.
func TestOlderSingleNodeStops(t *testing.T) {
	w := single(t)
	first := w.hosts[0]
	backup := first.stored
	backup.Entries = slices.Clone(backup.Entries)
	w.must(first, w.majority())
	for range 2 {
		w.addHost().start()
	}
	w.run(100 * time.Millisecond)
	for _, h := range w.hosts[1:] {
		w.join(h)
	}
	first.kill()
	w.until("the group runs elsewhere", 5*time.Second, func() bool { return w.leader() != nil && w.online("web") && w.running["g-web"] != "n1" })
	first.stored = backup
	first.start()
	w.until("the older copy ends", 5*time.Second, func() bool { return first.stopped })
	if w.running["g-web"] == "n1" {
		t.Error("it runs the group")
	}
}
