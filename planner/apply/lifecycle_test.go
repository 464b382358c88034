package apply_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/plannertest"
	"github.com/clusterplan/clusterplan/providers"
)

// What ignore_changes names counts at create, and never again: not when the
// definition changes, nor when someone else changes it; the rest does.
func TestIgnoreChanges(t *testing.T) {
	const src = threeNodes + `
group "web" {
  description      = "first"
  preferred_owners = [node.n1, node.n2]
  priority         = 100
  failover { mode = "automatic" }
  lifecycle { ignore_changes = IGNORED }
  resource "generic_application" "app" {
    command     = ["true"]
    environment = { A = "1", B = "2" }
    lifecycle { ignore_changes = [environment["B"], environment["C"]] }
  }
}`
	changed := strings.NewReplacer(`"first"`, `"second"`, "[node.n1, node.n2]", "[node.n3]", "priority         = 100", "priority = 200",
		`mode = "automatic"`, `mode = "manual"`, `{ A = "1", B = "2" }`, `{ A = "9", B = "9", C = "9" }`).Replace(src)
	web := addr.Group("web", addr.NoKey)
	for _, c := range []struct{ name, ignored, plan, paths string }{
		{"nothing", "[]", "group.web update changed\ngroup.web.resource.app update changed",
			`description failover.mode preferred_owners priority`},
		{"some", "[description, failover.mode]", "group.web update changed\ngroup.web.resource.app update changed", "preferred_owners priority"},
		{"a block", "[failover, priority]", "group.web update changed\ngroup.web.resource.app update changed", "description preferred_owners"},
		{"all", "all", "group.web.resource.app update changed", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			l.must(l.load(strings.Replace(src, "IGNORED", c.ignored, 1)), "")
			def := l.load(strings.Replace(changed, "IGNORED", c.ignored, 1))
			p := l.plan(def, "")
			if got := actions(p); got != c.plan {
				t.Errorf("plan:\n%s", got)
			}
			for _, change := range p.Changes {
				var names []string
				for _, a := range change.Attributes {
					names = append(names, a.Path)
				}
				switch got := strings.Join(names, " "); change.Address {
				case web:
					if got != c.paths {
						t.Errorf("the group changes in %s, want %s", got, c.paths)
					}
				case web.WithResource("app", addr.NoKey):
					if got != `environment["A"]` {
						t.Errorf("the resource changes in %s", got)
					}
				}
			}
			// The failure matrix is of what will be, not of what the definition says.
			automatic := slices.ContainsFunc(p.FailureMatrix.After.Rows, func(r planner.MatrixRow) bool { return len(r.Groups) > 0 && r.Groups[0].To != nil })
			if automatic != (c.ignored != "[]") {
				t.Errorf("in the failure matrix the group fails over: %v", automatic)
			}
			l.must(def, "")
			l.settled(def)
			if strings.Contains(c.ignored, "description") {
				for _, g := range l.world.Groups {
					if got := g.Value.GetAttr("description").AsString(); got != "first" {
						t.Errorf("the description is %q", got)
					}
				}
			}
		})
	}
}

// What an apply works out is put back too, and only what is ignored.
func TestIgnoreChangesOfWhatIsUnknown(t *testing.T) {
	const src = threeNodes + `
group "web" {
  resource "generic_application" "app" {
    command     = ["true"]
    environment = { E = "1" }
    lifecycle { ignore_changes = [command] }
  }
}`
	l := newLab(t)
	l.must(l.load(src), "")
	def := l.load(strings.NewReplacer(`["true"]`, `["serve", node.n4.endpoint]`, `{ E = "1" }`, `{ E = node.n4.endpoint }`).Replace(src) + `
node "n4" { provider = local }`)
	l.must(def, "")
	for _, g := range l.world.Groups {
		v := g.Resources[0].Value
		if n := v.GetAttr("command").LengthInt(); n != 1 {
			t.Errorf("the command has %d words", n)
		}
		if e := v.GetAttr("environment").AsValueMap()["E"]; e.AsString() != "127.0.0.1:1" {
			t.Errorf("the environment is %#v", e)
		}
	}
}

