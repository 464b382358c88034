package apply_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/graph"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/planner/plannertest"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
)

// anew gives nodes of threeNodes other addresses, for which plannertest makes them
// anew.
func anew(src string, names ...string) string {
	for i, n := range names {
		src = strings.Replace(src, fmt.Sprintf("node %q { provider = local }", n), fmt.Sprintf("node %q {\n  provider = local\n  address = \"127.0.0.%d\"\n}", n, 21+i), 1)
	}
	return src
}

// A node that is made anew joins under a name of its own before the old one is
// drained and leaves, and gets its name after that. The plan tells of it as one
// change, with the votes of each step.
func TestJoinBeforeLeave(t *testing.T) {
	l := newLab(t)
	l.must(l.load(threeNodes+twoGroups), "")
	n2 := addr.Node("n2", addr.NoKey)
	old := l.state.Find(n2).ID
	gone := n2.Depose(old)
	def := l.load(anew(threeNodes+twoGroups, "n2"))
	p := l.plan(def, "")
	if p.Errored || p.Summary.Replace != 1 || p.Summary.Create+p.Summary.Update+p.Summary.Delete != 0 {
		t.Fatalf("%+v, %v", p.Summary, p.Diagnostics)
	}
	var steps []string
	for _, s := range p.Steps {
		steps = append(steps, fmt.Sprintf("%s %s %d/%d", s.Address, s.Phase, s.Up, s.Needed))
	}
	want := []string{
		"node.n2 install 3/2", "node.n2 start 3/2", "node.n2 join 3/2", "node.n2 promote 3/2",
		gone.String() + " drain 4/3", gone.String() + " leave 3/2", gone.String() + " stop 3/2", gone.String() + " remove 3/2",
		"node.n2 update 3/2",
	}
	if !slices.Equal(steps, want) {
		t.Errorf("the steps:\n%s\nwant:\n%s", strings.Join(steps, "\n"), strings.Join(want, "\n"))
	}
	if i := slices.IndexFunc(p.Changes, func(c planner.Change) bool { return c.Action() != "no-op" }); !slices.Equal(p.Changes[i].Actions, planner.ActionCreateThenDelete) || p.Changes[i].Address != n2 {
		t.Errorf("the change is %v of %s", p.Changes[i].Actions, p.Changes[i].Address)
	} else {
		var unknown []string
		for _, a := range p.Changes[i].Attributes {
			if a.Before != cty.NilVal && !a.After.IsKnown() && a.Cause == planner.CauseDefinition {
				unknown = append(unknown, a.Path)
			}
		}
		if !slices.Equal(unknown, []string{"endpoint", "server_id"}) {
			t.Errorf("known after the apply: %q of %+v", unknown, p.Changes[i].Attributes)
		}
	}

	named := ""
	l.world.Calls = nil
	l.world.FailAfter = func(c plannertest.Call) error {
		if c.Phase == providers.PhasePromote {
			named = l.world.Members[c.ID].Spec.Name
		}
		return nil
	}
	res := l.must(def, "")
	l.settled(def)
	id := l.state.Find(n2).ID
	if id == old || l.state.Find(gone) != nil || l.world.Members[old] != nil || l.world.Hosts[old] != nil {
		t.Errorf("the old node %s is there still", old)
	}
	if got := l.world.Members[id].Spec.Name; named != "n2-"+id || got != "n2" {
		t.Errorf("it joined as %q and is called %q", named, got)
	}
	if res.Done.Replace != 1 || res.Done.Create+res.Done.Delete+res.Done.Update != 0 {
		t.Errorf("done: %+v", res.Done)
	}
	for _, o := range l.state.Objects {
		if slices.ContainsFunc(o.DependsOn, func(a addr.Address) bool { return a.Deposed() != "" }) {
			t.Errorf("%s depends on %v", o.Addr, o.DependsOn)
		}
	}
}

