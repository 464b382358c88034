package apply_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/plannertest"
	"github.com/clusterplan/clusterplan/planner/refresh"
	"github.com/clusterplan/clusterplan/providers"
)

func TestFirstApplySecondPlanDestroy(t *testing.T) {
	l := newLab(t)
	def := l.load(threeNodes + twoGroups)
	res := l.must(def, "")
	if res.Done.Create != 9 {
		t.Errorf("created %d objects, want 9", res.Done.Create)
	}
	if len(l.world.Members) != 3 || len(l.world.Groups) != 2 {
		t.Fatalf("%d members, %d groups", len(l.world.Members), len(l.world.Groups))
	}
	if string(l.state.Outputs["where"].Value) != `"127.0.0.9"` {
		t.Errorf("output: %s", l.state.Outputs["where"].Value)
	}
	l.settled(def)
	l.world.Ending = true
	l.must(nil, planner.ModeDestroy)
	if len(l.world.Hosts) != 0 || len(l.state.Objects) != 0 || l.state.Cluster != nil || len(l.state.Outputs) != 0 {
		t.Errorf("left: %d hosts, %v", len(l.world.Hosts), l.state.Objects)
	}
}

// A node whose agent does not start loses its own join; the others form the
// cluster, and groups start.
func TestNodeThatNeverStarts(t *testing.T) {
	l := newLab(t)
	def := l.load(threeNodes + twoGroups)
	l.world.Fail = func(c plannertest.Call) error {
		if c.Addr == addr.Node("n2", addr.NoKey) && c.Phase == providers.PhaseStart {
			return errors.New("the port is taken")
		}
		return nil
	}
	res, _, err := l.apply(def, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Failed) != 1 || res.Failed[0].Phase != providers.PhaseStart {
		t.Errorf("failed: %+v", res.Failed)
	}
	if len(res.Skipped) != 1 || res.Skipped[0].Addr.Name != "n2" {
		t.Errorf("skipped: %+v", res.Skipped)
	}
	if len(l.world.Members) != 2 || len(l.world.Groups) != 2 {
		t.Errorf("%d members, %d groups", len(l.world.Members), len(l.world.Groups))
	}
	l.world.Fail = nil
	p := l.plan(def, "")
	if got := actions(p); got != "node.n2 create cut_off" {
		t.Errorf("next plan:\n%s", got)
	}
	l.must(def, "")
	l.settled(def)
}

// Nodes that vote join one after the other, the others beside each other: what one
// of these waits for keeps no other from its turn.
func TestNodesWithoutVotesJoinTogether(t *testing.T) {
	l := newLab(t)
	def := l.load(strings.Replace(threeNodes, `node "n2" { provider = local }`, "node \"n2\" {\n provider = local\n votes = 0\n}", 1) +
		"node \"n4\" {\n provider = local\n votes = 0\n}\nnode \"n5\" { provider = local }\n")
	g := l.plan(def, "").Work().Graph
	waits := map[string][]string{}
	for _, name := range []string{"n1", "n2", "n3", "n4", "n5"} {
		for dep := range g.Dependencies(planner.Key{Addr: addr.Node(name, addr.NoKey), Stage: planner.StageJoin}) {
			if dep.Stage == planner.StageJoin {
				waits[name] = append(waits[name], dep.Addr.Name)
			}
		}
	}
	if want := map[string][]string{"n2": {"n1"}, "n3": {"n1"}, "n4": {"n3"}, "n5": {"n3"}}; !maps.EqualFunc(waits, want, slices.Equal) {
		t.Errorf("joins wait for joins: %v, want %v", waits, want)
	}
	l.must(def, "")
	l.settled(def)
}

