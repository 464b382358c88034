package api

import (
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// What a node said last of a group is not what is there once nobody hears it.
func TestGroupOfANodeThatIsDown(t *testing.T) {
	st := &confdb.State{
		View:  confdb.View{Up: []string{"a"}},
		Nodes: map[string]*confdb.Node{"a": {Spec: spec.Node{Name: "n1"}}, "b": {Spec: spec.Node{Name: "n2"}}},
	}
	for _, c := range []struct{ owner, state, want string }{
		{"b", spec.StateOnline, spec.StateUnknown},
		{"b", spec.StateOnlinePending, spec.StateUnknown},
		{"b", spec.StateFailed, spec.StateFailed},
		{"b", spec.StateOffline, spec.StateOffline},
		{"a", spec.StateOnline, spec.StateOnline},
		{"", "", spec.StateOffline},
	} {
		g := &confdb.Group{Spec: spec.Group{Name: "web", Resources: []spec.Resource{{Name: "app"}}}, State: c.state, Owner: confdb.Ownership{Node: c.owner},
			Resources: []confdb.ResourceState{{Name: "app", State: c.state}}}
		got := groupStatus(st, member.Status{Quorum: true}, g, "a", 1)
		if got.State != c.want || got.Resources[0].State != c.want {
			t.Errorf("%s on %q is told as %s, its resource as %s; want %s", c.state, c.owner, got.State, got.Resources[0].State, c.want)
		}
		if unknown := c.want == spec.StateUnknown; unknown != strings.Contains(got.Reason, "node n2 is down") {
			t.Errorf("%s on %q: reason %q", c.state, c.owner, got.Reason)
		}
	}
}