// A successor that does not come up costs nothing: the old node stays, and the
// next apply goes on with the same one.
func TestSuccessorFails(t *testing.T) {
	for _, phase := range []string{providers.PhaseInstall, providers.PhaseStart, providers.PhaseJoin, providers.PhasePromote} {
		l := newLab(t)
		l.must(l.load(threeNodes+twoGroups), "")
		n2 := addr.Node("n2", addr.NoKey)
		old := l.state.Find(n2).ID
		def := l.load(anew(threeNodes+twoGroups, "n2"))
		l.world.Fail = func(c plannertest.Call) error {
			if c.Phase == phase && c.Addr == n2 {
				return fmt.Errorf("no luck")
			}
			return nil
		}
		res, _, err := l.apply(def, "")
		if err != nil || len(res.Failed) != 1 {
			t.Fatalf("%s: %v, %+v", phase, err, res.Failed)
		}
		if m := l.world.Members[old]; m == nil || m.Drain || !l.world.Hosts[old].Running || m.Spec.Name != "n2" {
			t.Fatalf("%s: the old node is not as it was: %+v", phase, m)
		}
		l.world.Fail = nil
		l.must(def, "")
		l.settled(def)
		if len(l.world.Hosts) != 3 || len(l.world.Members) != 3 || l.world.Members[old] != nil {
			t.Fatalf("%s: %d hosts, %d members", phase, len(l.world.Hosts), len(l.world.Members))
		}
	}
}

// The definition is put back while a node is half replaced: what is there is one
// node of the name in the end, whatever the apply was cut off at.
func TestGivenUpReplacement(t *testing.T) {
	first, second := threeNodes+twoGroups, anew(threeNodes+twoGroups, "n2")
	for k := 1; ; k++ {
		l := newLab(t)
		def := l.load(first)
		l.must(def, "")
		l.journal.killAt, l.journal.after = k, true
		if _, _, err := l.apply(l.load(second), ""); err == nil {
			return
		}
		l.journal.dead.Store(false)
		l.journal.killAt = 0
		def = l.load(first)
		l.must(def, "")
		l.settled(def)
		if len(l.world.Hosts) != 3 || len(l.world.Members) != 3 {
			t.Fatalf("killed at %d: %d hosts, %d members", k, len(l.world.Hosts), len(l.world.Members))
		}
	}
}

// Where both would listen at the same place, the old one leaves first, and the
// plan says why.
func TestLeaveFirstAtOnePlace(t *testing.T) {
	l := newLab(t)
	l.must(l.load(threeNodes), "")
	l.world.Endpoint = func(cty.Value) string { return "127.0.0.1:1" }
	def := l.load(anew(threeNodes, "n2"))
	p := l.plan(def, "")
	i := slices.IndexFunc(p.Changes, func(c planner.Change) bool { return c.Action() == "replace" })
	if i < 0 || !slices.Equal(p.Changes[i].Actions, planner.ActionDeleteThenCreate) || !slices.ContainsFunc(p.Changes[i].Why, func(w string) bool { return strings.Contains(w, "both would listen on 127.0.0.1:1") }) {
		t.Fatalf("%+v", p.Changes)
	}
	if p.Steps[0].Phase != providers.PhaseDrain {
		t.Errorf("it begins with %s %s", p.Steps[0].Address, p.Steps[0].Phase)
	}
	l.must(def, "")
	l.settled(def)
}

