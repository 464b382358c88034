package agent

import (
	"reflect"
	"testing"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/monitor"
)

// A node waits with what an earlier monitor left on for the scripts alone that a fence
// comes for: not for those of groups that a wait frees.
func TestFencesOf(t *testing.T) {
	script := func(name string, exclusive bool) spec.Resource {
		return spec.Resource{Name: name, Type: "script", Attributes: map[string]any{"exclusive": exclusive}}
	}
	s := &confdb.State{Groups: map[string]*confdb.Group{
		"1": {Spec: spec.Group{Name: "alone", Resources: []spec.Resource{script("s", true), {Name: "ip", Type: "ip_address"}}}},
		"2": {Spec: spec.Group{Name: "waits", Resources: []spec.Resource{script("s", false)}}},
		"3": {Spec: spec.Group{Name: "both", Resources: []spec.Resource{script("s", true), script("t", false)}}},
		"4": {Spec: spec.Group{Name: "was", Resources: []spec.Resource{script("s", true)}}, Owner: confdb.Ownership{Open: true}},
		"5": {Spec: spec.Group{Name: "frozen", NoQuorum: spec.NoQuorumFreeze, Resources: []spec.Resource{script("s", true)}}},
	}}
	for _, c := range []struct {
		covers, known bool
		want          monitor.Fences
	}{
		{true, true, monitor.Fences{Covered: true, Alone: []string{"alone/s"}}},
		{false, true, monitor.Fences{}},
		{true, false, monitor.Fences{Covered: true}}, // the state may be old, and so may what it says of groups
		{false, false, monitor.Fences{Covered: true}},
	} {
		if got := fencesOf(c.covers, c.known, s); !reflect.DeepEqual(got, c.want) {
			t.Errorf("covers %v, known %v: %+v, want %+v", c.covers, c.known, got, c.want)
		}
	}
}
