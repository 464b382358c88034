package planner

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// judged checks one guarantee of a cluster's only group.
func judged(def spec.Definition, survives map[string]int64, max time.Duration) Guarantee {
	def.Guarantees = []spec.Guarantee{{Addr: addr.Address{Type: addr.TypeGuarantee, Name: "g"}, Name: "g",
		Groups: []string{def.Groups[0].Name}, Survives: survives, MaxDowntime: spec.Duration(max)}}
	b := (&scene{def: def}).board()
	return b.guarantees(def.Guarantees, b.matrix(false), failoverTimes(def))[0]
}

func TestGuarantees(t *testing.T) {
	nodes := func(n int64) map[string]int64 { return map[string]int64{"nodes": n} }
	zones := func(n int64) map[string]int64 { return map[string]int64{"zones": n} }
	web := spec.Group{Name: "web"}
	five := []string{"n1@a", "n2@a", "n3@b", "n4@b", "n5@c"}
	script := spec.Group{Name: "web", Resources: []spec.Resource{{Name: "array", Type: "script"}}}
	for _, tt := range []struct {
		name     string
		def      spec.Definition
		survives map[string]int64
		max      time.Duration
		worst    int64    // -1: none
		broken   []string // how each reason begins
	}{
		{"one of three", cluster(web, "n1", "n2", "n3"), nodes(1), 0, 871, nil},
		{"two of three", cluster(web, "n1", "n2", "n3"), nodes(2), 0, 871, []string{
			"node.n1 and node.n2 lost: the cluster has no quorum then", "node.n1 and node.n3 lost:", "node.n2 and node.n3 lost:"}},
		{"two of five", cluster(web, five...), nodes(2), 0, 871, nil},
		{"three of five, few are told", cluster(web, five...), nodes(3), 0, 871, []string{
			"node.n1 and node.n2 and node.n3 lost:", "node.n1 and node.n2 and node.n4 lost:", "node.n1 and node.n2 and node.n5 lost:", "node.n1 and node.n3 and node.n4 lost:", "and 6 more faults"}},
		{"a zone", cluster(web, five...), zones(1), 0, 871, nil},
		{"two zones, one of them a node", cluster(web, five...), zones(2), 0, 871, []string{
			"zone a and zone b lost: the cluster has no quorum", "zone a and zone c lost:", "zone b and zone c lost:"}},
		{"nowhere to go", cluster(spec.Group{Name: "web", PossibleOwners: []string{"n1", "n2"}}, five...), zones(1), 0, 871, []string{"zone a lost: group.web stays down (no node)"}},
		{"each alone", cluster(spec.Group{Name: "web", PossibleOwners: []string{"n1", "n2"}}, five...), nodes(1), 0, 871, nil},
		{"in time", cluster(web, five...), nodes(1), 871 * time.Millisecond, 871, nil},
		{"too late", cluster(web, five...), nil, 870 * time.Millisecond, 871, []string{"group.web may be down for 871 ms, longer than 870ms: lease 600 + stop 100 + kill 50 + clocks 16 + commit 60 + start 45"}},
		{"waits for an operator", cluster(spec.Group{Name: "web", Failover: spec.Failover{Mode: spec.FailoverManual}}, five...), nodes(1), time.Hour, -1, []string{
			"group.web does not fail over by itself", "node.n1 lost: group.web stays down (manual)"}},
		{"not exclusive", cluster(script, five...), nodes(1), 0, 871, []string{"group.web is not exclusive: resource array may go on"}},
		{"no room", func() spec.Definition {
			def := cluster(spec.Group{Name: "web", Demand: map[string]int64{"cpu": 2}}, five...)
			for i := range def.Nodes {
				def.Nodes[i].Capacity = map[string]int64{"cpu": 1}
			}
			return def
		}(), nodes(1), 0, 871, []string{"group.web is not online while nothing fails (no room)"}},
		{"nobody wants it", func() spec.Definition {
			def := cluster(spec.Group{Name: "web", PossibleOwners: []string{"n1"}}, five...)
			def.Groups[0].PersistentState = spec.WantOffline
			return def
		}(), nodes(1), 0, 871, nil},
		{"frozen goes on", cluster(spec.Group{Name: "web", NoQuorum: spec.NoQuorumFreeze, PreferredOwners: []string{"n1"}}, "n1@a", "n2@b", "n3@b"), zones(1), 0, 871, nil},
		{"a group that it needs comes first", func() spec.Definition {
			def := cluster(spec.Group{Name: "web", DependsOn: []string{"sql"}}, five...)
			sql := cluster(spec.Group{Name: "sql", StopWithin: spec.Duration(time.Second)}).Groups[0]
			def.Groups = append(def.Groups, sql)
			return def
		}(), nil, time.Second, 1954, []string{"group.web may be down for 1954 ms, longer than 1s: lease 600 + stop 100 + kill 50 + clocks 16 + dependencies 1083 + commit 60 + start 45"}},
		{"one node", func() spec.Definition {
			def := cluster(web, "n1")
			def.Cluster.Quorum.Model = spec.SingleNode
			return def
		}(), nodes(1), 0, -1, []string{"node.n1 lost: the cluster has no quorum"}},
	} {
		got := judged(tt.def, tt.survives, tt.max)
		if got.Holds != (len(tt.broken) == 0) || got.WorstMS != tt.worst || !slices.EqualFunc(tt.broken, got.Broken, func(want, have string) bool { return strings.HasPrefix(have, want) }) {
			t.Errorf("%s: %+v", tt.name, got)
		}
	}
}