// An apply that makes a node anew is cut off anywhere, and the next one has more
// to do to the new node: it is rolled as well, made anew again, or moved. The plan
// always has an order, and in the end there is one node of the name.
func TestSuccessorChangesHalfway(t *testing.T) {
	first := threeNodes + twoGroups
	second := anew(first, "n2")
	downed := func(l *lab, old string) {
		if h := l.world.Hosts[old]; h != nil {
			h.Running = false
		}
	}
	for _, c := range []struct {
		name, src string
		dead      bool // the old node's host, from the beginning
		then      func(l *lab, old string)
	}{
		{"another place", strings.Replace(second, "127.0.0.21", "127.0.0.31", 1), true, nil},
		{"back", first, true, nil},
		{"another program, and the old one fails", second, false, func(l *lab, old string) { l.world.Program = "p2"; downed(l, old) }},
		{"no vote any more", strings.Replace(second, `address = "127.0.0.21"`, "address = \"127.0.0.21\"\n  votes = 0", 1), false, nil},
		{"another address, the same name", strings.NewReplacer(`node "n2" {`, "node \"m2\" {\n  name = \"n2\"", "node.n2", "node.m2").Replace(second) + "moved {\n  from = node.n2\n  to = node.m2\n}\n", false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			for k := 2; ; k++ { // the first write is the beginning
				l := newLab(t)
				l.must(l.load(first), "")
				old := l.state.Find(addr.Node("n2", addr.NoKey)).ID
				if c.dead {
					downed(l, old)
				}
				l.conf = func(c *apply.Config) { c.Parallelism = 1 }
				l.journal.killAt, l.journal.after = k, true
				if _, _, err := l.apply(l.load(second), ""); err == nil {
					return
				}
				l.journal.dead.Store(false)
				l.journal.killAt = 0
				if c.then != nil {
					c.then(l, old)
				}
				def := l.load(c.src)
				if p := l.plan(def, ""); p.Errored {
					t.Fatalf("killed at %d: %v", k, p.Diagnostics)
				}
				l.must(def, "")
				l.settled(def)
				named := 0
				for _, m := range l.world.Members {
					if m.Spec.Name == "n2" {
						named++
					}
				}
				if len(l.world.Hosts) != 3 || len(l.world.Members) != 3 || named != 1 || l.world.Members[old] != nil {
					t.Fatalf("killed at %d: %d hosts, %d members, %d called n2", k, len(l.world.Hosts), len(l.world.Members), named)
				}
			}
		})
	}
}

// What was to take a node's place is itself to be elsewhere before it had joined, and
// that apply is cut off as well, anywhere: nothing that is there is forgotten.
func TestSuccessorMadeAnewIsCutOff(t *testing.T) {
	first := threeNodes + twoGroups
	second := anew(first, "n2")
	third := strings.Replace(second, "127.0.0.21", "127.0.0.31", 1)
	for k := 2; k < 6; k++ { // the first write is the beginning
		for at := 2; ; at++ {
			l := newLab(t)
			l.conf = func(c *apply.Config) { c.Parallelism = 1 }
			l.must(l.load(first), "")
			cut := func(src string, at int) bool {
				l.journal.killAt, l.journal.after = l.journal.appends+at, true
				_, p, err := l.apply(l.load(src), "")
				l.journal.dead.Store(false)
				l.journal.killAt = 0
				if p.Errored {
					t.Fatal(p.Diagnostics)
				}
				return err != nil
			}
			cut(second, k)
			if !cut(third, at) {
				break
			}
			state, _ := l.current()
			for id := range l.world.Members {
				if !slices.ContainsFunc(state.Objects, func(o statefile.Object) bool { return o.ID == id }) {
					t.Fatalf("killed at %d, then at %d: node %s is in no state", k, at, id)
				}
			}
		}
	}
}

// A part that takes a half made node along takes along whose place it takes: else
// the two would have one name in the cluster.
func TestTargetTakesDeposed(t *testing.T) {
	first := threeNodes + webOnly
	second := anew(first, "n2")
	for k := 2; ; k++ { // the first write is the beginning
		for _, part := range []func(*planner.Input){
			func(in *planner.Input) { in.Targets = addrs(t, "group.web") },
			func(in *planner.Input) { in.Targets = addrs(t, "node.n2") },
			func(in *planner.Input) { in.Excludes = addrs(t, "node.n3") },
			func(in *planner.Input) { in.Excludes = addrs(t, "node.n2") },
		} {
			l := newLab(t)
			l.must(l.load(first), "")
			l.conf = func(c *apply.Config) { c.Parallelism = 1 }
			l.journal.killAt, l.journal.after = k, true
			if _, _, err := l.apply(l.load(second), ""); err == nil {
				return
			}
			l.journal.dead.Store(false)
			l.journal.killAt = 0
			def := l.load(second)
			p, diags := l.part(def, part)
			if diags.HasErrors() {
				t.Fatalf("killed at %d: %v", k, diags)
			}
			if p.Applyable {
				l.planned = p
				l.must(def, "")
			}
			l.must(l.load(second), "")
			l.settled(l.load(second))
		}
	}
}

