package apply_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/plannertest"
	"github.com/clusterplan/clusterplan/planner/refresh"
)

// A node that is made again gets an endpoint that nobody knows yet: what
// refers to the old one changes with it, in the plan already.
func TestEndpointOfANodeThatIsMadeAgain(t *testing.T) {
	const src = threeNodes + `
group "web" {
  preferred_owners = [node.n2]
  resource "generic_application" "app" { command = ["serve", node.n1.endpoint] }
}
group "other" {
  preferred_owners = [node.n1]
  resource "generic_application" "app" { command = ["true"] }
}
`
	l := newLab(t)
	l.must(l.load(src), "")
	def := l.load(src)
	l.settled(def)
	if later := l.plan(def, "").Known(def, l.known()); later != nil {
		t.Fatal("with nothing to do, there is nothing to plan again")
	}
	n1, _ := l.current()
	delete(l.world.Hosts, n1.Find(addr.Node("n1", addr.NoKey)).ID)

	state, pending := l.current()
	cfg := refresh.Config{State: state, Pending: pending, Providers: l.world.Registry(), Definition: def}
	world, err := refresh.Run(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	in := planner.Input{Definition: def, State: state, Pending: pending, World: world, Providers: l.world.Registry()}
	p, _ := planner.Build(in)
	later := p.Known(def, l.known())
	if later == nil {
		t.Fatal("n1 gets another endpoint, and nothing has to be planned again")
	}
	in.Definition = l.loadWith(src, later)
	cfg.Definition = in.Definition
	if err := refresh.Again(context.Background(), cfg, in.World); err != nil {
		t.Fatal(err)
	}
	p, diags := planner.Build(in)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	actions := map[string]string{}
	for _, c := range p.Changes {
		if c.Action() != "no-op" {
			actions[c.Address.String()] = c.Action()
		}
		if c.Address.String() == "group.web.resource.app" {
			if len(c.Attributes) != 1 || c.Attributes[0].Path != "command[1]" || c.Attributes[0].After.IsKnown() {
				t.Errorf("the group's resource changes in %v", paths(c))
			}
		}
	}
	if len(actions) != 2 || actions["node.n1"] != "create" || actions["group.web.resource.app"] != "update" {
		t.Errorf("the plan does %v", actions)
	}
	l.planned = p
	l.must(in.Definition, "")
	l.settled(l.load(src))
}

// What is paused or down already is unavailable: fewer nodes are rolled beside it.
func TestMaxUnavailableCountsPausedNodes(t *testing.T) {
	const src = `
cluster "c" {
  max_unavailable = 2
  quorum { model = "majority_node_set" }
}
node "n" {
  provider = local
  for_each = toset(["1", "2", "3", "4", "5"])
}
`
	for _, c := range []struct{ paused, want string }{
		{"", "3 3 3 3 4"},  // in pairs
		{"2", "3 3 4 4 4"}, // the paused one and another, then one by one
		{"2 3", "3 3 4 4 4"},
	} {
		l := newLab(t)
		l.must(l.load(src), "")
		for _, m := range l.world.Members {
			if _, key, _ := strings.Cut(m.Spec.Addr.String(), `"`); c.paused != "" && strings.Contains(c.paused, key[:1]) {
				m.Paused = plannertest.Order("eve", "disk swap")
			}
		}
		l.world.Program = "p2"
		var stops []string
		for _, s := range l.plan(l.load(src), "").Steps {
			if s.Phase == "stop" {
				stops = append(stops, string(rune('0'+s.Up)))
			}
		}
		if got := strings.Join(stops, " "); got != c.want {
			t.Errorf("paused %q: votes up at each stop %s, want %s", c.paused, got, c.want)
		}
	}
}

// An output that asks the running cluster is no change once the state has it,
// whoever owns the group by now; one that nobody could tell is none either.
func TestRuntimeOutputs(t *testing.T) {
	const src = threeNodes + twoGroups + `
output "owner" { value = group.web.owner }
`
	l := newLab(t)
	first := l.plan(l.load(src), "")
	if first.OutputChanges["owner"].Actions[0] != "create" {
		t.Errorf("the first plan has outputs %v", first.OutputChanges)
	}
	l.must(l.load(src), "")
	if got := string(l.state.Outputs["owner"].Value); got != `"n1"` && got != `"n2"` && got != `"n3"` {
		t.Errorf("after the apply the owner is %s", got)
	}
	quiet := func(when string) {
		t.Helper()
		p := l.plan(l.load(src), "")
		var out struct {
			Applyable     bool                       `json:"applyable"`
			OutputChanges map[string]json.RawMessage `json:"output_changes"`
		}
		if err := json.Unmarshal(mustJSON(t, p), &out); err != nil {
			t.Fatal(err)
		}
		if out.Applyable || len(out.OutputChanges) > 0 || p.Summary.Any() {
			t.Errorf("%s: applyable %v, outputs %s, %+v", when, out.Applyable, out.OutputChanges, p.Summary)
		}
	}
	quiet("the second plan")
	for _, g := range l.world.Groups {
		for id := range l.world.Members {
			if g.Owner != id {
				g.Owner = id
				break
			}
		}
	}
	quiet("after a failover")

	state, _ := l.current()
	delete(state.Outputs, "owner")
	p, _ := planner.Build(planner.Input{Definition: l.load(src), State: state, Providers: l.world.Registry()}) // nobody is asked
	if len(p.OutputChanges) > 0 || p.Applyable {
		t.Errorf("with nobody to ask: %v", p.OutputChanges)
	}
}
