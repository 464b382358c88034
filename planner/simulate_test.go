package planner

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
)

func simulated(t *testing.T, s *scene, fail ...string) *Simulation {
	t.Helper()
	out, err := s.simulate(fail)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// story writes a simulation as "quorum up/votes: group from->to state reason ms".
func story(s *Simulation) string {
	text := fmt.Sprintf("%v %d/%d:", s.Quorum.Have, s.Quorum.Up, s.Quorum.Votes)
	for _, g := range s.Groups {
		from, to := "-", "-"
		if g.From != nil {
			from = g.From.Name
		}
		if g.To != nil {
			to = g.To.Name
		}
		text += fmt.Sprintf(" %s %s->%s %s %s %d", g.Group.Name, from, to, g.State, g.Reason, g.MaxMS)
	}
	return text
}

func TestSimulate(t *testing.T) {
	web := spec.Group{Name: "web", PreferredOwners: []string{"n1", "n2"}}
	def := cluster(web, "n1@east", "n2@west", "n3@west", "n4@west", "n5@north")
	device := cluster(web, "n1", "n2")
	device.Cluster.Quorum = spec.Quorum{Model: spec.SingleQuorum, Device: "/dev/q"}
	shed := cluster(spec.Group{Name: "big", PreferredOwners: []string{"n1"}, Priority: 3000, Demand: map[string]int64{"cpu": 2}}, "n1", "n2", "n3")
	small := cluster(spec.Group{Name: "small", PreferredOwners: []string{"n2", "n3"}, Demand: map[string]int64{"cpu": 1}}).Groups[0]
	shed.Groups = append(shed.Groups, small)
	for i := range shed.Nodes {
		shed.Nodes[i].Capacity = map[string]int64{"cpu": 2}
	}
	shed.Groups[0].PossibleOwners = []string{"n1", "n2"}
	for _, tt := range []struct {
		name string
		s    scene
		fail string
		want string
	}{
		{"its owner", scene{def: def}, "node.n1", "true 4/5: web n1->n2 online failover 871"},
		{"by name", scene{def: def}, "n1", "true 4/5: web n1->n2 online failover 871"},
		{"another node", scene{def: def}, "node.n5", "true 4/5: web n1->n1 online stays 0"},
		{"a zone of three", scene{def: def}, "zone.west", "false 2/5: web n1->- offline no_quorum -1"},
		{"a zone of one", scene{def: def}, "zone.east", "true 4/5: web n1->n2 online failover 871"},
		{"several", scene{def: def}, "n1 n2 n1", "true 3/5: web n1->n3 online failover 871"},
		{"a node and its zone", scene{def: def}, "n1 zone.east", "true 4/5: web n1->n2 online failover 871"},
		{"one is down already", scene{def: def, up: map[string]bool{"n1": true, "n3": true, "n4": true, "n5": true}}, "n1", "true 3/5: web n1->n3 online failover 871"},
		{"where it is now", scene{def: def, owner: map[string]string{"web": "n4"}}, "n1", "true 4/5: web n4->n4 online stays 0"},
		{"drained", scene{def: def, drain: map[string]bool{"n2": true}}, "n1", "true 4/5: web n1->n3 online failover 871"},
		{"wanted offline", scene{def: def, want: map[string]string{"web": spec.WantOffline}}, "n1", "true 4/5: web -->- offline offline -1"},
		{"the device", scene{def: device}, "device", "false 2/2: web n1->- offline no_quorum -1"},
		{"it makes room", scene{def: shed}, "n1", "true 2/3: big n1->n2 online failover 871 small n2->n3 online shed 155"},
	} {
		if got := story(simulated(t, &tt.s, strings.Fields(tt.fail)...)); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
	for word, want := range map[string]string{
		"n9": "there is no such node; did you mean n1?", "database": "there is no such node; there are node.n1, node.n2", "node.n9": "no such node", "node.n1[0]": "no such node", "": "no such node",
		"zone.south": "there is no such zone; did you mean zone.north?", "zone.basement": "there is no such zone; there are east, north, west", "device": "with quorum model majority_node_set there is no quorum device",
		"group.web": "a group does not fail by itself",
	} {
		if _, err := (&scene{def: def}).simulate([]string{word}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--fail %q: %v, want %q", word, err, want)
		}
	}
}

// A guarantee covers faults of its size, nodes that are down before counted in.
func TestSimulateGuarantees(t *testing.T) {
	def := cluster(spec.Group{Name: "web", PossibleOwners: []string{"n1", "n2"}}, "n1@east", "n2@east", "n3@west", "n4@south", "n5@north")
	def.Guarantees = []spec.Guarantee{
		{Name: "node", Groups: []string{"web"}, Survives: map[string]int64{"nodes": 1}},
		{Name: "soon", Groups: []string{"web"}, Survives: map[string]int64{"nodes": 1}, MaxDowntime: spec.Duration(time.Millisecond)},
		{Name: "zone", Groups: []string{"web"}, Survives: map[string]int64{"zones": 1}},
	}
	all := scene{def: def}
	without := scene{def: def, up: map[string]bool{"n1": true, "n2": true, "n4": true, "n5": true}}
	for _, tt := range []struct {
		s    *scene
		fail string
		want string // covered and holds of each
		code bool
	}{
		{&all, "n1", "node true true, soon true false, zone false true", true},
		{&all, "n3", "node true true, soon true true, zone false true", false},
		{&all, "n1 n2", "node false false, soon false false, zone false false", false},
		{&all, "zone.east", "node false false, soon false false, zone true false", true},
		{&all, "zone.west", "node true true, soon true true, zone true true", false},
		{&all, "zone.west n1", "node false true, soon false false, zone false true", false},
		{&without, "n1", "node false true, soon false false, zone false true", false},
		{&without, "zone.south", "node false true, soon false true, zone false true", false},
	} {
		sim := simulated(t, tt.s, strings.Fields(tt.fail)...)
		var got []string
		for _, g := range sim.Guarantees {
			got = append(got, fmt.Sprint(g.Name, " ", g.Covered, " ", g.Holds))
		}
		if text := strings.Join(got, ", "); text != tt.want || sim.Broken() != tt.code {
			t.Errorf("%s: %s, broken %v", tt.fail, text, sim.Broken())
		}
	}
}

// What the running cluster knows: who is down, and that who has not joined yet
// will be there.
func TestSimulateFromLive(t *testing.T) {
	def := cluster(spec.Group{Name: "web"}, "n1", "n2", "n3", "n4", "n5")
	b := &builder{after: def, in: Input{World: World{Live: &providers.Live{Quorum: true}}}}
	live := b.in.World.Live
	for i, state := range []string{spec.NodeUp, spec.NodeDown, spec.NodeUp, spec.NodePaused} {
		m := providers.LiveMember{Spec: def.Nodes[i], Node: state}
		if m.Spec.ID = def.Nodes[i].Name; state == spec.NodePaused {
			m.Paused = &providers.Order{Author: "eve"}
		}
		live.Members = append(live.Members, m)
	}
	live.Groups = []providers.LiveGroup{{Spec: def.Groups[0], Owner: "n3"}}
	// n3 was called otherwise, and the cluster doesn't know better yet.
	live.Members[2].Spec.Addr, live.Members[2].Spec.Name = addr.Node("old", addr.NoKey), "old"
	live = called(live, &statefile.State{Objects: []statefile.Object{{ID: "n3", Addr: def.Nodes[2].Addr}}})
	b.in.World.Live = live
	s := b.sceneOf(def, false)
	s.count(live)
	sim := simulated(t, s, "n3")
	if got := story(sim); got != "true 3/5: web n3->n1 online failover 871" {
		t.Error(got)
	}
	if got := fmt.Sprint(sim.Down, sim.Lost); got != "[node.n2] [node.n2 node.n3]" {
		t.Errorf("down and lost: %s", got)
	}
}

// What is simulated is the failure matrix: the same quorum, and the same groups at
// the same places, in every row of any cluster.
func TestSimulateIsTheMatrix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var nodes []string
		for i := range rapid.IntRange(1, 6).Draw(t, "nodes") {
			nodes = append(nodes, fmt.Sprintf("n%d@%s", i+1, rapid.SampledFrom([]string{"", "east", "west"}).Draw(t, "zone")))
		}
		def := cluster(spec.Group{}, nodes...)
		for i := range rapid.IntRange(1, 5).Draw(t, "groups") {
			g := spec.Group{Name: fmt.Sprintf("g%d", i), Demand: map[string]int64{"cpu": rapid.Int64Range(0, 3).Draw(t, "demand")},
				Priority:  rapid.IntRange(1, 3).Draw(t, "priority"),
				NoQuorum:  rapid.SampledFrom([]string{spec.NoQuorumStop, spec.NoQuorumFreeze}).Draw(t, "no_quorum"),
				KeepApart: rapid.SampledFrom([][]string{nil, {"g0"}}).Draw(t, "apart"),
				Failover:  spec.Failover{Mode: rapid.SampledFrom([]string{spec.FailoverAutomatic, spec.FailoverNone, spec.FailoverManual}).Draw(t, "mode")}}
			def.Groups = append(def.Groups, cluster(g).Groups...)
		}
		for i := range def.Nodes {
			def.Nodes[i].Capacity = map[string]int64{"cpu": rapid.Int64Range(0, 4).Draw(t, "capacity")}
		}
		s := &scene{def: def}
		m := s.board().matrix(false)
		for i := range m.Rows {
			row := &m.Rows[i]
			var fail []string
			for _, a := range row.Fail {
				fail = append(fail, a.String())
			}
			if row.Zone != "" {
				fail = []string{"zone." + row.Zone}
			}
			sim, err := s.simulate(fail)
			if err != nil {
				t.Fatal(err)
			}
			if sim.Quorum.Have != row.Quorum || len(sim.Groups) != len(def.Groups) {
				t.Fatalf("%s: %+v, the matrix says %+v", row.name(), sim, row)
			}
			for _, g := range sim.Groups {
				at := slices.IndexFunc(row.Groups, func(m MatrixGroup) bool { return m.Group == g.Group })
				if at < 0 {
					if g.From != g.To {
						t.Fatalf("%s: %s goes to %v, in the matrix it goes on", row.name(), g.Group, g.To)
					}
					continue
				}
				if m := row.Groups[at]; m.From != g.From || m.To != g.To || m.State != g.State {
					// Addresses point into the definition: equal ones are the same.
					t.Fatalf("%s: %+v, the matrix says %+v", row.name(), g, m)
				}
			}
		}
	})
}
