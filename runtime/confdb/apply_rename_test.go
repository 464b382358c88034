package confdb_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// Whatever names a node or a group goes with its name, in the same command: at
// no revision is an owner no possible owner any more.
func TestRename(t *testing.T) {
	s, do := base(t)
	must := func(c confdb.Command) {
		t.Helper()
		if r := do(c); r.Code != "" {
			t.Fatal(r.Detail)
		}
	}
	put := func(g spec.Group) { t.Helper(); must(confdb.Command{PutGroup: &g}) }
	sql := spec.Group{ID: "g2", Name: "sql", Addr: addr.Group("sql", addr.NoKey), PreferredOwners: []string{"n1", "n2"}, PossibleOwners: []string{"n2", "n1"},
		Resources: []spec.Resource{{ID: "r1", Name: "app", Type: "script", Checkpoint: &spec.Checkpoint{Paths: []string{"p"}}}}}
	app := spec.Group{ID: "g3", Name: "app", Addr: addr.Group("app", addr.NoKey), DependsOn: []string{"sql", "g1"}, KeepApart: []string{"g1", "sql"}, KeepApartSoft: []string{"sql"}}
	put(sql)
	put(app)
	must(confdb.Command{PutFence: &spec.Fence{ID: "f1", Name: "pdu", Agent: "fence_x", Nodes: []string{"n2", "n1"}, Plugs: map[string]string{"n1": "4", "n2": "5"}}})
	must(confdb.Command{Assign: &confdb.Assign{Group: "g2", Node: "n1"}})
	epoch := s.Groups["g2"].Owner.Epoch
	must(confdb.Command{PutCheckpoint: &confdb.PutCheckpoint{Group: "g2", Resource: "app", Epoch: epoch}})
	lists, plugs := s.Groups["g2"].Spec.PreferredOwners, s.Fences["f1"].Spec.Plugs

	n := s.Nodes["n1"].Spec
	n.Name, n.Addr = "west", addr.Node("west", addr.NoKey)
	must(confdb.Command{PutNode: &confdb.PutNode{Spec: n}})
	g, f := s.Groups["g2"], s.Fences["f1"].Spec
	if !slices.Equal(g.Spec.PreferredOwners, []string{"west", "n2"}) || !slices.Equal(g.Spec.PossibleOwners, []string{"n2", "west"}) || !g.Spec.MayOwn(n) {
		t.Errorf("owners of the group: %v, %v", g.Spec.PreferredOwners, g.Spec.PossibleOwners)
	}
	if !slices.Equal(f.Nodes, []string{"n2", "west"}) || !cmp.Equal(f.Plugs, map[string]string{"west": "4", "n2": "5"}) {
		t.Errorf("the fence: %v, %v", f.Nodes, f.Plugs)
	}
	if lists[0] != "n1" || plugs["n1"] != "4" {
		t.Error("lists that others may read were changed in place")
	}

	sql = g.Spec
	sql.Name, sql.Addr = "db", addr.Group("db", addr.NoKey)
	sql.Resources = []spec.Resource{{ID: "r1", Name: "server", Type: "script", Checkpoint: &spec.Checkpoint{Paths: []string{"p"}}}}
	put(sql)
	dep := s.Groups["g3"].Spec
	if !slices.Equal(dep.DependsOn, []string{"db", "g1"}) || !slices.Equal(dep.KeepApart, []string{"g1", "db"}) || !slices.Equal(dep.KeepApartSoft, []string{"db"}) {
		t.Errorf("lists of the other group: %v, %v, %v", dep.DependsOn, dep.KeepApart, dep.KeepApartSoft)
	}
	g = s.Groups["g2"]
	if g.Owner.Node != "n1" || g.Owner.Epoch != epoch || g.Checkpoints["server"] == nil || g.Checkpoints["app"] != nil {
		t.Errorf("the renamed group: owner %+v, checkpoints %v", g.Owner, g.Checkpoints)
	}

	// A name that is only free now is another's, and nothing follows it.
	put(spec.Group{ID: "g4", Name: "sql", Addr: addr.Group("sql", addr.NoKey)})
	if dep = s.Groups["g3"].Spec; slices.Contains(dep.DependsOn, "sql") {
		t.Errorf("depends on %v", dep.DependsOn)
	}
}
