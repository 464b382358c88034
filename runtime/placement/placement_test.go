package placement

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// cluster has nodes named by the letters (upper case: up; lower case: down).
func cluster(letters string, groups ...Group) Input {
	var in Input
	for _, c := range letters {
		name := strings.ToUpper(string(c))
		in.Nodes = append(in.Nodes, Node{Spec: spec.Node{Name: name, Role: spec.RoleMember, Votes: 1, Addr: addr.Node(name, addr.NoKey)}, Up: name == string(c)})
	}
	in.Groups = groups
	return in
}

func group(name, owner string, preferred ...string) Group {
	return Group{Spec: spec.Group{Name: name, Addr: addr.Group(name, addr.NoKey), Priority: 2000, PreferredOwners: preferred}, Owner: owner}
}

// Whatever is known of a group is forgotten but its Spec.
func TestForget(t *testing.T) {
	g := group("g", "A", "B")
	want := Group{Spec: g.Spec}
	for v, i := reflect.ValueOf(&g).Elem(), 0; i < v.NumField(); i++ {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString("x")
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Slice:
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
		case reflect.Struct: // Spec
		default:
			t.Fatalf("this test has no value for %s", v.Type().Field(i).Name)
		}
	}
	if g.Forget(); !reflect.DeepEqual(g, want) {
		t.Errorf("left: %+v", g)
	}
}

// Microsoft KB 299631: the next after the present owner, round and round.
func TestNextOwner(t *testing.T) {
	ace := func(owner string) Group { return group("g", owner, "A", "C", "E") }
	for _, c := range []struct {
		name   string
		in     Input
		reason string
		want   string
	}{
		{"the article: preferred A, C, E of A..F; C fails over to E", cluster("ABCDEF", ace("C")), WhyFailover, "E"},
		{"the article: preferred 3, 4 of four nodes; 4 fails over to 1", cluster("ABCD", group("g", "D", "C", "D")), WhyFailover, "A"},
		{"A fails over to C", cluster("ABCDEF", ace("A")), WhyFailover, "C"},
		{"the last preferred one fails over to the first other", cluster("ABCDEF", ace("E")), WhyFailover, "B"},
		{"an other one goes on in node order", cluster("ABCDEF", ace("B")), WhyFailover, "D"},
		{"the last one fails over to the head", cluster("ABCDEF", ace("F")), WhyFailover, "A"},
		{"nodes that are down are skipped", cluster("ABCdeF", ace("C")), WhyFailover, "B"},
		{"a first start takes the head", cluster("ABCDEF", ace("")), WhyFirstStart, "A"},
		{"or the first that is up", cluster("aBCDEF", ace("")), WhyFirstStart, "C"},
		{"a failback takes the head", cluster("ABCDEF", ace("E")), WhyFailback, "A"},
		{"or the first preferred one that is up", cluster("aBCDEF", ace("E")), WhyFailback, "C"},
		{"but never one behind the present owner", cluster("aBCDEF", ace("C")), WhyFailback, ""},
		{"scenario 1: if E fails, B and not A", cluster("ABCDEF", ace("E")), WhyFailover, "B"},
		{"scenario 2A: no preferred owners, and the next one has as much room as all", cluster("ABCDEF", group("g", "A"), group("x", "C")), WhyFailover, "B"},
		{"scenario 3: a move to the best possible node always tries A", cluster("ABCDEF", ace("C")), WhyMove, "A"},
		{"scenario 3: from A, C", cluster("ABCDEF", ace("A")), WhyMove, "C"},
		{"scenario 3: A is not available, C", cluster("aBCDEF", ace("B")), WhyMove, "C"},
		{"scenario 3: from D, A", cluster("ABCDEF", ace("D")), WhyMove, "A"},
		{"scenario 3: A, C and E are not active, B (or F; here by node order)", cluster("aBcDeF", ace("D")), WhyMove, "B"},
		{"scenario 4: no preferred owners: not a node that runs several groups already", cluster("ABC", group("g", "A"), group("x", "B"), group("y", "B")), WhyMove, "C"},
		{"the blog: preferred 3, 4 of four nodes; from 3 to 4", cluster("ABCD", group("g", "C", "C", "D")), WhyFailover, "D"},
		{"and 1 to 2, 2 to 3", cluster("ABCD", group("g", "A", "C", "D")), WhyFailover, "B"},
		{"round and round", cluster("ABCD", group("g", "B", "C", "D")), WhyFailover, "C"},
		{"an owner that is none any more: from the head", cluster("ABCDEF", ace("Z")), WhyFailover, "A"},
		{"nobody else is up", cluster("abCdef", ace("C")), WhyFailover, ""},
		{"without preferred owners and capacities: the first by name", cluster("ABC", group("g", "B")), WhyFailover, "A"},
		{"without preferred owners: the node with fewest groups", cluster("ABC", group("g", "B"), group("x", "A")), WhyFailover, "C"},
	} {
		if to, why := Choose(c.in, "g", c.reason); to != c.want {
			t.Errorf("%s: got %q (%s), want %q", c.name, to, why, c.want)
		}
	}
}