// An object is made anew when what its replace_triggered_by names changes, and
// so is what names that one; a creation triggers nothing.
func TestReplaceTriggeredBy(t *testing.T) {
	const src = threeNodes + `
group "web" {
  description = "a"
  resource "generic_application" "app" { command = ["true"] }
}
group "worker" {
  resource "generic_application" "app" {
    command = ["true"]
    lifecycle { replace_triggered_by = [group.web.resource.app, node.n1.zone] }
  }
}
group "last" {
  lifecycle { replace_triggered_by = [group.worker.resource.app] }
  resource "generic_application" "app" { command = ["true"] }
}`
	for _, c := range []struct{ name, old, new, want string }{
		{"nothing that is named", `description = "a"`, `description = "b"`, "group.web update changed"},
		{"a resource", `group "web" {
  description = "a"
  resource "generic_application" "app" { command = ["true"] }`, `group "web" {
  description = "a"
  resource "generic_application" "app" { command = ["false"] }`,
			"group.last replace replace_by_triggers\ngroup.web.resource.app update changed\ngroup.worker.resource.app replace replace_by_triggers"},
		{"an attribute", `node "n1" { provider = local }`, "node \"n1\" {\n  provider = local\n  zone = \"z\"\n}",
			"node.n1 update changed\ngroup.last replace replace_by_triggers\ngroup.worker.resource.app replace replace_by_triggers"},
		{"another attribute", `node "n1" { provider = local }`, "node \"n1\" {\n  provider = local\n  spare = false\n  labels = { a = \"b\" }\n}",
			"node.n1 update changed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			first := l.load(src)
			if p := l.plan(first, ""); p.Summary.Replace > 0 {
				t.Errorf("the first plan:\n%s", actions(p))
			}
			l.must(first, "")
			l.settled(first)
			before := l.idsByAddress()
			def := l.load(strings.Replace(src, c.old, c.new, 1))
			p := l.plan(def, "")
			if got := actions(p); got != c.want {
				t.Errorf("plan:\n%s\nwant:\n%s", got, c.want)
			}
			l.must(def, "")
			l.settled(def)
			for a, id := range l.idsByAddress() {
				anew := slices.ContainsFunc(p.Changes, func(ch planner.Change) bool { return ch.Address.String() == a && ch.Action() == "replace" })
				if anew != (id != before[a]) {
					t.Errorf("%s: made anew %v, id %s, before %s", a, anew, id, before[a])
				}
			}
		})
	}
}

// A group that is made anew is down meanwhile, and so are those that depend on it.
func TestReplacedGroupInterruptsItsDependents(t *testing.T) {
	const src = threeNodes + `
group "cause" {
  resource "generic_application" "app" { command = ["true"] }
}
group "web" {
  preferred_owners = [node.n1]
  resource "generic_application" "app" { command = ["true"] }
  lifecycle { replace_triggered_by = [group.cause.resource.app] }
}
group "worker" {
  depends_on = [group.web]
  resource "generic_application" "app" { command = ["true"] }
}
group "far" {
  depends_on = [group.worker]
  resource "generic_application" "app" { command = ["true"] }
}
group "other" {
  resource "generic_application" "app" { command = ["true"] }
}`
	l := newLab(t)
	l.must(l.load(src), "")
	p := l.plan(l.load(strings.Replace(src, `command = ["true"]`, `command = ["false"]`, 1)), "")
	var got []string
	for _, a := range p.Availability {
		if a.MaxMS <= 0 || a.From == nil || a.To == nil {
			t.Errorf("%s: %+v", a.Group, a)
		}
		got = append(got, fmt.Sprintf("%s %d %s", a.Group, a.Interruptions, a.Why))
	}
	want := []string{
		"group.cause 1 app starts again with its changes",
		"group.far 1 group.web, which it depends on, is made anew",
		"group.web 1 it is made anew",
		"group.worker 1 group.web, which it depends on, is made anew",
	}
	if !slices.Equal(got, want) {
		t.Errorf("interruptions:\n%s", strings.Join(got, "\n"))
	}
}

// The last node with a vote can't leave, not even to come back: the cluster's
// database refuses it, and so does the plan.
func TestTheLastVoteStays(t *testing.T) {
	const src = `
cluster "c" {
  quorum { model = "single_node" }
}
node "n1" {
  provider = local
  lifecycle { replace_triggered_by = [group.web] }
}
group "web" {
  description = "a"
  persistent_state = "offline"
  resource "generic_application" "app" { command = ["true"] }
}`
	l := newLab(t)
	l.must(l.load(src), "")
	p := l.plan(l.load(strings.Replace(src, `"a"`, `"b"`, 1)), "")
	refused := ""
	for _, s := range p.Steps {
		if s.Refused {
			refused += s.Address.String() + " " + s.Phase
		}
	}
	if refused != "node.n1 leave" || p.Applyable || !p.Quorum.Lost {
		t.Errorf("refused %q, applyable %v, quorum %+v, %v", refused, p.Applyable, p.Quorum, p.Diagnostics)
	}
}

