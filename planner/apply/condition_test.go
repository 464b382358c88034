package apply_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/planner/plannertest"
	"github.com/clusterplan/clusterplan/planner/refresh"
	"github.com/clusterplan/clusterplan/providers"
)

// checksOf is a plan's checks, a line each.
func checksOf(list []planner.Check) string {
	var out []string
	for _, c := range list {
		line := c.Address + " " + c.Status
		for _, p := range c.Problems {
			line += fmt.Sprintf(" %s:%d %s", p.Condition, p.Range.Start.Line, p.Message)
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func diagnosticsOf(p *planner.Plan) string {
	var out []string
	for _, d := range p.Diagnostics {
		out = append(out, d.Severity+" "+d.Summary+": "+d.Detail)
	}
	return strings.Join(out, "\n")
}

// own gives a group an owner, "" none.
func (l *lab) own(group, node string) {
	for _, g := range l.world.Groups {
		if g.Addr.Name == group {
			g.Owner = ""
			for id, m := range l.world.Members {
				if m.Spec.Name == node {
					g.Owner = id
				}
			}
		}
	}
}

// A check is unknown while the plan changes what it asks for, and where nobody
// can tell; one that fails warns, and stops nothing.
func TestChecks(t *testing.T) {
	const src = threeNodes + twoGroups + `
check "web" {
  assert {
    condition     = group.web.state == "online"
    error_message = "Web is ${group.web.state}."
  }
  assert {
    condition     = group.web.priority >= 2000
    error_message = "Web comes late."
  }
}
check "nodes" {
  assert {
    condition     = alltrue([for n in [node.n1, node.n2, node.n3] : n.state == "up"])
    error_message = "Not all nodes are up."
  }
}
`
	l := newLab(t)
	plan := func(when, src, checks, diags string) *planner.Plan {
		t.Helper()
		p := l.plan(l.load(src), "")
		if got := checksOf(p.Checks); got != checks {
			t.Errorf("%s:\n%s\nwant:\n%s", when, got, checks)
		}
		if got := diagnosticsOf(p); got != diags || p.Errored {
			t.Errorf("%s: errored %v:\n%s\nwant:\n%s", when, p.Errored, got, diags)
		}
		return p
	}
	plan("the first plan", src, "check.nodes unknown\ncheck.web unknown", "")
	l.must(l.load(src), "")
	plan("after the apply", src, "check.nodes pass\ncheck.web pass", "")
	l.settled(l.load(src))

	l.own("web", "")
	p := plan("web is down", src, "check.nodes pass\ncheck.web fail assert:25 Web is offline.", "warning Check failed: check.web: Web is offline.")
	if p.Applyable || p.Summary.Any() {
		t.Errorf("a failed check has the plan do something: %s", actions(p))
	}
	plan("a definition that is wrong", strings.Replace(src, "preferred_owners", "priority = 100\n  preferred_owners", 1),
		"check.nodes pass\ncheck.web fail assert:30 Web comes late.", "warning Check failed: check.web: Web comes late.")
	plan("what web depends on nobody changes", strings.Replace(src, `depends_on = [group.web]`, "depends_on = [group.web]\n  description = \"x\"", 1),
		"check.nodes pass\ncheck.web fail assert:26 Web is offline.", "warning Check failed: check.web: Web is offline.")

	// A part of the definition: what is left is not as the definition says.
	if got := checksOf(l.target(l.load(src), "node.n1").Checks); got != "check.nodes unknown\ncheck.web unknown" {
		t.Errorf("--target: %s", got)
	}
	// A destroy checks nothing.
	if p := l.plan(l.load(src), planner.ModeDestroy); len(p.Checks) != 0 {
		t.Errorf("destroy checks: %s", checksOf(p.Checks))
	}

	// A node that is down is started, which brings groups back.
	for _, h := range l.world.Hosts {
		h.Running = false
		break
	}
	plan("a node is down", src, "check.nodes unknown\ncheck.web unknown", "")
	for _, h := range l.world.Hosts {
		h.Running = true
	}
	// Nobody can tell without a quorum, or with nobody to ask.
	up := 0
	for _, h := range l.world.Hosts {
		if up++; up < 3 {
			h.Running = false
		}
	}
	plan("no quorum", src, "check.nodes unknown\ncheck.web unknown", "")
	for _, h := range l.world.Hosts {
		h.Running = false
	}
	if p := l.plan(l.load(src), ""); checksOf(p.Checks) != "check.nodes unknown\ncheck.web unknown" || strings.Contains(diagnosticsOf(p), "Check") {
		t.Errorf("nobody answers: %s\n%s", checksOf(p.Checks), diagnosticsOf(p))
	}
}

// A precondition that fails is an error of the plan; one that only the apply can
// work out keeps the object, and what depends on it, from being touched.
func TestPreconditions(t *testing.T) {
	conditional := func(condition string) string {
		return threeNodes + strings.Replace(twoGroups, `["true"]
    depends_on = [resource.vip]`, `["true"]
    depends_on = [resource.vip]
    lifecycle {
      precondition {
        condition     = `+condition+`
        error_message = "The endpoint is ${node.n1.endpoint}."
      }
    }`, 1)
	}
	l := newLab(t)
	p := l.plan(l.load(conditional(`node.n1.zone == "east"`)), "")
	if got, want := diagnosticsOf(p), "error Precondition failed: group.web.resource.app: The condition isn't met."; got != want || !p.Errored || p.Applyable {
		t.Errorf("errored %v, applyable %v: %s", p.Errored, p.Applyable, got)
	}
	if r := p.Diagnostics[0].Range; r == nil || r.Start.Line != 17 {
		t.Errorf("it stands at %+v", r)
	}
	if got := checksOf(p.Checks); got != "group.web.resource.app fail precondition:17 The condition isn't met." {
		t.Errorf("checks: %s", got)
	}

	fails := l.load(conditional(`node.n1.endpoint == "10.0.0.1:1"`))
	if p := l.plan(fails, ""); p.Errored || checksOf(p.Checks) != "group.web.resource.app unknown" {
		t.Errorf("before the apply: %v, %s", p.Diagnostics, checksOf(p.Checks))
	}
	res, _, err := l.apply(fails, "")
	if err != nil {
		t.Fatal(err)
	}
	var failed *apply.ConditionError
	if len(res.Failed) != 1 || res.Failed[0].Addr != addr.Group("web", addr.NoKey) || !errors.As(res.Failed[0].Err, &failed) {
		t.Fatalf("failed: %+v", res.Failed)
	}
	if got, want := failed.Error(), "Precondition failed at main.cluster.hcl:17,25-57: group.web.resource.app: The endpoint is 127.0.0.1:1."; got != want {
		t.Errorf("error: %s\nwant:  %s", got, want)
	}
	if len(res.Skipped) != 1 || res.Skipped[0].Addr.Name != "worker" || len(l.world.Groups) != 0 || strings.Contains(l.calls(), "group.") {
		t.Errorf("skipped %+v, %d groups, calls:\n%s", res.Skipped, len(l.world.Groups), l.calls())
	}
	// By now the plan knows.
	if p := l.plan(l.load(conditional(`node.n1.endpoint == "10.0.0.1:1"`)), ""); !p.Errored {
		t.Errorf("the next plan is applyable: %s", checksOf(p.Checks))
	}
	l.must(l.load(conditional(`node.n1.endpoint == "127.0.0.1:1"`)), "")
	l.settled(l.load(conditional(`node.n1.endpoint == "127.0.0.1:1"`)))
}

// A postcondition is looked at when its object is there; it may take a moment to
// come true. One that fails stops what depends on the object, which stays.
func TestPostconditions(t *testing.T) {
	const src = threeNodes + `
group "web" {
  lifecycle {
    postcondition {
      condition     = self.state == "online" && self.priority == 2000
      error_message = "Web is ${self.state}."
    }
  }
  resource "generic_application" "app" { command = ["true"] }
}
group "worker" {
  depends_on = [group.web]
  resource "generic_application" "app" { command = ["true"] }
}
`
	soon := func(c *apply.Config) { c.ConditionWait = 20 * time.Millisecond }
	l := newLab(t)
	l.conf = soon
	// Web is written, and comes up nowhere.
	l.world.FailAfter = func(plannertest.Call) error {
		l.own("web", "")
		return nil
	}
	res, _, err := l.apply(l.load(src), "")
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Failed) != 1 || res.Failed[0].Err.Error() != "Postcondition failed at main.cluster.hcl:12,23-70: group.web: Web is offline." ||
		len(res.Skipped) != 1 || res.Skipped[0].Addr.Name != "worker" {
		t.Errorf("failed %+v, skipped %+v", res.Failed, res.Skipped)
	}
	if o := l.state.Find(addr.Group("web", addr.NoKey)); o == nil || o.Tainted != "" || len(o.Phases) > 0 {
		t.Errorf("the state has %+v", o)
	}
	// Nothing is done to web any more, so the plan knows: an error.
	l.world.FailAfter = nil
	if p := l.plan(l.load(src), ""); diagnosticsOf(p) != "error Postcondition failed: group.web: Web is offline." || !p.Errored {
		t.Errorf("the next plan: %s", diagnosticsOf(p))
	}
	l.own("web", "n2")
	l.must(l.load(src), "")
	l.settled(l.load(src))

	// One that takes until the third look.
	slow := newLab(t)
	slow.conf = func(c *apply.Config) { c.ConditionWait = 30 * time.Second }
	slow.world.LateUp = 3
	slow.must(slow.load(strings.Replace(src, `node "n3" { provider = local }`, `node "n3" {
  provider = local
  lifecycle {
    postcondition {
      condition     = self.state == "up" && self.endpoint != ""
      error_message = "It is ${self.state}."
    }
  }
}`, 1)), "")
}

// What only waits for its conditions keeps nobody else from being worked on: here
// no group comes up before the last one is written.
func TestPostconditionsWaitTogether(t *testing.T) {
	const groups = 36
	src := threeNodes
	for i := range groups {
		src += fmt.Sprintf(`
group "g%d" {
  lifecycle {
    postcondition {
      condition     = self.state == "online"
      error_message = "It is ${self.state}."
    }
  }
  resource "generic_application" "app" { command = ["true"] }
}
`, i)
	}
	l := newLab(t)
	l.conf = func(c *apply.Config) { c.ConditionWait, c.Parallelism = 20*time.Second, 2 }
	l.world.FailAfter = func(plannertest.Call) error {
		for _, g := range l.world.Groups {
			if g.Owner = ""; len(l.world.Groups) == groups {
				g.Owner = slices.Sorted(maps.Keys(l.world.Members))[0]
			}
		}
		return nil
	}
	l.must(l.load(src), "")
	l.settled(l.load(src))
	// Nor does each of those that nothing is done to have a look of its own.
	l.world.Program, l.world.FailAfter = "p2", nil
	l.planned = l.plan(l.load(src), "")
	if n := len(l.planned.Work().Recheck); n != groups {
		t.Fatalf("%d groups are looked at afterwards", n)
	}
	before := l.world.Looks
	l.world.LookTakes = 20 * time.Millisecond // or each is over before the next asks
	l.must(l.load(src), "")
	if n := l.world.Looks - before; n == 0 || n >= groups/2 {
		t.Errorf("%d looks at the cluster", n)
	}
}

// An object that nothing is done to, and whose state the apply may change, is
// looked at once all is done.
func TestPostconditionsOfOthers(t *testing.T) {
	const src = threeNodes + twoGroups
	after := strings.Replace(src, `depends_on = [group.web]`, `depends_on = [group.web]
  lifecycle {
    postcondition {
      condition     = self.owner == "n9"
      error_message = "It is on ${self.owner}."
    }
  }`, 1)
	l := newLab(t)
	l.conf = func(c *apply.Config) { c.ConditionWait = 20 * time.Millisecond }
	l.must(l.load(src), "")
	l.own("worker", "n3")
	if p := l.plan(l.load(after), ""); diagnosticsOf(p) != "error Postcondition failed: group.worker: It is on n3." {
		t.Errorf("plan: %s", diagnosticsOf(p))
	}
	l.world.Program = "p2" // all agents are rolled
	p := l.plan(l.load(after), "")
	if p.Errored || checksOf(p.Checks) != "group.worker unknown" {
		t.Errorf("with other changes: %s, %s", diagnosticsOf(p), checksOf(p.Checks))
	}
	res, _, err := l.apply(l.load(after), "")
	owner := ""
	for _, g := range l.world.Groups {
		if g.Addr.Name == "worker" {
			owner = l.world.Members[g.Owner].Spec.Name
		}
	}
	if err != nil || len(res.Failed) != 1 || !strings.Contains(res.Failed[0].Err.Error(), "group.worker: It is on "+owner) {
		t.Errorf("failed: %+v, %v", res.Failed, err)
	}
}

// A node's postcondition ends a rolling change before the next node is touched.
func TestPostconditionEndsRolling(t *testing.T) {
	nodes := strings.ReplaceAll(threeNodes, "{ provider = local }", `{
  provider = local
  lifecycle {
    postcondition {
      condition     = self.program != "p2"
      error_message = "Program p2 is broken."
    }
  }
}`)
	l := newLab(t)
	l.must(l.load(nodes), "")
	l.world.Program = "p2"
	p := l.plan(l.load(nodes), "")
	if !p.Errored || strings.Count(diagnosticsOf(p), "Program p2 is broken.") != 3 {
		t.Errorf("what the plan knows already is an error: %s", diagnosticsOf(p))
	}
	stateOf := strings.ReplaceAll(nodes, `self.program != "p2"`, `self.state == "up"`)
	l.world.LateUp = 1 << 20 // it starts, and is never up
	l.conf = func(c *apply.Config) { c.ConditionWait = 5 * time.Millisecond }
	l.world.Calls = nil
	res, _, err := l.apply(l.load(stateOf), "")
	if err != nil || len(res.Failed) != 1 || len(res.Skipped) != 2 || strings.Count(l.calls(), providers.PhaseStart) != 1 {
		t.Errorf("failed %+v, skipped %+v, %v, calls:\n%s", res.Failed, res.Skipped, err, l.calls())
	}
}

// Nothing sensitive is told by a condition, neither in words nor as a value.
func TestConditionsTellNoSecrets(t *testing.T) {
	const secret = "hunter2"
	l := newLab(t)
	def := l.load(`
variable "token" {
  default   = "` + secret + `"
  sensitive = true
}
` + threeNodes + `
group "web" {
  lifecycle {
    precondition {
      condition     = var.token == "x"
      error_message = "The token is ${var.token}."
    }
  }
  resource "generic_application" "app" {
    command     = ["true"]
    environment = { TOKEN = var.token }
    lifecycle {
      postcondition {
        condition     = self.environment["TOKEN"] == "x"
        error_message = "It is ${self.environment["TOKEN"]}."
      }
    }
  }
}
check "token" {
  assert {
    condition     = var.token == "x"
    error_message = "The token is ${var.token}."
  }
}
`)
	p := l.plan(def, "")
	if text := string(mustJSON(t, p)); strings.Contains(text, secret) || strings.Count(text, "sensitive value, so it isn't shown") != 6 {
		t.Errorf("the plan tells: %s\n%s", checksOf(p.Checks), diagnosticsOf(p))
	}
}

// Outputs: what only the running cluster knows is no change, all else is; a
// precondition that fails, or something that was not applied, keeps the value.
func TestOutputConditions(t *testing.T) {
	const src = threeNodes + twoGroups + `
output "web" {
  value      = { at = "127.0.0.9", owner = group.web.owner }
  depends_on = [group.worker]
  precondition {
    condition     = group.web.priority > 0
    error_message = "Web is not to run."
  }
}
`
	l := newLab(t)
	l.must(l.load(src), "")
	first := string(l.state.Outputs["web"].Value)
	if !strings.Contains(first, `"at":"127.0.0.9"`) {
		t.Fatalf("the output is %s", first)
	}
	l.own("web", "n3")
	l.settled(l.load(src))
	changed := strings.Replace(src, `at = "127.0.0.9"`, `at = "127.0.0.10"`, 1)
	if p := l.plan(l.load(changed), ""); !p.Applyable || p.OutputChanges["web"].Actions[0] != "update" {
		t.Errorf("a part that the definition gives: %+v", p.OutputChanges)
	}
	refused := strings.Replace(changed, "priority > 0", "priority > 9000", 1)
	if p := l.plan(l.load(refused), ""); diagnosticsOf(p) != "error Precondition failed: output.web: Web is not to run." || checksOf(p.Checks) != "output.web fail precondition:27 Web is not to run." {
		t.Errorf("precondition: %s\n%s", diagnosticsOf(p), checksOf(p.Checks))
	}
	// What it depends on is not applied.
	l.world.Fail = func(c plannertest.Call) error {
		if c.Addr.Name == "worker" {
			return errors.New("no")
		}
		return nil
	}
	res, _, err := l.apply(l.load(strings.Replace(changed, "depends_on = [group.web]", "depends_on = [group.web]\n  description = \"x\"", 1)), "")
	if err != nil || len(res.Failed) != 1 || string(res.State.Outputs["web"].Value) != first {
		t.Errorf("failed %+v, %v; the output is %s", res.Failed, err, res.State.Outputs["web"].Value)
	}
	l.world.Fail = nil
	l.must(l.load(changed), "")
	if got := string(l.state.Outputs["web"].Value); !strings.Contains(got, `"at":"127.0.0.10"`) || !strings.Contains(got, `"owner":"n3"`) {
		t.Errorf("the output is %s", got)
	}
}

// What can't be seen fails no condition, neither in the plan nor after an apply
// that does something else.
func TestConditionsOfTheUnseen(t *testing.T) {
	const src = threeNodes + twoGroups
	l := newLab(t)
	l.conf = func(c *apply.Config) { c.ConditionWait = 5 * time.Millisecond }
	l.must(l.load(src), "")
	after := strings.Replace(src, `preferred_owners = [node.n1, node.n2]`, `preferred_owners = [node.n1, node.n2]
  lifecycle {
    postcondition {
      condition     = self.description == "seen"
      error_message = "It is not."
    }
  }`, 1) + "output \"more\" { value = \"x\" }\n"
	build := func(silent bool) *planner.Plan {
		def := l.load(after)
		state, pending := l.current()
		world, err := refresh.Run(context.Background(), refresh.Config{State: state, Pending: pending, Providers: l.world.Registry(), Definition: def})
		if err != nil {
			t.Fatal(err)
		}
		if silent {
			world.Objects[addr.Group("web", addr.NoKey)] = planner.Seen{Err: "no answer"}
		}
		p, _ := planner.Build(planner.Input{Definition: def, State: state, Pending: pending, World: world, Providers: l.world.Registry()})
		return p
	}
	if p := build(false); !p.Errored || checksOf(p.Checks) != "group.web fail postcondition:13 It is not." {
		t.Errorf("seen: %s", checksOf(p.Checks))
	}
	p := build(true)
	if p.Errored || checksOf(p.Checks) != "group.web unknown" {
		t.Errorf("unseen: %s\n%s", checksOf(p.Checks), diagnosticsOf(p))
	}
	l.planned = p
	if res := l.must(l.load(after), ""); string(res.State.Outputs["more"].Value) != `"x"` {
		t.Errorf("outputs %v", res.State.Outputs)
	}
}
