package confdb_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// A proof that a node was off ends what it owned then, and stays: a later one
// adds to it. It says nothing of what the node gets afterwards.
func TestFenced(t *testing.T) {
	s, _ := base(t)
	n := 0
	do := func(c confdb.Command) confdb.Result {
		n++
		c.ID, c.Time = fmt.Sprint("fence", n), start
		return s.Apply(c)
	}
	must := func(c confdb.Command) {
		t.Helper()
		if r := do(c); r.Code != "" {
			t.Fatal(r.Detail)
		}
	}
	refused := func(words string, c confdb.Command) {
		t.Helper()
		if r := do(c); r.Code == "" || !strings.Contains(r.Detail, words) {
			t.Errorf("%+v, want %q", r, words)
		}
	}
	must(confdb.Command{Assign: &confdb.Assign{Group: "g1", Node: "n1"}})
	refused("no fence", confdb.Command{FenceNode: &confdb.FenceNode{Node: "n1"}})
	must(confdb.Command{PutFence: &spec.Fence{ID: "f1", Name: "power", Addr: addr.Fence("power", addr.NoKey), Agent: "fence_x", Level: 1}})
	refused("names are unique", confdb.Command{PutFence: &spec.Fence{ID: "f2", Name: "power", Agent: "fence_x"}})
	must(confdb.Command{SetView: &confdb.SetView{From: s.View.Epoch, Up: []string{"n1"}}})
	refused("is up", confdb.Command{FenceNode: &confdb.FenceNode{Node: "n1", ConfirmedOff: true}})
	must(confdb.Command{Author: "ann", Reason: "it hums", FenceNode: &confdb.FenceNode{Node: "n1"}})
	order := s.Nodes["n1"].FenceOrder
	if order == nil || order.Intent.Author != "ann" {
		t.Fatalf("%+v", order)
	}
	// A failure of something else leaves the order, its own ends it.
	must(confdb.Command{NodeFenced: &confdb.NodeFenced{Node: "n1", Error: "silent", Uses: []confdb.FenceUse{{Fence: "f1", Error: "silent"}}}})
	if s.Nodes["n1"].FenceOrder == nil || s.Nodes["n1"].Fenced != nil || s.Fences["f1"].Last == nil || s.Fences["f1"].Last.OK {
		t.Errorf("%+v, last %+v", s.Nodes["n1"], s.Fences["f1"].Last)
	}
	must(confdb.Command{NodeFenced: &confdb.NodeFenced{Node: "n1", OK: true, By: "power", Groups: map[string]uint64{"g1": 1}, Order: order.Event, Uses: []confdb.FenceUse{{Fence: "f1", OK: true}}}})
	f := s.Nodes["n1"].Fenced
	if s.Nodes["n1"].FenceOrder != nil || !f.Covers("g1", 1) || f.Covers("g1", 2) || f.Covers("g2", 1) || !s.Fences["f1"].Last.OK {
		t.Errorf("%+v", f)
	}
	last := s.Events[len(s.Events)-1]
	if last.Kind != confdb.KindNodeFenced || last.Author != "ann" || !strings.Contains(last.Text, "verified by power") {
		t.Errorf("%+v", last)
	}
	// The next owner is the same node under a new epoch, which is not over; a
	// second proof that knows nothing of the group takes nothing back.
	must(confdb.Command{Assign: &confdb.Assign{Group: "g1", From: 1, Node: "n1"}})
	must(confdb.Command{NodeFenced: &confdb.NodeFenced{Node: "n1", OK: true, By: "power"}})
	if f := s.Nodes["n1"].Fenced; !f.Covers("g1", 1) || f.Covers("g1", 2) {
		t.Errorf("%+v", f)
	}
	// What an owner may be running that outlives its lease is remembered until the next.
	g := s.Groups["g1"].Spec
	g.Resources = []spec.Resource{{Name: "s", Type: "script"}}
	must(confdb.Command{PutGroup: &g})
	g.Resources = nil
	must(confdb.Command{PutGroup: &g})
	if !s.Groups["g1"].Owner.Open {
		t.Error("the owner may still run the script")
	}
	must(confdb.Command{Assign: &confdb.Assign{Group: "g1", From: 2, Node: "n1"}})
	if s.Groups["g1"].Owner.Open {
		t.Error("the new owner never ran it")
	}
	again, err := confdb.Decode(encode(t, s))
	if err != nil || !bytes.Equal(encode(t, again), encode(t, s)) || !again.Nodes["n1"].Fenced.Covers("g1", 1) {
		t.Errorf("a snapshot differs: %v", err)
	}
}

// What goes on without a lease is noted with its owner while the definition says
// so, and for as long after as the owner may not have heard of the change. Until a
// fence frees it, no other data directory takes the node's place.
func TestFreezes(t *testing.T) {
	s, _ := base(t)
	n := 0
	do := func(c confdb.Command) confdb.Result {
		n++
		c.ID, c.Time = fmt.Sprint("freeze", n), start
		return s.Apply(c)
	}
	must := func(c confdb.Command) {
		t.Helper()
		if r := do(c); r.Code != "" {
			t.Fatal(r.Detail)
		}
	}
	set := func(noQuorum string) {
		t.Helper()
		g := s.Groups["g1"].Spec
		g.NoQuorum = noQuorum
		must(confdb.Command{PutGroup: &g})
	}
	freezes := func(when string, want bool) {
		t.Helper()
		if got := s.Groups["g1"].Freezes(); got != want {
			t.Errorf("%s: it freezes: %v", when, got)
		}
	}
	set(spec.NoQuorumStop)
	must(confdb.Command{Assign: &confdb.Assign{Group: "g1", From: s.Groups["g1"].Owner.Epoch, Node: "n1"}})
	freezes("no_quorum = stop", false)
	set(spec.NoQuorumFreeze)
	freezes("changed under its owner", true)
	set(spec.NoQuorumStop)
	freezes("changed back: the owner may not know", true)

	server := func(id uint64) confdb.Result {
		node := s.Nodes["n1"].Spec
		return do(confdb.Command{PutNode: &confdb.PutNode{Spec: node, ServerID: id, Endpoint: s.Nodes["n1"].Endpoint}})
	}
	was := s.Nodes["n1"].ServerID
	if r := server(was); r.Code != "" {
		t.Errorf("the same data directory: %+v", r)
	}
	if r := server(77); r.Code != confdb.CodeConflict || s.Nodes["n1"].ServerID != was {
		t.Errorf("another data directory: %+v", r)
	}
	must(confdb.Command{NodeFenced: &confdb.NodeFenced{Node: "n1", OK: true, By: "power", Groups: map[string]uint64{"g1": s.Groups["g1"].Owner.Epoch}}})
	if r := server(77); r.Code != "" || s.Nodes["n1"].ServerID != 77 {
		t.Errorf("after the fence: %+v", r)
	}
	must(confdb.Command{Assign: &confdb.Assign{Group: "g1", From: s.Groups["g1"].Owner.Epoch, Node: "n1"}})
	freezes("the next owner", false)
}