// An agent whose data directory was removed below it serves from memory, and is
// another server once it starts again: a roll like any other, of one node at a time,
// unless nobody else has the database.
func TestDataRemovedBelowAgents(t *testing.T) {
	l := newLab(t)
	def := l.load(threeNodes + twoGroups)
	l.must(def, "")
	for _, h := range l.world.Hosts {
		h.Emptied = true
	}
	p := l.plan(def, "")
	if got := len(p.Drift); got != 3 || !p.Applyable || p.Quorum.Lowest != 2 {
		t.Errorf("%d drifted, applyable %v, quorum %+v, %v", got, p.Applyable, p.Quorum, p.Diagnostics)
	}
	var steps []string
	for _, s := range p.Steps {
		if s.Address == addr.Node("n2", addr.NoKey) {
			steps = append(steps, fmt.Sprintf("%s %d/%d", s.Phase, s.Up, s.Needed))
		}
	}
	if want := []string{"drain 3/2", "stop 2/2", "start 2/2", "join 2/2", "promote 2/2", "resume 3/2"}; !slices.Equal(steps, want) {
		t.Errorf("the steps of n2 %q, want %q", steps, want)
	}
	l.world.Calls = nil
	l.must(def, "")
	for _, node := range []string{"n1", "n2", "n3"} {
		want := strings.NewReplacer("N", "node."+node).Replace("N drain\nN stop\nN start\nN join\nN promote\nN resume")
		if calls := l.calls(); !strings.Contains(calls, want) {
			t.Errorf("%s:\n%s", node, calls)
		}
	}
	l.settled(def)

	l = newLab(t)
	def = l.load(oneNode)
	l.must(def, "")
	for _, h := range l.world.Hosts {
		h.Emptied = true
	}
	p = l.plan(def, "")
	if text := diagnostics(p); p.Applyable || !p.Quorum.Lost || !strings.Contains(text, "node.n1: its data directory is gone: the only copy of the cluster's database") {
		t.Errorf("applyable %v, quorum %+v, %s", p.Applyable, p.Quorum, text)
	}
	for _, h := range l.world.Hosts { // nobody has it any more: there is nothing to spare
		h.Running = false
	}
	if p = l.plan(def, ""); !p.Applyable {
		t.Errorf("a node that is down: %s", diagnostics(p))
	}
}

// What agents whose data directories were removed below them have in their memory is
// not ended where too few others have the database, whether they answer or not, and
// whatever is allowed: nobody would elect a leader any more.
func TestCopiesInMemoryAreNotEnded(t *testing.T) {
	var l *lab
	node := func(name string) *plannertest.Host {
		for id, m := range l.world.Members {
			if m.Spec.Name == name {
				return l.world.Hosts[id]
			}
		}
		t.Fatalf("no node %s", name)
		return nil
	}
	for _, c := range []struct {
		name, src string
		change    func()
		refused   string // "": nothing is
		says      string
	}{
		{"all, and none answers", threeNodes, func() {
			for _, n := range []string{"n1", "n2", "n3"} {
				node(n).Emptied, node(n).Hung = true, true
			}
		}, "node.n2 stop, node.n3 stop", "node.n2: its data directory is gone: its copy of the cluster's database is in its agent's memory, and ends with that; after it others with 1 votes have one, and 2 are needed"},
		{"the only one, which does not answer", oneNode, func() { node("n1").Emptied, node("n1").Hung = true, true },
			"node.n1 stop", "node.n1: its data directory is gone: the only copy of the cluster's database"},
		{"one beside one that is down and has lost its own, whatever is allowed", threeNodes, func() {
			node("n1").Emptied = true
			node("n3").Emptied, node("n3").Running = true, false
			node("n2").Emptied, node("n2").Running = true, false
		}, "node.n1 stop", ""},
		{"one of three that does not answer", threeNodes, func() { node("n1").Emptied, node("n1").Hung = true, true }, "", ""},
		{"all of three that answer", threeNodes, func() {
			for _, n := range []string{"n1", "n2", "n3"} {
				node(n).Emptied = true
			}
		}, "", ""},
	} {
		l = newLab(t)
		def := l.load(c.src)
		l.must(def, "")
		c.change()
		l.allow = true
		p := l.plan(def, "")
		var refused []string
		for _, s := range p.Steps {
			if s.Refused {
				refused = append(refused, s.Address.String()+" "+s.Phase)
			}
		}
		if got := strings.Join(refused, ", "); got != c.refused || p.Applyable != (c.refused == "") || !strings.Contains(diagnostics(p), c.says) {
			t.Errorf("%s: refused %q, applyable %v: %s", c.name, got, p.Applyable, diagnostics(p))
		}
	}
}

// A data directory that is removed between the plan and the stop of its agent, which is
// to come back with it: the provider is told so, ends nothing, and the next plan knows.
func TestDataRemovedSincePlan(t *testing.T) {
	for name, src := range map[string]string{"three nodes": threeNodes, "one node": oneNode} {
		l := newLab(t)
		def := l.load(src)
		l.must(def, "")
		l.world.Program = "newer"
		p := l.plan(def, "")
		for _, h := range l.world.Hosts {
			h.Emptied = true
		}
		l.planned = p
		res, _, err := l.apply(def, "")
		if err != nil || len(res.Failed) != 1 || res.Failed[0].Phase != providers.PhaseStop || !strings.Contains(res.Failed[0].Err.Error(), "which the plan did not know") {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
		for _, h := range l.world.Hosts {
			if !h.Running || !h.Emptied {
				t.Errorf("%s: an agent was ended: %+v", name, h)
			}
		}
		if name == "one node" {
			if p := l.plan(def, ""); p.Applyable {
				t.Errorf("%s: the next plan may be applied", name)
			}
			continue
		}
		l.must(def, "")
		l.settled(def)
	}
}