// Too few joins: the groups are not tried, and the reason says so.
func TestNoMajorityJoins(t *testing.T) {
	l := newLab(t)
	def := l.load(threeNodes + twoGroups)
	l.world.Fail = func(c plannertest.Call) error {
		if c.Addr.Name != "n3" && c.Phase == providers.PhaseStart {
			return errors.New("no permission")
		}
		return nil
	}
	res, _, err := l.apply(def, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(l.world.Groups) != 0 {
		t.Errorf("%d groups", len(l.world.Groups))
	}
	var words []string
	for _, f := range res.Failed {
		words = append(words, f.Err.Error())
	}
	if !strings.Contains(strings.Join(words, "; "), "only 1 of 3 voting nodes could join") {
		t.Errorf("failed: %v", words)
	}
	l.world.Fail = nil
	l.must(def, "")
	l.settled(def)
}

func TestDriftAgentsDown(t *testing.T) {
	l := newLab(t)
	def := l.load(threeNodes + twoGroups)
	l.must(def, "")
	down := 0
	for _, h := range l.world.Hosts {
		if down++; down <= 2 {
			h.Running = false
		}
	}
	changed := l.load(threeNodes + strings.Replace(twoGroups, `command = ["true"]`, `command = ["false"]`, 1))
	p := l.plan(changed, "")
	if p.Complete || p.AsOf == nil || !strings.Contains(p.AsOf.Text, "no quorum") || len(p.Drift) != 2 {
		t.Errorf("complete %v, as of %+v, drift %+v", p.Complete, p.AsOf, p.Drift)
	}
	l.world.Calls = nil
	l.must(changed, "")
	if calls := l.calls(); !strings.HasPrefix(calls, "node.n") || !strings.HasSuffix(calls, "group.worker") {
		t.Errorf("agents first, then groups:\n%s", calls)
	}
	l.settled(changed)
}

// All agents down: nothing of the database can be read; apply starts them.
func TestEveryAgentDown(t *testing.T) {
	l := newLab(t)
	def := l.load(threeNodes + twoGroups)
	l.must(def, "")
	for _, h := range l.world.Hosts {
		h.Running = false
	}
	p := l.plan(def, "")
	if p.Complete || len(p.Unreachable) != 3 {
		t.Errorf("unreachable: %+v", p.Unreachable)
	}
	if got := actions(p); got != "node.n1 update drifted\nnode.n2 update drifted\nnode.n3 update drifted" {
		t.Errorf("plan:\n%s", got)
	}
	l.must(def, "")
	l.settled(def)
	// A destroy works on a dead cluster as well.
	for _, h := range l.world.Hosts {
		h.Running = false
	}
	l.world.Ending = true
	l.must(nil, planner.ModeDestroy)
	if len(l.world.Hosts) != 0 || len(l.state.Objects) != 0 {
		t.Errorf("left: %v", l.state.Objects)
	}
}

// A resource that someone put into one of our groups is in no definition and
// no state. The next change of its group would take it away: so the plan says so.
func TestResourceThatNobodyKnows(t *testing.T) {
	l := newLab(t)
	def := l.load(threeNodes + twoGroups)
	l.must(def, "")
	for _, g := range l.world.Groups {
		if g.Addr.Name == "worker" {
			r := g.Resources[0]
			r.ID, r.Addr = "00000000000000aa", g.Addr.WithResource("extra", addr.NoKey)
			g.Resources = append(g.Resources, r)
		}
	}
	if got := actions(l.plan(def, "")); got != "group.worker.resource.extra delete not_in_definition" {
		t.Errorf("plan:\n%s", got)
	}
	l.must(def, "")
	l.settled(def)
	for _, g := range l.world.Groups {
		if g.Addr.Name == "worker" && len(g.Resources) != 1 {
			t.Errorf("left: %v", g.Resources)
		}
	}
}

// prevent_destroy holds once it was applied, though nothing else changed with
// it, and also where the block is gone.
func TestPreventDestroyAlone(t *testing.T) {
	const group = `
group "keep" {
  lifecycle { prevent_destroy = true }
  resource "generic_application" "app" { command = ["true"] }
}`
	l := newLab(t)
	l.must(l.load(threeNodes+strings.Replace(group, "true }\n  resource", "false }\n  resource", 1)), "")
	def := l.load(threeNodes + group)
	if p := l.plan(def, ""); !p.Applyable || p.Summary.Any() {
		t.Errorf("applyable %v: %s", p.Applyable, actions(p))
	}
	l.must(def, "")
	l.settled(def)
	if p := l.plan(l.load(threeNodes), ""); !p.Errored {
		t.Errorf("the plan destroys it:\n%s", actions(p))
	}
	// A block that is there says so itself, whatever was applied last.
	moved := strings.Replace(threeNodes, `node "n1" { provider = local }`, "node \"n1\" {\n  provider = local\n  zone     = \"z\"\n}", 1)
	triggered := strings.Replace(moved+group, "prevent_destroy = true", "\n    replace_triggered_by = [node.n1.zone]\n    prevent_destroy = true\n ", 1)
	if p := l.plan(l.load(triggered), ""); !p.Errored {
		t.Errorf("the plan replaces it:\n%s", actions(p))
	}
	if p := l.plan(l.load(strings.Replace(triggered, "prevent_destroy = true", "", 1)), ""); p.Errored || !strings.Contains(actions(p), "group.keep replace") {
		t.Errorf("prevent_destroy was taken out: %v\n%s", p.Diagnostics, actions(p))
	}
}

// Agents that run and answer nobody, as many as there may be: they are ended
// and started, and the plan doesn't count their votes as up.
func TestHungAgents(t *testing.T) {
	for hung := 1; hung <= 3; hung++ {
		l := newLab(t)
		def := l.load(threeNodes + twoGroups)
		l.must(def, "")
		for i, id := range slices.Sorted(maps.Keys(l.world.Hosts)) {
			l.world.Hosts[id].Hung = i < hung
		}
		p := l.plan(def, "")
		if p.Errored || p.Summary.Update != hung || p.Quorum.Lowest != 3-hung {
			t.Errorf("%d hung: %v, quorum %+v", hung, p.Diagnostics, p.Quorum)
		}
		for _, s := range p.Steps {
			if s.Phase == providers.PhaseStop && s.Up >= 3 {
				t.Errorf("%d hung: all votes are up during %+v", hung, s)
			}
		}
		l.must(def, "")
		l.settled(def)
	}
}

// An agent that was only slow, and has the cluster commit again by the time
// that it would be ended, is not ended: that would take the quorum away.
func TestSlowAgentKeepsItsVote(t *testing.T) {
	l := newLab(t)
	def := l.load(threeNodes)
	l.must(def, "")
	ids := slices.Sorted(maps.Keys(l.world.Hosts))
	for _, id := range ids[1:] {
		l.world.Hosts[id].Hung = true
	}
	l.planned = l.plan(def, "")
	l.world.Hosts[ids[1]].Hung = false
	res, _, err := l.apply(def, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range res.Failed { // unless the third one was faster
		if !errors.Is(f.Err, providers.ErrNoQuorum) {
			t.Errorf("failed: %+v", f)
		}
	}
	l.must(def, "")
	l.settled(def)
}

// A new program: one node at a time, the leader last, never below quorum.
func TestRollingUpgrade(t *testing.T) {
	l := newLab(t)
	def := l.load(threeNodes + twoGroups)
	l.must(def, "")
	for id, m := range l.world.Members {
		if m.Spec.Name == "n1" {
			l.world.Leader = id
		}
	}
	l.world.Program = "p2"
	p := l.plan(def, "")
	var steps []string
	for _, s := range p.Steps {
		steps = append(steps, fmt.Sprintf("%s %s %d/%d", s.Address, s.Phase, s.Up, s.Needed))
	}
	want := []string{}
	for _, n := range []string{"n2", "n3", "n1"} {
		for _, s := range []string{"drain 3/2", "stop 2/2", "install 2/2", "start 2/2", "resume 3/2"} {
			want = append(want, "node."+n+" "+s)
		}
	}
	if !slices.Equal(steps, want) {
		t.Errorf("steps:\n%s", strings.Join(steps, "\n"))
	}
	if p.Quorum.Lowest != 2 || p.Quorum.Lost {
		t.Errorf("quorum: %+v", p.Quorum)
	}
	if len(p.Availability) != 2 {
		t.Errorf("availability: %+v", p.Availability)
	}
	l.must(def, "")
	l.settled(def)
}

// Two nodes: none of them can be taken out. The plan says so, names the step,
// and is not applied; a single step that only adds is never refused.
func TestRefusesToLoseQuorum(t *testing.T) {
	const two = `
cluster "c" {
  quorum { model = "majority_node_set" }
}
node "n1" { provider = local }
node "n2" { provider = local }
`
	l := newLab(t)
	def := l.load(two)
	l.must(def, "")
	for id, m := range l.world.Members {
		if m.Spec.Name == "n2" {
			l.world.Leader = id
		}
	}
	l.world.Program = "p2"
	l.world.Calls = nil
	_, p, err := l.apply(def, "")
	if err == nil || !p.Quorum.Lost || p.Applyable || !p.Errored || p.Quorum.Lowest != 1 {
		t.Fatalf("%v, %+v", err, p.Quorum)
	}
	var refused []string
	for _, s := range p.Steps {
		if s.Refused {
			refused = append(refused, fmt.Sprintf("%s %s %d/%d", s.Address, s.Phase, s.Up, s.Needed))
		}
	}
	if got := strings.Join(refused, ", "); got != "node.n1 stop 1/2, node.n2 stop 1/2" {
		t.Errorf("refused: %s", got)
	}
	if len(l.world.Calls) > 0 {
		t.Errorf("done all the same: %s", l.calls())
	}
	state, pending := l.current()
	world, err := refresh.Run(context.Background(), refresh.Config{State: state, Pending: pending, Providers: l.world.Registry()})
	if err != nil {
		t.Fatal(err)
	}
	in := planner.Input{Definition: def, State: state, World: world, Providers: l.world.Registry(), AllowQuorumLoss: true}
	if allowed, _ := planner.Build(in); !allowed.Applyable || allowed.Quorum.Lost {
		t.Errorf("allowed by the flag: %+v", allowed.Diagnostics)
	}
	l.world.Program = "p1"
	for _, h := range l.world.Hosts {
		h.Running = false
	}
	l.must(l.load(two+`node "n3" { provider = local }`), "")
}

func TestChanges(t *testing.T) {
	for _, c := range []struct{ name, before, after, plan, calls string }{
		{"a resource more", "", strings.Replace(twoGroups, `group "worker"`, `group "new" {
  resource "generic_application" "x" { command = ["x"] }
}
group "worker"`, 1), "group.new create not_in_state\ngroup.new.resource.x create not_in_state", "group.new"},
		{"another preferred owner", "", strings.Replace(twoGroups, "[node.n1, node.n2]", "[node.n2, node.n1]", 1),
			"group.web update changed", "group.web"},
		{"a changed attribute", "", strings.Replace(twoGroups, `["true"]`, `["false"]`, 1),
			"group.web.resource.app update changed", "group.web"},
		{"a group goes", "", strings.Split(twoGroups, `group "worker"`)[0] + `output "where" { value = "127.0.0.9" }`,
			"group.worker delete not_in_definition\ngroup.worker.resource.app delete not_in_definition", "group.worker delete"},
		{"an address changes its group", "", `
group "web" {
  preferred_owners = [node.n1, node.n2]
  resource "generic_application" "app" { command = ["true"] }
}
group "worker" {
  depends_on = [group.web]
  resource "generic_application" "app" { command = ["true"] }
}
group "alone" {
  resource "ip_address" "vip" { address = "127.0.0.9" }
}
output "where" { value = "127.0.0.9" }`,
			"group.alone create not_in_state\ngroup.alone.resource.vip create not_in_state\ngroup.web.resource.app update changed\ngroup.web.resource.vip delete not_in_definition",
			"group.web\ngroup.alone"},
		{"an address goes to a dependent", "", `
group "web" {
  preferred_owners = [node.n1, node.n2]
  resource "generic_application" "app" { command = ["true"] }
}
group "worker" {
  depends_on = [group.web]
  resource "generic_application" "app" { command = ["true"] }
  resource "ip_address" "vip" { address = "127.0.0.9" }
}
output "where" { value = "127.0.0.9" }`,
			"group.web.resource.app update changed\ngroup.web.resource.vip delete not_in_definition\ngroup.worker.resource.vip create not_in_state",
			"group.web\ngroup.worker"},
		{"a fourth node", "", twoGroups + `node "n4" { provider = local }`, "node.n4 create not_in_state",
			"node.n4 install\nnode.n4 start\nnode.n4 join\nnode.n4 promote"},
		{"a node replaced by another", "node.n3", twoGroups + `node "n4" { provider = local }`,
			"node.n3 delete not_in_definition\nnode.n4 create not_in_state",
			"node.n4 install\nnode.n4 start\nnode.n4 join\nnode.n4 promote\nnode.n3 drain\nnode.n3 leave\nnode.n3 stop\nnode.n3 remove"},
		{"a zone", "", twoGroups, "node.n2 update changed", "node.n2 update"},
		{"no vote", "", twoGroups, "node.n2 update changed", "node.n2 demote"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			l.must(l.load(threeNodes+twoGroups), "")
			nodes := threeNodes
			switch c.name {
			case "a zone":
				nodes = strings.Replace(nodes, `"n2" { provider = local }`, "\"n2\" {\n provider = local\n zone = \"z\"\n}", 1)
			case "no vote":
				nodes = strings.Replace(nodes, `"n2" { provider = local }`, "\"n2\" {\n provider = local\n votes = 0\n}", 1)
			}
			if c.before == "node.n3" {
				nodes = strings.Replace(nodes, `node "n3" { provider = local }`, "", 1)
			}
			def := l.load(nodes + c.after)
			l.world.Calls = nil
			p := l.plan(def, "")
			if got := actions(p); got != c.plan {
				t.Errorf("plan:\n%s\nwant:\n%s\n%v", got, c.plan, p.Diagnostics)
			}
			l.must(def, "")
			if got := l.calls(); got != c.calls {
				t.Errorf("calls:\n%s\nwant:\n%s", got, c.calls)
			}
			l.settled(def)
		})
	}
}