// Whatever the cluster, a guarantee to survive the loss of k nodes holds just when
// no set of k nodes or fewer, worked out one by one, leaves its group down.
func TestGuaranteeIsEverySet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var names []string
		for i := range rapid.IntRange(1, 6).Draw(t, "nodes") {
			names = append(names, fmt.Sprintf("n%d", i+1))
		}
		group := spec.Group{Name: "web"}
		for _, n := range names {
			if rapid.Bool().Draw(t, "may own") {
				group.PossibleOwners = append(group.PossibleOwners, n)
			}
		}
		def := cluster(group, names...)
		for i := range def.Nodes {
			def.Nodes[i].Votes = rapid.IntRange(0, 1).Draw(t, "votes")
			if def.Nodes[i].Votes == 1 && rapid.IntRange(0, 4).Draw(t, "witness") == 0 {
				def.Nodes[i].Role = spec.RoleWitness
			}
		}
		k := rapid.IntRange(1, len(names)).Draw(t, "k")
		got := judged(def, map[string]int64{spec.SurviveNodes: int64(k)}, 0)
		online := func(lost []string) bool {
			s := &scene{def: def, up: map[string]bool{}, owner: (&scene{def: def}).board().owner}
			for _, n := range names {
				s.up[n] = !slices.Contains(lost, n)
			}
			b := s.board()
			return b.have(nil, false) && b.owner["web"] != ""
		}
		want := true
		for set := 0; set < 1<<len(names); set++ {
			var lost []string
			for i, n := range names {
				if set>>i&1 == 1 {
					lost = append(lost, n)
				}
			}
			if len(lost) == 0 && (&scene{def: def}).board().owner["web"] == "" || len(lost) > 0 && len(lost) <= k && !online(lost) {
				want = false
			}
		}
		if got.Holds != want {
			t.Fatalf("holds %v, want %v: %+v", got.Holds, want, got)
		}
	})
}

func TestChoose(t *testing.T) {
	var got []string
	choose(4, 2, func(at []int) { got = append(got, fmt.Sprint(at)) })
	if diff := cmp.Diff([]string{"[0 1]", "[0 2]", "[0 3]", "[1 2]", "[1 3]", "[2 3]"}, got); diff != "" {
		t.Error(diff)
	}
	for n := range 8 {
		for k := 1; k <= n; k++ {
			count := 0
			for i := 1; i <= k; i++ {
				choose(n, i, func([]int) { count++ })
			}
			if want := spec.Combinations(n, int64(k)); count != want {
				t.Errorf("%d of %d: %d sets, Combinations says %d", k, n, count, want)
			}
		}
	}
}