// The definition is put back after an apply that was cut off anywhere, with the address
// and port that the old node has still: it stays, has its address again, and what was to
// take its place goes. Then the definition goes there once more, and back.
func TestPutBackToATakenPlace(t *testing.T) {
	first, second := threeNodes+twoGroups, anew(threeNodes+twoGroups, "n2")
	n2, stayed, ahead := addr.Node("n2", addr.NoKey), 0, false
	for k := 2; ; k++ { // the first write is the beginning
		l := newLab(t)
		l.ahead = ahead
		l.conf = func(c *apply.Config) { c.Parallelism = 1 }
		l.world.Endpoint = func(v cty.Value) string {
			if a := v.GetAttr("address"); !a.IsNull() {
				return a.AsString() + ":1"
			}
			return "127.0.0.1:" + v.GetAttr("name").AsString()
		}
		l.must(l.load(first), "")
		old := l.state.Find(n2).ID
		cut := func(src string, at int) bool {
			l.journal.killAt, l.journal.after = l.journal.appends+at, true
			_, p, err := l.apply(l.load(src), "")
			l.journal.dead.Store(false)
			l.journal.killAt = 0
			if p.Errored {
				t.Fatalf("killed at %d, then at %d: %v", k, at, p.Diagnostics)
			}
			return err != nil
		}
		if !cut(second, k) && ahead {
			break
		} else if l.journal.appends == 0 { // it came to its end
			k, ahead = 1, true
			continue
		}
		member := l.world.Members[old] != nil
		def := l.load(first)
		p := l.plan(def, "")
		if p.Errored {
			t.Fatalf("killed at %d: %v", k, p.Diagnostics)
		}
		if i := slices.IndexFunc(p.Changes, func(c planner.Change) bool { return c.Address.Deposed() != "" }); i >= 0 && member && !strings.Contains(fmt.Sprint(p.Changes[i].Why), "in the place of node.n2, which has the address and port again") {
			t.Errorf("killed at %d: %s %v", k, p.Changes[i].Address, p.Changes[i].Why)
		}
		for at := 2; cut(first, at); at++ { // the way back is cut off as well
			if at > 60 {
				t.Fatalf("killed at %d, the way back has no end", k)
			}
		}
		l.must(def, "")
		l.settled(def)
		is := l.state.Find(n2).ID
		if member && is != old {
			t.Errorf("killed at %d: node.n2 was %s and is %s", k, old, is)
		}
		if is == old {
			stayed++
		}
		check := func(when string) {
			t.Helper()
			if len(l.world.Hosts) != 3 || len(l.world.Members) != 3 || l.world.Members[l.state.Find(n2).ID].Spec.Name != "n2" {
				t.Fatalf("killed at %d, %s: %d hosts, members %v", k, when, len(l.world.Hosts), l.world.Members)
			}
		}
		check("back")
		cut(second, k)
		cut(first, 3)
		def = l.load(second)
		l.must(def, "")
		l.settled(def)
		check("there, back and there")
	}
	if stayed < 5 {
		t.Errorf("the old node stayed %d times", stayed)
	}
}

// The last step of a node that is made anew, its name, comes when the plan says:
// once whoever was taken out with the one before it is back, and its vote with it.
func TestNameWaitsForItsBatch(t *testing.T) {
	six := strings.Replace(threeNodes, "majority_node_set\" }", "majority_node_set\" }\n  max_unavailable = 2", 1) + `
node "n4" { provider = local }
node "n5" { provider = local }
node "n6" { provider = local }
`
	l := newLab(t)
	l.must(l.load(six), "")
	l.world.Program = "p2"
	p := l.plan(l.load(anew(six, "n4")), "")
	name := planner.Key{Addr: addr.Node("n4", addr.NoKey), Stage: planner.StageName}
	before := p.Work().Graph.AllDependencies(graph.Soft, name)
	stops := 0
	for _, s := range p.Steps {
		if s.Address == name.Addr && s.Phase == providers.PhaseUpdate {
			break
		}
		if s.Phase != providers.PhaseStop {
			continue
		}
		stops++
		if !slices.ContainsFunc(before, func(k planner.Key) bool { return k.Addr == s.Address }) {
			t.Errorf("%s is out before it in the plan, and it does not wait for that", s.Address)
		}
	}
	if stops < 2 {
		t.Errorf("only %d nodes are out before it: that shows nothing", stops)
	}
}
