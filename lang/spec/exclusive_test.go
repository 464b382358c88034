package spec

import (
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/lang/addr"
)

func TestNotHeld(t *testing.T) {
	r := func(name, typ string, exclusive any) Resource {
		return Resource{Name: name, Type: typ, Attributes: map[string]any{"exclusive": exclusive}}
	}
	for _, tt := range []struct {
		name      string
		resources []Resource
		want      string // names
	}{
		{"nothing", nil, ""},
		{"held", []Resource{r("a", "ip_address", nil), r("b", "generic_application", nil)}, ""},
		{"scripts", []Resource{r("a", "script", nil), r("b", "script", true), r("c", "script", false), r("d", "ip_address", nil)}, "a c"},
		{"of a newer version", []Resource{r("a", "mount", true)}, "a"},
	} {
		g := Group{Name: "g", Addr: addr.Group("g", addr.Key{}), Resources: tt.resources}
		var names []string
		for _, n := range g.NotHeld() {
			names = append(names, n.Resource)
			if n.Why == "" {
				t.Errorf("%s: no reason for %s", tt.name, n.Resource)
			}
		}
		if got := strings.Join(names, " "); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		// The warning stands where another node could have it too.
		for model, warns := range map[QuorumModel]bool{MajorityNodeSet: tt.want != "", SingleNode: false} {
			d := &Definition{Cluster: Cluster{Quorum: Quorum{Model: model}}, Groups: []Group{g}}
			warned := false
			for _, p := range Check(d) {
				warned = warned || p.Warning && p.Summary == "Group is not exclusive"
			}
			if warned != warns {
				t.Errorf("%s, %s: warned %v", tt.name, model, warned)
			}
		}
	}
}