func edit[T any](v T, do func(*T)) T { do(&v); return v }

func TestSettle(t *testing.T) {
	with := func(g Group, do func(*Group)) Group { return edit(g, do) }
	for _, c := range []struct {
		name string
		in   Input
		want string // group:to/state/why ...
	}{
		{"all stay", cluster("AB", group("g", "A", "B")), "g:A/online/stays"},
		{"a first start", cluster("AB", group("g", "", "B")), "g:B/online/first_start"},
		{"wanted offline", cluster("AB", with(group("g", "A"), func(g *Group) { g.Want = spec.WantOffline })), "g:/offline/offline"},
		{"priority 0 is not started by itself", cluster("AB", with(group("g", ""), func(g *Group) { g.Spec.Priority = 0 })), "g:/offline/priority_zero"},
		{"but when asked", cluster("AB", with(group("g", ""), func(g *Group) { g.Spec.Priority, g.Asked = 0, true })), "g:A/online/first_start"},
		{"and fails over", cluster("aB", with(group("g", "A"), func(g *Group) { g.Spec.Priority = 0 })), "g:B/online/failover"},
		{"manual waits", cluster("aB", with(group("g", "A"), func(g *Group) { g.Spec.Failover.Mode = spec.FailoverManual })), "g:/offline/manual"},
		{"until it is moved", cluster("aB", with(group("g", "A"), func(g *Group) { g.Spec.Failover.Mode, g.Move = spec.FailoverManual, true })), "g:B/online/failover"},
		{"and goes where it is moved", cluster("aBC", with(group("g", "A"), func(g *Group) { g.Spec.Failover.Mode, g.Move, g.MoveTo = spec.FailoverManual, true, "C" })), "g:C/online/failover"},
		{"none stays down with its node", cluster("aB", with(group("g", "A"), func(g *Group) { g.Spec.Failover.Mode = spec.FailoverNone })), "g:/offline/no_failover"},
		{"nobody is up", cluster("ab", group("g", "A")), "g:/offline/no_node"},
		{"possible owners only", cluster("aBC", with(group("g", "A"), func(g *Group) { g.Spec.PossibleOwners = []string{"A", "C"} })), "g:C/online/failover"},
		{"no longer possible", cluster("ABC", with(group("g", "A"), func(g *Group) { g.Spec.PossibleOwners = []string{"B", "C"} })), "g:B/online/not_possible"},
		{"moved", cluster("ABC", with(group("g", "A"), func(g *Group) { g.Move, g.MoveTo = true, "C" })), "g:C/online/move"},
		{"moved to a node that is down: stays", cluster("ABc", with(group("g", "A"), func(g *Group) { g.Move, g.MoveTo = true, "C" })), "g:A/online/stays"},
		{"failed, elsewhere", cluster("ABC", with(group("g", "A", "A", "B"), func(g *Group) { g.Failed = true })), "g:B/online/failover"},
		{"failed, nowhere else", cluster("Abc", with(group("g", "A"), func(g *Group) { g.Failed = true })), "g:A/failed/no_node"},
		{"left failed", cluster("AB", with(group("g", ""), func(g *Group) { g.LeftFailed = true })), "g:/failed/left_failed"},
		{"fails back", cluster("ABC", with(group("g", "B", "A", "B"), func(g *Group) { g.Failback = true })), "g:A/online/failback"},
		{"fails back without preferred owners", cluster("ABC", with(group("g", "B"), func(g *Group) { g.Failback, g.Home = true, "C" })), "g:C/online/failback"},
		{"doesn't fail back to what it is softly kept apart from", cluster("ABC", group("x", "A"), with(group("g", "C", "A", "B", "C"), func(g *Group) { g.Failback, g.Spec.KeepApartSoft = true, []string{"x"} })), "x:A/online/stays g:B/online/failback"},
		{"nor stays for that where it is no better", cluster("ABC", group("x", "A"), group("y", "C"), with(group("g", "C", "A", "C"), func(g *Group) { g.Failback, g.Spec.KeepApartSoft = true, []string{"x", "y"} })), "x:A/online/stays y:C/online/stays g:A/online/failback"},
		{"doesn't fail back to a spare from a primary", spare("A", cluster("ABC", with(group("g", "B", "A", "B"), func(g *Group) { g.Failback = true }))), "g:B/online/stays"},
		{"a group waits for one that it depends on", cluster("AB",
			with(group("g", ""), func(g *Group) { g.Spec.DependsOn = []string{"d"} }),
			with(group("d", ""), func(g *Group) { g.Want = spec.WantOffline })), "g:/offline/dependency d:/offline/offline"},
		{"a dependency's loss stops no running dependent", cluster("aB",
			with(group("g", "B"), func(g *Group) { g.Spec.DependsOn = []string{"d"} }),
			with(group("d", "A"), func(g *Group) { g.Spec.Failover.Mode = spec.FailoverNone })), "g:B/online/stays d:/offline/no_failover"},
		{"kept apart", cluster("aBC", group("x", "B"), with(group("g", "A", "A"), func(g *Group) { g.Spec.KeepApart = []string{"x"} })), "x:B/online/stays g:C/online/failover"},
		{"kept apart, the other way round", cluster("aBC", with(group("x", "B"), func(g *Group) { g.Spec.KeepApart = []string{"g"} }), group("g", "A", "A")), "x:B/online/stays g:C/online/failover"},
		{"kept apart with no other place", cluster("aBc", group("x", "B"), with(group("g", "A"), func(g *Group) { g.Spec.KeepApart = []string{"x"} })), "x:B/online/stays g:/offline/kept_apart"},
		{"softly: unless only such are left", cluster("aBc", group("x", "B"), with(group("g", "A"), func(g *Group) { g.Spec.KeepApartSoft = []string{"x"} })), "x:B/online/stays g:B/online/failover"},
		{"softly: else elsewhere", cluster("aBC", group("x", "B"), with(group("g", "A", "A"), func(g *Group) { g.Spec.KeepApartSoft = []string{"x"} })), "x:B/online/stays g:C/online/failover"},
		{"softly, the other way round", cluster("aBC", with(group("x", "B"), func(g *Group) { g.Spec.KeepApartSoft = []string{"g"} }), group("g", "A", "A")), "x:B/online/stays g:C/online/failover"},
		{"a spare only when no primary is left", spare("C", cluster("aBC", group("g", "A", "A"))), "g:B/online/failover"},
		{"a spare", spare("C", cluster("abC", group("g", "A", "A"))), "g:C/online/failover"},
		{"a witness never", edit(cluster("aB", group("g", "A")), func(in *Input) { in.Nodes[1].Spec.Role = spec.RoleWitness }), "g:/offline/no_node"},
		{"a paused node keeps what it has and gets nothing", paused(cluster("aBC", group("g", "A"), group("h", "B")), "B", false), "g:C/online/failover h:B/online/stays"},
		{"a quarantined node keeps what it has and gets nothing", edit(cluster("aBC", group("g", "A", "A", "B"), group("h", "B")), func(in *Input) { in.Nodes[1].Quarantined = true }), "g:C/online/failover h:B/online/stays"},
		{"moved from a drained node to one that is drained as well: to another one", paused(paused(cluster("ABC", with(group("g", "B"), func(g *Group) { g.Move, g.MoveTo = true, "A" })), "B", true), "A", true), "g:C/online/drain"},
		{"and where there is no other one, it stays", paused(paused(cluster("ABc", with(group("g", "B"), func(g *Group) { g.Move, g.MoveTo = true, "A" })), "B", true), "A", true), "g:B/online/stays"},
		{"a drained node gives it away", paused(cluster("ABC", group("g", "B")), "B", true), "g:A/online/drain"},
		{"unless there is nowhere to go", paused(cluster("aBc", group("g", "B")), "B", true), "g:B/online/stays"},
		{"room decides", capacity(cluster("aBC", demand("x", "B", 2000, 3), demand("g", "A", 2000, 2)), 4), "x:B/online/stays g:C/online/failover"},
		{"no room", capacity(cluster("aB", demand("x", "B", 2000, 3), demand("g", "A", 2000, 2)), 4), "x:B/online/stays g:/offline/no_room"},
		{"the lowest is shed", capacity(cluster("aB", demand("low", "B", 1000, 2), demand("mid", "B", 2000, 2), demand("high", "A", 3000, 2)), 4), "low:/offline/shed mid:B/online/stays high:B/online/failover"},
		{"the shed one goes elsewhere", capacity(cluster("aBC", demand("low", "B", 1000, 3), edit(demand("high", "A", 3000, 4), func(g *Group) { g.Spec.PossibleOwners = []string{"A", "B"} })), 4), "low:C/online/shed high:B/online/failover"},
		{"a dependency counts as much as its dependents", capacity(cluster("AB",
			edit(demand("low", "", 1000, 3), func(*Group) {}),
			edit(demand("mid", "", 2000, 3), func(g *Group) { g.Spec.PossibleOwners = []string{"A"} }),
			edit(demand("high", "", 3000, 3), func(g *Group) { g.Spec.DependsOn, g.Spec.PossibleOwners = []string{"low"}, []string{"B"} })), 4),
			"low:A/online/first_start mid:/offline/no_room high:B/online/first_start"},
	} {
		if got := text(Settle(c.in)); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

func text(out []Outcome) string {
	var parts []string
	for _, o := range out {
		parts = append(parts, fmt.Sprintf("%s:%s/%s/%s", o.Group, o.To, o.State, o.Why))
	}
	return strings.Join(parts, " ")
}

func spare(name string, in Input) Input {
	for i := range in.Nodes {
		in.Nodes[i].Spec.Spare = in.Nodes[i].Spec.Name == name
	}
	return in
}

func paused(in Input, name string, drained bool) Input {
	for i := range in.Nodes {
		if in.Nodes[i].Spec.Name == name {
			in.Nodes[i].Paused, in.Nodes[i].Drained = true, drained
		}
	}
	return in
}

func capacity(in Input, cpu int64) Input {
	for i := range in.Nodes {
		in.Nodes[i].Spec.Capacity = map[string]int64{"cpu": cpu}
	}
	return in
}

func demand(name, owner string, priority int, cpu int64) Group {
	g := group(name, owner)
	g.Spec.Priority, g.Spec.Demand = priority, map[string]int64{"cpu": cpu}
	return g
}

// A large demand doesn't overflow.
func TestRoomOfLargeNumbers(t *testing.T) {
	in := capacity(cluster("AB", demand("x", "A", 2000, 1), demand("g", "", 2000, 1<<62)), 1<<62+1<<61)
	if to, _ := Choose(in, "g", WhyFirstStart); to != "B" {
		t.Errorf("chose %q", to)
	}
}

// draw makes any cluster, with groups in any condition.
func draw(t *rapid.T) Input {
	n, k := rapid.IntRange(1, 6).Draw(t, "nodes"), rapid.IntRange(0, 7).Draw(t, "groups")
	var in Input
	var nodes, groups []string
	for i := range n {
		nodes = append(nodes, string(rune('A'+i)))
	}
	for i := range k {
		groups = append(groups, fmt.Sprint("g", i))
	}
	flag := func(label string, oneIn int) bool { return rapid.IntRange(0, oneIn-1).Draw(t, label) == 0 }
	some := func(label string, from []string) []string {
		if len(from) == 0 || !flag(label+"?", 3) {
			return nil
		}
		list := rapid.SliceOfNDistinct(rapid.SampledFrom(from), 1, len(from), rapid.ID[string]).Draw(t, label)
		return list
	}
	for _, name := range nodes {
		node := Node{Spec: spec.Node{Name: name, Role: spec.RoleMember, Addr: addr.Node(name, addr.NoKey), Spare: flag("spare", 5)}, Up: !flag("down", 4), Paused: flag("paused", 6), Quarantined: flag("quarantined", 8)}
		node.Drained = node.Paused && flag("drained", 2)
		if flag("witness", 8) {
			node.Spec.Role = spec.RoleWitness
		}
		if !flag("boundless", 3) {
			node.Spec.Capacity = map[string]int64{"cpu": int64(rapid.IntRange(0, 10).Draw(t, "cpu"))}
		}
		in.Nodes = append(in.Nodes, node)
	}
	for i, name := range groups {
		g := group(name, "", some("preferred", nodes)...)
		g.Spec.PossibleOwners = some("possible", nodes)
		if g.Spec.PossibleOwners != nil { // preferred are possible: a rule of the language
			g.Spec.PreferredOwners = slices.DeleteFunc(g.Spec.PreferredOwners, func(p string) bool { return !slices.Contains(g.Spec.PossibleOwners, p) })
		}
		g.Spec.Priority = rapid.SampledFrom([]int{0, 1000, 2000, 3000}).Draw(t, "priority")
		g.Spec.DependsOn = some("depends", groups[:i])
		g.Spec.KeepApart, g.Spec.KeepApartSoft = some("apart", groups[:i]), some("soft", groups[:i])
		g.Spec.Failover.Mode = rapid.SampledFrom([]string{"", spec.FailoverAutomatic, spec.FailoverManual, spec.FailoverNone}).Draw(t, "mode")
		if !flag("modest", 3) {
			g.Spec.Demand = map[string]int64{"cpu": int64(rapid.IntRange(0, 6).Draw(t, "demand"))}
		}
		if !flag("unowned", 3) {
			g.Owner = rapid.SampledFrom(nodes).Draw(t, "owner")
		}
		g.Failed, g.Move, g.Failback, g.LeftFailed = flag("failed", 6), flag("move", 6), flag("failback", 4), flag("left", 10)
		if flag("offline", 6) {
			g.Want = spec.WantOffline
		}
		in.Groups = append(in.Groups, g)
	}
	return in
}

func TestSettleProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		out := Settle(in)
		if again := Settle(in); !slices.Equal(out, again) {
			t.Fatalf("two answers: %v and %v", out, again)
		}
		nodes := map[string]Node{}
		for _, n := range in.Nodes {
			nodes[n.Spec.Name] = n
		}
		used, at := map[string]int64{}, map[string]string{}
		moved := map[string]bool{}
		for i, o := range out {
			g := in.Groups[i]
			at[o.Group] = o.To
			if o.To == "" {
				if o.State == spec.StateOnline {
					t.Fatalf("online nowhere: %+v", o)
				}
				continue
			}
			n := nodes[o.To]
			used[o.To] += g.Spec.Demand["cpu"]
			if !n.Up {
				t.Fatalf("on a node that is down: %+v", o)
			}
			if o.To != g.Owner {
				moved[o.To] = true
				if n.Paused || n.Drained || n.Quarantined || !g.Spec.MayOwn(n.Spec) {
					t.Fatalf("sent to a node that takes nothing: %+v %+v", o, n)
				}
			}
			if o.Why == "" || o.State == "" {
				t.Fatalf("unexplained: %+v", o)
			}
		}
		for name := range moved { // nothing is sent where there is no room for it
			if c, ok := nodes[name].Spec.Capacity["cpu"]; ok && used[name] > c {
				before := int64(0)
				for i, o := range out {
					if o.To == name && in.Groups[i].Owner == name {
						before += in.Groups[i].Spec.Demand["cpu"]
					}
				}
				if used[name] > before { // what came asks for something
					t.Fatalf("node %s holds %d of %d: %v", name, used[name], c, out)
				}
			}
		}
		for i, o := range out {
			for _, other := range in.Groups[i].Spec.KeepApart {
				if o.To != "" && at[other] == o.To {
					j := slices.IndexFunc(in.Groups, func(g Group) bool { return g.Spec.Name == other })
					if o.To != o.From || out[j].To != out[j].From {
						t.Fatalf("brought together though kept apart: %+v and %s", o, other)
					}
				}
			}
		}
		// At rest: the same question about the answer changes nothing.
		rest := in
		rest.Groups = slices.Clone(in.Groups)
		for i, o := range out {
			g := &rest.Groups[i]
			if o.To != "" {
				g.Owner = o.To
			} else if o.Why == WhyShed { // it has let go of its place
				g.Owner, g.Last = "", g.Owner
			}
			if o.State == spec.StateOnline {
				g.Failed = false
			}
			g.Move, g.Failback = false, false
		}
		for i, o := range Settle(rest) {
			if o.To != out[i].To && out[i].To != "" && !drained(in) {
				t.Fatalf("not at rest: %+v, then %+v\n%v", out[i], o, out)
			}
		}
		// More nodes down is the same question.
		if len(in.Nodes) > 1 {
			name := in.Nodes[0].Spec.Name
			less := in
			less.Nodes = slices.Clone(in.Nodes)
			less.Nodes[0].Up = false
			if a, b := Compile(in).Settle(name), Settle(less); !slices.Equal(a, b) {
				t.Fatalf("without %s: %v and %v", name, a, b)
			}
		}
	})
}

// drained nodes may give away more once room was made elsewhere.
func drained(in Input) bool {
	return slices.ContainsFunc(in.Nodes, func(n Node) bool { return n.Drained })
}

// A failure matrix of 64 nodes and 500 groups asks some 2,000 times.
func BenchmarkMatrixRow(b *testing.B) {
	var in Input
	for i := range 64 {
		name := fmt.Sprintf("n%02d", i)
		in.Nodes = append(in.Nodes, Node{Up: true, Spec: spec.Node{Name: name, Role: spec.RoleMember, Capacity: map[string]int64{"cpu": 20}}})
	}
	for i := range 500 {
		g := demand(fmt.Sprint("g", i), fmt.Sprintf("n%02d", i%64), 2000, 1)
		g.Spec.PreferredOwners = []string{g.Owner, fmt.Sprintf("n%02d", (i+1)%64)}
		in.Groups = append(in.Groups, g)
	}
	board := Compile(in)
	b.ReportAllocs()
	for b.Loop() {
		board.Settle("n03", "n40")
	}
}
