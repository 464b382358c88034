package confdb_test

import (
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// Longer timings bind an owner at once; of shorter ones a lease counts when the
// node has confirmed it, and a kill with the next owner only.
func TestOwnersKeepTheLongestTimings(t *testing.T) {
	s := confdb.NewState()
	n := 0
	do := func(c confdb.Command) confdb.Result {
		n++
		c.ID, c.Time = string(rune('a'+n)), time.Unix(int64(n), 0)
		return s.Apply(c)
	}
	set := func(lease, kill time.Duration) {
		if r := do(confdb.Command{PutCluster: &spec.Cluster{ID: "c", Heartbeat: spec.Timings{Lease: spec.Duration(lease), Kill: spec.Duration(kill)}}}); r.Code != "" {
			t.Fatal(r)
		}
	}
	want := func(what string, lease, kill time.Duration) {
		t.Helper()
		if o := s.Groups["g"].Owner; o.Lease.D() != lease || o.Kill.D() != kill {
			t.Errorf("%s: lease %v, kill %v; want %v, %v", what, o.Lease, o.Kill, lease, kill)
		}
	}
	ms := time.Millisecond
	set(600*ms, 50*ms)
	do(confdb.Command{PutNode: &confdb.PutNode{Spec: spec.Node{ID: "n1", Name: "n1", Role: spec.RoleMember}, ServerID: 1}})
	do(confdb.Command{PutGroup: &spec.Group{ID: "g", Name: "g"}})
	if r := do(confdb.Command{Assign: &confdb.Assign{Group: "g", Node: "n1", Timings: confdb.Ownership{Lease: spec.Duration(600 * ms), StopWithin: spec.Duration(100 * ms), Kill: spec.Duration(50 * ms)}}}); r.Code != "" {
		t.Fatal(r)
	}
	set(900*ms, 80*ms)
	want("longer", 900*ms, 80*ms)
	set(700*ms, 60*ms)
	want("shorter, not confirmed", 900*ms, 80*ms)
	confirm := func(of uint64) confdb.Result {
		return do(confdb.Command{ConfirmTimings: &confdb.ConfirmTimings{Node: "n1", Of: of, Lease: spec.Duration(700 * ms)}})
	}
	if r := confirm(s.TimingsRevision - 1); r.Code == "" {
		t.Error("a confirmation of older timings counts")
	}
	want("an older change confirmed", 900*ms, 80*ms)
	if r := confirm(s.TimingsRevision); r.Code != "" {
		t.Error(r)
	}
	want("confirmed", 700*ms, 80*ms)
}

// A node that owns a group which goes on without a lease becomes another server
// only once it is proven off: what it was may run the group for ever.
func TestNoOtherServerBesideAFrozenGroup(t *testing.T) {
	s := confdb.NewState()
	put := func(id string, server uint64) confdb.Result {
		return s.Apply(confdb.Command{ID: id, PutNode: &confdb.PutNode{Spec: spec.Node{ID: "n1", Name: "n1", Role: spec.RoleMember}, ServerID: server}})
	}
	put("a", 1)
	s.Apply(confdb.Command{ID: "b", PutGroup: &spec.Group{ID: "g", Name: "g", NoQuorum: spec.NoQuorumFreeze}})
	if r := s.Apply(confdb.Command{ID: "c", Assign: &confdb.Assign{Group: "g", Node: "n1", Timings: confdb.Ownership{Open: true, Freeze: true}}}); r.Code != "" {
		t.Fatal(r)
	}
	if r := put("d", 2); r.Code != confdb.CodeConflict || s.Nodes["n1"].ServerID != 1 {
		t.Errorf("it became another server: %+v", r)
	}
	s.Apply(confdb.Command{ID: "e", NodeFenced: &confdb.NodeFenced{Node: "n1", OK: true, By: "power", Groups: map[string]uint64{"g": 1}}})
	if r := put("f", 2); r.Code != "" || s.Nodes["n1"].ServerID != 2 {
		t.Errorf("proven off, it doesn't become another server: %+v", r)
	}
}
