package confdb_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

func TestEvict(t *testing.T) {
	s, do := base(t)
	evict := func(id string) string {
		return do(confdb.Command{Author: "ann", EvictNode: &confdb.NodeRef{Node: id}}).Code
	}
	do(confdb.Command{PutGroup: &spec.Group{ID: "gm", Name: "gm", Addr: addr.Group("gm", addr.NoKey), PersistentState: spec.WantOnline, Failover: spec.Failover{Mode: spec.FailoverManual}}})
	do(confdb.Command{Assign: &confdb.Assign{Group: "gm", Node: "n1"}})
	do(confdb.Command{SetView: &confdb.SetView{From: s.View.Epoch, Up: []string{"n1", "n2"}}})
	if c := evict("n9"); c != confdb.CodeNotFound {
		t.Errorf("a node that nobody knows: %q", c)
	}
	if c := evict("n1"); c != confdb.CodeInvalid {
		t.Errorf("one that is up: %q", c)
	}
	do(confdb.Command{PauseNode: &confdb.PauseNode{Node: "n1", Drain: true}})
	if c := evict("n1"); c != confdb.CodeConflict {
		t.Errorf("one that is drained and owns a group: %q", c)
	}
	do(confdb.Command{ResumeNode: &confdb.NodeRef{Node: "n1"}})
	do(confdb.Command{SetView: &confdb.SetView{From: s.View.Epoch, Up: []string{"n2"}}})
	if c := evict("n1"); c != confdb.CodeConflict {
		t.Errorf("one that owns a group which fails over by hand: %q", c)
	}
	do(confdb.Command{MoveGroup: &confdb.MoveGroup{Group: "gm", To: "n2"}})
	if c := evict("n1"); c != "" || s.Nodes["n1"].Evicting.Author != "ann" || !s.Nodes["n1"].Drained {
		t.Errorf("one that is down: %q, %+v", c, s.Nodes["n1"])
	}
	if do(confdb.Command{ResumeNode: &confdb.NodeRef{Node: "n1"}}); s.Nodes["n1"].Evicting != nil {
		t.Error("resumed, and still to go")
	}
}

// Home is a preferred owner by name, also after its node has left; without
// preferred owners it is the next node that a failure takes the group from.
func TestHomeOfANodeThatIsGone(t *testing.T) {
	s, do := base(t)
	g := s.Groups["g1"]
	g1 := g.Spec
	g1.PreferredOwners = []string{"n1"}
	do(confdb.Command{PutGroup: &g1})
	do(confdb.Command{Assign: &confdb.Assign{Group: "g1", Node: "n1"}})
	do(confdb.Command{Assign: &confdb.Assign{Group: "g1", From: 1, Node: "n2", Failover: true}})
	do(confdb.Command{DeleteNode: &confdb.NodeRef{Node: "n1"}})
	if g.HomeFrom == "" {
		t.Error("it forgot that it is to go home to whatever joins as n1")
	}
	g2 := g1
	g2.PreferredOwners = nil
	do(confdb.Command{PutGroup: &g2})
	do(confdb.Command{PutNode: &confdb.PutNode{Spec: spec.Node{ID: "n4", Name: "n4", Addr: addr.Node("n4", addr.NoKey), Role: spec.RoleMember}, ServerID: 4, Endpoint: "n4:1"}})
	do(confdb.Command{Assign: &confdb.Assign{Group: "g1", From: 2, Node: "n4", Failover: true}})
	if g.HomeFrom != "n2" || g.Owner.Node != "n4" {
		t.Errorf("it is to go home to %q from %q", g.HomeFrom, g.Owner.Node)
	}
}

// A new leader says in one breath that a node is down and that its group fails
// over: the event of the former isn't there yet to be named.
func TestFailoverFollowsFromItsNodesLoss(t *testing.T) {
	s, do := base(t)
	newest := func(kind string) confdb.Event {
		for i := len(s.Events) - 1; i >= 0; i-- {
			if s.Events[i].Kind == kind {
				return s.Events[i]
			}
		}
		t.Fatalf("no event %s", kind)
		return confdb.Event{}
	}
	view := func(up ...string) {
		t.Helper()
		if r := do(confdb.Command{SetView: &confdb.SetView{From: s.View.Epoch, Up: up}}); r.Code != "" {
			t.Fatal(r)
		}
	}
	view("n1", "n2")
	view("n1")
	view("n1", "n2")
	do(confdb.Command{Assign: &confdb.Assign{Group: "g1", Node: "n1"}})
	do(confdb.Command{MoveGroup: &confdb.MoveGroup{Group: "g1", To: "n2"}})
	move := s.LastEvent()
	do(confdb.Command{Assign: &confdb.Assign{Group: "g1", From: 1, Node: "n2"}, Cause: move})
	view("n1")
	down := newest(confdb.KindNodeDown)
	if down.Node != "n2" {
		t.Fatalf("down is %+v", down)
	}
	do(confdb.Command{Assign: &confdb.Assign{Group: "g1", From: 2, Node: "n1", Failover: true}, Cause: move})
	if got := newest(confdb.KindGroupFailover); got.Cause != down.ID {
		t.Errorf("the failover follows from event %d, want the loss of its node, %d (the move was %d)", got.Cause, down.ID, move)
	}
	// What the leader knew stays where nothing newer is there, as of another node.
	do(confdb.Command{Assign: &confdb.Assign{Group: "g1", From: 3, Node: "n1", Failover: true, Counts: true}, Cause: s.LastEvent()})
	if got := newest(confdb.KindGroupFailover); got.Cause != got.ID-1 {
		t.Errorf("the failover %d follows from event %d", got.ID, got.Cause)
	}
}

func TestAnotherDataDirectoryJoinsAgain(t *testing.T) {
	s, do := base(t)
	n := s.Nodes["n1"]
	put := func(server uint64) confdb.Result {
		return do(confdb.Command{PutNode: &confdb.PutNode{Spec: n.Spec, ServerID: server}})
	}
	if put(0); !n.Joined || n.ServerID != 1 || n.Endpoint != "n1:1" {
		t.Errorf("nothing new: %+v", n)
	}
	if r := put(2); r.Code != confdb.CodeInvalid {
		t.Errorf("another node's server id: %+v", r)
	}
	if put(9); n.Joined || n.ServerID != 9 {
		t.Errorf("a new data directory has to catch up: %+v", n)
	}
}

// A clock may say anything; the state can be written as a snapshot all the same.
func TestTheEndOfTime(t *testing.T) {
	s, _ := base(t)
	end := time.Date(9999, 12, 31, 23, 30, 0, 0, time.UTC)
	for i, id := range []string{"n4", "n5"} {
		s.Apply(confdb.Command{ID: id, Time: end, PutNode: &confdb.PutNode{Spec: spec.Node{ID: id, Name: id, Addr: addr.Node(id, addr.NoKey)}, ServerID: uint64(i + 14), Endpoint: id + ":1"}})
	}
	for i := range 6 {
		up := []string{"n1", "n3", "n2"}[:2+i%2]
		if r := s.Apply(confdb.Command{ID: fmt.Sprint("view", i), Time: end, SetView: &confdb.SetView{From: s.View.Epoch, Up: up}}); r.Code != "" {
			t.Fatal(r)
		}
	}
	if s.Nodes["n2"].Quarantine == nil {
		t.Fatal("not quarantined")
	}
	if _, err := confdb.Decode(encode(t, s)); err != nil {
		t.Error(err)
	}
}
