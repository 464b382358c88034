package planner

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// cluster is a majority of nodes, each written as name@zone, with one group.
func cluster(group spec.Group, nodes ...string) spec.Definition {
	def := spec.Definition{Cluster: spec.Cluster{Name: "c", Quorum: spec.Quorum{Model: spec.MajorityNodeSet}}}
	for _, text := range nodes {
		name, zone, _ := strings.Cut(text, "@")
		def.Nodes = append(def.Nodes, spec.Node{Name: name, Zone: zone, Addr: addr.Node(name, addr.NoKey), Votes: 1, Role: spec.RoleMember})
	}
	if group.Name != "" {
		group.Addr = addr.Group(group.Name, addr.NoKey)
		if group.Failover.Mode == "" {
			group.Failover.Mode = spec.FailoverAutomatic
		}
		group.PersistentState = spec.WantOnline
		if group.Priority == 0 {
			group.Priority = 2000
		}
		def.Groups = append(def.Groups, group)
	}
	return def
}

// lines writes rows as "what: quorum group->node ...".
func lines(m *Matrix) []string {
	var out []string
	for i := range m.Rows {
		r := &m.Rows[i]
		line := fmt.Sprintf("%s: %v", r.name(), r.Quorum)
		for _, g := range r.Groups {
			to := "nowhere"
			if g.To != nil {
				to = g.To.Name
			}
			line += fmt.Sprintf(" %s->%s %s", g.Group.Name, to, strings.TrimSpace(g.State+" "+g.Reason))
		}
		out = append(out, line)
	}
	return out
}

// Every node, every pair, every zone, each once: a zone of one node is that
// node's row.
func TestMatrixRows(t *testing.T) {
	web := spec.Group{Name: "web", PreferredOwners: []string{"n1", "n2"}, NoQuorum: spec.NoQuorumFreeze}
	m := MatrixOf(cluster(web, "n1@east", "n2@east", "n3@west", "n4@east", "n5@lone", "n6"))
	got := lines(m)
	if len(got) != 6+15+1 {
		t.Fatalf("%d rows: %q", len(got), got)
	}
	for _, want := range []string{
		"n1: true web->n2 online", "n2: true",
		"zone east: false web->nowhere offline no_quorum",
	} {
		if !slices.ContainsFunc(got, func(line string) bool { return line == want || line == "node."+want }) {
			t.Errorf("no row %q in %q", want, got)
		}
	}
	text, err := json.Marshal(m.Rows[len(m.Rows)-1])
	if err != nil || !strings.HasPrefix(string(text), `{"fail":["node.n1","node.n2","node.n4"],"zone":"east","quorum":false,`) {
		t.Errorf("%s %v", text, err)
	}
	if text, _ = json.Marshal(m.Rows[0]); strings.Contains(string(text), "zone") {
		t.Errorf("a node's row says zone: %s", text)
	}
	// Two nodes that are a zone are asked for by its name too.
	small := lines(MatrixOf(cluster(web, "n1@east", "n2@west", "n3@west")))
	want := []string{"node.n1: true web->n2 online", "node.n2: true", "node.n3: true",
		"node.n1 and node.n2: false web->nowhere offline no_quorum", "node.n1 and node.n3: false web->nowhere offline no_quorum",
		"node.n2 and node.n3: false web->n1 online frozen", "zone west: false web->n1 online frozen"}
	if diff := cmp.Diff(want, small); diff != "" {
		t.Error(diff)
	}
}

// Pairs of more than 64 nodes are left out, and there where they are asked for.
func TestPairsOfManyNodes(t *testing.T) {
	var names []string
	for i := range 65 {
		names = append(names, fmt.Sprintf("n%02d", i))
	}
	for _, c := range []struct {
		nodes int
		asked bool
		pairs int
	}{{64, false, 64 * 63 / 2}, {65, false, 0}, {65, true, 65 * 64 / 2}} {
		m := (&scene{def: cluster(spec.Group{Name: "web"}, names[:c.nodes]...)}).board().matrix(c.asked)
		if len(m.Rows) != c.nodes+c.pairs || m.Pairs != (c.pairs > 0) {
			t.Errorf("%d nodes, asked for: %v: %d rows, with pairs: %v", c.nodes, c.asked, len(m.Rows), m.Pairs)
		}
	}
}

// What got worse is named by the zone, also where the zone had one node before
// and with it no row of its own.
func TestRegressionsOfZones(t *testing.T) {
	web := spec.Group{Name: "web", PossibleOwners: []string{"n1", "n3"}}
	before := MatrixOf(cluster(web, "n1@east", "n2@west", "n3@south", "n4@north", "n5@north"))
	if got := regressions(before, before); len(got) > 0 {
		t.Errorf("nothing changed: %q", got)
	}
	// n3 moves into n1's zone: when that is lost, web has nowhere to go.
	after := MatrixOf(cluster(web, "n1@east", "n2@west", "n3@east", "n4@north", "n5@north"))
	want := []string{"zone east lost: group.web stays down (no node); before, it did not"}
	if diff := cmp.Diff(want, regressions(before, after)); diff != "" {
		t.Error(diff)
	}
	// And n2 into the same: quorum goes with it.
	worse := MatrixOf(cluster(web, "n1@east", "n2@east", "n3@east", "n4@north", "n5@north"))
	want = []string{"zone east lost: the cluster has no quorum then; before, it had"}
	if diff := cmp.Diff(want, regressions(after, worse)); diff != "" {
		t.Error(diff)
	}
	device := cluster(web, "n1", "n3")
	device.Cluster.Quorum = spec.Quorum{Model: spec.SingleQuorum, Device: "/dev/q"}
	rows := MatrixOf(device).Rows
	if last := rows[len(rows)-1]; last.name() != "quorum device" || last.Quorum || !last.Device {
		t.Errorf("the device's row: %+v", last)
	}
}
