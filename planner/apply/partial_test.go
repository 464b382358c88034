package apply_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/refresh"
	"github.com/clusterplan/clusterplan/statefile"
)

// part plans as l.plan does, with what change says of the input.
func (l *lab) part(def *lang.Definition, change func(*planner.Input)) (*planner.Plan, hcl.Diagnostics) {
	l.t.Helper()
	state, pending := l.current()
	in := planner.Input{Definition: def, State: state, Pending: pending, Providers: l.world.Registry()}
	change(&in)
	var err error
	in.World, err = refresh.Run(context.Background(), refresh.Config{State: state, Pending: pending, Providers: l.world.Registry(), Definition: in.Definition})
	if err != nil {
		l.t.Fatal(err)
	}
	if in.Definition != nil {
		in.Imports, err = refresh.Import(context.Background(), refresh.Config{State: state, Pending: pending, Providers: l.world.Registry(), Definition: in.Definition})
		if err != nil {
			l.t.Fatal(err)
		}
	}
	return planner.Build(in)
}

func addrs(t testing.TB, texts ...string) []addr.Address {
	t.Helper()
	var out []addr.Address
	for _, text := range texts {
		a, err := addr.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}

func (l *lab) target(def *lang.Definition, texts ...string) *planner.Plan {
	l.t.Helper()
	p, diags := l.part(def, func(in *planner.Input) { in.Targets = addrs(l.t, texts...) })
	if diags.HasErrors() {
		l.t.Fatalf("--target %s: %v", texts, diags)
	}
	return p
}

func (l *lab) exclude(def *lang.Definition, texts ...string) *planner.Plan {
	l.t.Helper()
	p, diags := l.part(def, func(in *planner.Input) { in.Excludes = addrs(l.t, texts...) })
	if diags.HasErrors() {
		l.t.Fatalf("--exclude %s: %v", texts, diags)
	}
	return p
}

// changed are the addresses that a plan does something to.
func changed(p *planner.Plan) string {
	var out []string
	for _, c := range p.Changes {
		if c.Action() != "no-op" {
			out = append(out, c.Address.String())
		}
	}
	return strings.Join(out, " ")
}

// A target takes what it needs, and no more.
func TestTarget(t *testing.T) {
	const web, worker = "group.web group.web.resource.app group.web.resource.vip", "group.worker group.worker.resource.app"
	all := threeNodes + twoGroups + `
group "free" {
  resource "generic_application" "app" { command = ["true"] }
}
`
	l := newLab(t)
	for target, want := range map[string]string{
		"node.n2":                "cluster node.n2",
		"group.web":              "cluster node.n1 node.n2 " + web,
		"group.web.resource.vip": "cluster node.n1 node.n2 " + web,
		"group.worker":           "cluster node.n1 node.n2 " + web + " " + worker,
		"group.free":             "cluster node.n1 node.n2 node.n3 group.free group.free.resource.app",
		"cluster":                "cluster node.n1 node.n2 node.n3",
	} {
		p := l.target(l.load(all), target)
		if got := changed(p); got != want {
			t.Errorf("--target %s: %s, want %s", target, got, want)
		}
		if p.Complete || !p.Applyable || len(p.OutputChanges) != 0 || len(p.Diagnostics) != 1 || p.Diagnostics[0].Severity != "warning" {
			t.Errorf("--target %s: complete %v, applyable %v, outputs %v, %v", target, p.Complete, p.Applyable, p.OutputChanges, p.Diagnostics)
		}
	}
	// Once all is there, only what changes of what is needed.
	l.must(l.load(all), "")
	edited := strings.ReplaceAll(all, `["true"]`, `["true", "--fast"]`)
	def := l.load(edited)
	before := l.state
	l.world.Program = "p2"
	for target, want := range map[string]string{
		"node.n2":      "node.n2",
		"group.web":    "group.web.resource.app",
		"group.worker": "group.web.resource.app group.worker.resource.app",
		"cluster":      "",
	} {
		if got := changed(l.target(def, target)); got != want {
			t.Errorf("--target %s: %s, want %s", target, got, want)
		}
	}
	l.planned = l.target(def, "group.web")
	l.must(def, "")
	for i := range before.Objects {
		o := &before.Objects[i]
		if now := l.state.Find(o.Addr); now == nil || o.Addr.Owner() != addrs(t, "group.web")[0] && !bytes.Equal(now.Attributes, o.Attributes) {
			t.Errorf("%s was left out, and is another one in the state:\n%s\n%s", o.Addr, o.Attributes, now.Attributes)
		}
	}
	if got := changed(l.plan(def, "")); got != "node.n1 node.n2 node.n3 group.free.resource.app group.worker.resource.app" {
		t.Errorf("still to do: %s", got)
	}
	// What is to go takes along what has to go before it.
	gone := l.load(threeNodes + "group \"free\" {\n  resource \"generic_application\" \"app\" { command = [\"true\"] }\n}\n")
	if got := changed(l.target(gone, "group.web")); got != web+" "+worker {
		t.Errorf("to go: %s", got)
	}
	if got := changed(l.target(gone, "group.worker")); got != worker {
		t.Errorf("to go: %s", got)
	}
}

// What is excluded stays, with what can't be without it; all else goes on.
func TestExclude(t *testing.T) {
	l := newLab(t)
	src := threeNodes + twoGroups
	if got := changed(l.exclude(l.load(src), "group.web")); got != "cluster node.n1 node.n2 node.n3" {
		t.Errorf("--exclude group.web: %s", got)
	}
	if got := changed(l.exclude(l.load(src), "cluster")); got != "" {
		t.Errorf("--exclude cluster: %s", got)
	}
	// A node that is not there keeps nobody from going on.
	def := l.load(src)
	l.planned = l.exclude(def, "node.n1")
	if m := l.planned.FailureMatrix.After; len(m.Rows) != 3 {
		t.Errorf("the failure matrix is not of the two nodes that are taken: %+v", m.Rows)
	}
	l.must(def, "")
	if len(l.world.Members) != 2 || len(l.world.Groups) != 2 || len(l.state.Outputs) != 0 {
		t.Errorf("%d members, %d groups, outputs %v", len(l.world.Members), len(l.world.Groups), l.state.Outputs)
	}
	def = l.load(src)
	if got := changed(l.exclude(def, "cluster")); got != "node.n1" {
		t.Errorf("--exclude cluster, which runs: %s", got)
	}
	l.must(def, "")
	l.settled(l.load(src))
	// What stays keeps what it rests on.
	gone := l.load(threeNodes)
	if got := changed(l.exclude(gone, "group.worker")); got != "" {
		t.Errorf("--exclude group.worker: %s", got)
	}
	if got := changed(l.exclude(gone, "group.web")); got != "group.worker group.worker.resource.app" {
		t.Errorf("--exclude group.web: %s", got)
	}
}

// A node that is left out is as it is: where it is down, its vote does not count.
func TestExcludedNodeIsDown(t *testing.T) {
	l := newLab(t)
	def := l.load(threeNodes + twoGroups)
	l.must(def, "")
	l.world.Program = "p2"
	l.host("n3").Running = false
	if p := l.plan(def, ""); p.Errored || p.Quorum.Lost {
		t.Fatalf("with n3, which is started first: %v", p.Diagnostics)
	}
	p, diags := l.part(def, func(in *planner.Input) { in.Excludes = addrs(t, "node.n3") })
	if !diags.HasErrors() || !p.Quorum.Lost || p.Applyable {
		t.Errorf("without n3 the quorum goes with the next node, and nobody says so: %v", diags)
	}
}

func TestPartRefused(t *testing.T) {
	l := newLab(t)
	src := threeNodes + twoGroups
	l.must(l.load(src), "")
	moved := strings.Replace(src, `"127.0.0.9" }
  resource`, `"127.0.0.10" }
  resource`, 1) + `
group "other" {
  resource "ip_address" "vip" { address = "127.0.0.9" }
}
`
	for _, c := range []struct {
		name   string
		src    string
		change func(*planner.Input)
		words  string
	}{
		{"an address of none", src, func(in *planner.Input) { in.Targets = addrs(t, "group.wob") }, "There is no group.wob; Neither the definition nor the state has it. Did you mean group.web?"},
		{"a key of none", src, func(in *planner.Input) { in.Excludes = addrs(t, `node.n1["a"]`) }, `There is no node.n1["a"]`},
		{"replaced and left out", src, func(in *planner.Input) {
			in.Targets, in.Replace = addrs(t, "node.n1"), addrs(t, "node.n2")
		}, "node.n2 is to be replaced, and is left out"},
		{"an address that is still held", moved, func(in *planner.Input) { in.Targets = addrs(t, "group.other") }, "group.other takes 127.0.0.9, which group.web still has"},
	} {
		p, diags := l.part(l.load(c.src), c.change)
		if !diags.HasErrors() || !strings.Contains(diags.Error()+joined(diags), c.words) || p.Applyable {
			t.Errorf("%s: %v", c.name, diags)
		}
	}
	if p := l.target(l.load(moved), "group.other", "group.web"); p.Errored {
		t.Errorf("both in one plan: %v", p.Diagnostics)
	}
}

func joined(diags hcl.Diagnostics) string {
	var out []string
	for _, d := range diags {
		out = append(out, d.Summary+"; "+d.Detail)
	}
	return strings.Join(out, "\n")
}

// Whatever part is applied first, the rest then goes on to the same end, and
// nothing forbidden happens on the way.
func TestPartThenAll(t *testing.T) {
	const src = threeNodes + twoGroups
	edited := strings.NewReplacer(`["true"]`, `["true", "--fast"]`, `node "n3" { provider = local }`, `node "n4" { provider = local }`).Replace(src)
	objects := []string{"cluster", "node.n1", "node.n2", "node.n3", "node.n4", "group.web", "group.worker"}
	for _, there := range []bool{false, true} {
		for _, a := range objects {
			for _, target := range []bool{false, true} {
				l := newLab(t)
				if there {
					l.must(l.load(src), "")
					l.world.Program = "p2"
				} else if a == "node.n3" {
					continue // only the state has it
				}
				def := l.load(edited)
				whole := strings.Fields(changed(l.plan(def, "")))
				p, diags := l.part(def, func(in *planner.Input) {
					if target {
						in.Targets = addrs(t, a)
					} else {
						in.Excludes = addrs(t, a)
					}
				})
				if diags.HasErrors() {
					t.Errorf("%s (target %v, there %v): %v", a, target, there, diags)
					continue
				}
				for _, one := range strings.Fields(changed(p)) {
					if !slices.Contains(whole, one) {
						t.Errorf("%s (target %v, there %v): %s changes, and does not in the whole plan", a, target, there, one)
					}
				}
				if p.Applyable {
					l.planned = p
					l.must(def, "")
				}
				l.must(l.load(edited), "")
				l.settled(l.load(edited))
			}
		}
	}
}

// A refresh-only apply touches nothing; the state says what is there.
func TestRefreshOnly(t *testing.T) {
	l := newLab(t)
	def := l.load(threeNodes + twoGroups)
	l.must(def, "")
	only := func() (*planner.Plan, hcl.Diagnostics) {
		return l.part(nil, func(in *planner.Input) { in.Mode = planner.ModeRefreshOnly })
	}
	if p, diags := only(); p.Applyable || len(p.Drift) > 0 || diags.HasErrors() || changed(p) != "" {
		t.Errorf("nothing has drifted: %v, %v, %s", p.Drift, diags, changed(p))
	}
	for id, g := range l.world.Groups {
		if g.Addr.Name == "worker" {
			delete(l.world.Groups, id)
			continue
		}
		attrs := g.Value.AsValueMap()
		attrs["description"] = cty.StringVal("edited by hand")
		g.Value = cty.ObjectVal(attrs)
	}
	l.host("n2").Running = false
	p, diags := only()
	if diags.HasErrors() || !p.Applyable {
		t.Fatalf("applyable %v: %v", p.Applyable, diags)
	}
	if got := actions(p); got != "group.web read drifted\ngroup.worker forget gone\ngroup.worker.resource.app forget gone" {
		t.Errorf("actions:\n%s", got)
	}
	var drift []string
	for _, d := range p.Drift {
		drift = append(drift, d.Address.String())
	}
	if got := strings.Join(drift, " "); got != "node.n2 group.web group.worker group.worker.resource.app" {
		t.Errorf("drift: %s", got)
	}
	if p.Quorum == nil || p.Quorum.Lowest != 2 || len(p.Steps) != 0 || len(p.OutputChanges) != 0 {
		t.Errorf("quorum %+v, %d steps, outputs %v", p.Quorum, len(p.Steps), p.OutputChanges)
	}
	calls, outputs := len(l.world.Calls), l.state.Outputs
	l.planned = p
	res := l.must(nil, planner.ModeRefreshOnly)
	if len(l.world.Calls) != calls || res.Done.Forget != 2 || res.Done.Update != 0 {
		t.Errorf("%d calls, done %+v", len(l.world.Calls)-calls, res.Done)
	}
	web := l.state.Find(addr.Group("web", addr.NoKey))
	if !strings.Contains(string(web.Attributes), "edited by hand") || l.state.Find(addr.Group("worker", addr.NoKey)) != nil || len(l.state.Outputs) != len(outputs) {
		t.Errorf("the state does not say what is there: %s, outputs %v", web.Attributes, l.state.Outputs)
	}
	if p, _ := only(); p.Applyable || len(p.Drift) != 1 {
		t.Errorf("the second time: applyable %v, %v", p.Applyable, p.Drift)
	}
	if got := actions(l.plan(def, "")); got != "node.n2 update drifted\ngroup.web update changed\ngroup.worker create not_in_state\ngroup.worker.resource.app create not_in_state" {
		t.Errorf("what mends it:\n%s", got)
	}
	l.must(def, "")
	l.settled(def)
	// What an apply has begun is settled by an apply.
	l.journal.entries = append(l.journal.entries, statefile.Entry{Begin: &statefile.Begin{Run: "r", Lineage: "L", Serial: l.state.Serial}},
		statefile.Entry{Intent: &statefile.Intent{Addr: web.Addr, Action: "update", Object: web}})
	if p, diags := only(); p.Applyable || !strings.Contains(joined(diags), "did not come to its end") {
		t.Errorf("with an apply that was cut off: %v", diags)
	}
}
