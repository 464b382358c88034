package apply_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/planner/plannertest"
	"github.com/clusterplan/clusterplan/providers"
)

const onMachines = `
cluster "c" {
  quorum { model = "majority_node_set" }
}
network "lab" {
  provider = hypervisor
  subnet   = "10.0.0.0/24"
}
volume "data" {
  provider = hypervisor
  for_each = toset(["a", "b", "c"])
  size     = "1GiB"
}
machine "n" {
  provider = hypervisor
  for_each = toset(["a", "b", "c"])
  image    = "tiny-1"
  memory   = "256MiB"
  network  = network.lab
  disks    = [volume.data[each.key]]
}
node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
  address  = machine.n[each.key].address
}
group "web" {
  resource "generic_application" "app" { command = ["serve", machine.n["a"].address] }
}
output "addresses" { value = [for m in values(machine.n) : m.address] }
`

// of plans a definition as a command does: once more with what the plan changes of
// what is known.
func (l *lab) of(src string) (*planner.Plan, *lang.Definition) {
	l.t.Helper()
	def := l.loadWith(src, nil)
	state, _, _ := l.renamed(def)
	known := knownOf(state)
	p := l.plan(def, "")
	for range 4 {
		later := p.Known(def, known)
		if later == nil {
			break
		}
		known, def = later, l.loadWith(src, later)
		p = l.plan(def, "")
	}
	return p, def
}

// carry plans and applies.
func (l *lab) carry(src string) (*planner.Plan, *apply.Result) {
	l.t.Helper()
	p, def := l.of(src)
	if p.Errored {
		l.t.Fatalf("plan: %v", p.Diagnostics)
	}
	l.planned = p
	l.world.Calls = nil
	return p, l.must(def, "")
}

// quiet: a plan of it has nothing to do.
func (l *lab) quiet(src string) {
	l.t.Helper()
	if p, _ := l.of(src); p.Applyable || p.Summary.Any() {
		l.t.Errorf("the second plan is not empty:\n%s", actions(p))
	}
}

// before checks that the calls come in this order.
func (l *lab) before(calls ...string) {
	l.t.Helper()
	all := strings.Split(l.calls(), "\n")
	last := -1
	for _, c := range calls {
		i := slices.Index(all, c)
		if i <= last {
			l.t.Errorf("%q is no. %d of the calls, not behind no. %d:\n%s", c, i, last, strings.Join(all, "\n"))
		}
		last = i
	}
}

// From nothing to a cluster on machines in one apply, whose addresses only the
// apply knows, to a plan with nothing to do; and away again in reverse.
func TestMachinesFirstApplyToDestroy(t *testing.T) {
	l := newLab(t)
	l.conf = func(c *apply.Config) { c.Parallelism = 1 }
	p, _ := l.of(onMachines)
	golden(t, "machines", p)
	for _, c := range p.Changes {
		if a := c.Address; a.Type == addr.TypeNode && c.After.GetAttr("address").IsKnown() {
			t.Errorf("%s has a known address", a)
		}
	}
	_, res := l.carry(onMachines)
	if res.Done.Create != 1+3+3+1+3+1+1 {
		t.Errorf("created %d objects", res.Done.Create)
	}
	l.before("network.lab create", `machine.n["a"] create`, `node.n["a"] install`, "cluster bootstrap", `node.n["a"] join`, "group.web")
	l.before(`volume.data["b"] create`, `machine.n["b"] create`, `node.n["b"] install`)
	for _, m := range l.world.Members {
		if !strings.HasPrefix(m.Spec.Address, "10.0.0.") {
			t.Errorf("the cluster knows %s at %q", m.Spec.Name, m.Spec.Address)
		}
	}
	if got := string(l.state.Outputs["addresses"].Value); !strings.Contains(got, "10.0.0.1") || !strings.Contains(got, "10.0.0.3") {
		t.Errorf("output: %s", got)
	}
	l.quiet(onMachines)

	l.world.Ending = true
	l.world.Calls = nil
	l.must(nil, planner.ModeDestroy)
	l.before("group.web delete", `node.n["a"] stop`, `node.n["a"] remove`, `machine.n["a"] delete`, `volume.data["a"] delete`)
	l.before(`machine.n["c"] delete`, "network.lab delete")
	if len(l.world.Machinery)+len(l.world.Hosts)+len(l.state.Objects) != 0 {
		t.Errorf("left: %v", l.state.Objects)
	}
}

// A first apply is killed just after a node, or a machine, was begun, so that only an
// intent tells of it: a destroy takes it away before what it stands on, all the same.
func TestMachinesDestroyedAfterAKill(t *testing.T) {
	for call, first := range map[string]string{`machine.n["a"] create`: `machine.n["a"] delete`, `node.n["a"] install`: `node.n["a"] remove`} {
		l := newLab(t)
		l.conf = func(c *apply.Config) { c.Parallelism = 1 }
		l.world.FailAfter = func(c plannertest.Call) error {
			if c.String() != call {
				return nil
			}
			l.journal.dead.Store(true)
			return errKilled
		}
		_, def := l.of(onMachines)
		if _, _, err := l.apply(def, ""); !errors.Is(err, errKilled) {
			t.Fatalf("killed after %s: %v", call, err)
		}
		l.journal.dead.Store(false)
		l.world.FailAfter, l.world.Calls = nil, nil
		l.world.Ending = true
		l.must(nil, planner.ModeDestroy)
		l.before(first, `volume.data["a"] delete`)
		l.before(first, "network.lab delete")
		if strings.HasPrefix(call, "node") {
			l.before(first, `machine.n["a"] delete`)
		}
		if len(l.world.Machinery)+len(l.world.Hosts)+len(l.state.Objects) != 0 {
			t.Errorf("killed after %s, it leaves %v", call, l.state.Objects)
		}
	}
}

// A new image makes the machines anew, and their nodes with them: one after the
// other, each out before its machine goes and back before the next one leaves.
func TestMachinesMadeAnew(t *testing.T) {
	l := newLab(t)
	l.conf = func(c *apply.Config) { c.Parallelism = 8 }
	l.carry(onMachines)
	next := strings.Replace(onMachines, "tiny-1", "tiny-2", 1)
	p, res := l.carry(next)
	if res.Done.Replace != 6 || res.Done.Create+res.Done.Delete != 0 {
		t.Errorf("done: %+v", res.Done)
	}
	if p.Quorum.Lowest < 2 || p.Summary.Replace != 6 {
		t.Errorf("quorum %+v, summary %+v", p.Quorum, p.Summary)
	}
	if len(p.Availability) != 1 || p.Availability[0].Interruptions == 0 {
		t.Errorf("the group is not told to be interrupted: %+v", p.Availability)
	}
	var turns []string
	for _, c := range l.world.Calls {
		if c.Addr.Type == addr.TypeNode && (c.Phase == providers.PhaseLeave || c.Phase == providers.PhasePromote) {
			turns = append(turns, c.Addr.Key.Plain()+" "+c.Phase)
		}
	}
	for i := 0; i < len(turns); i += 2 {
		if i+1 >= len(turns) || turns[i][:1] != turns[i+1][:1] || !strings.HasSuffix(turns[i], "leave") || !strings.HasSuffix(turns[i+1], "promote") {
			t.Errorf("not one after the other: %v", turns)
		}
	}
	for _, k := range []string{"a", "b", "c"} {
		l.before(`node.n["`+k+`"] leave`, `node.n["`+k+`"] remove`, `machine.n["`+k+`"] delete`, `machine.n["`+k+`"] create`, `node.n["`+k+`"] install`, `node.n["`+k+`"] promote`)
	}
	for _, m := range l.world.Members {
		if a := m.Spec.Address; a != "10.0.0.4" && a != "10.0.0.5" && a != "10.0.0.6" {
			t.Errorf("%s is still at %s", m.Spec.Name, a)
		}
	}
	l.quiet(next)

	// A volume of one machine takes that one along, and no other.
	one := strings.Replace(next, `  size     = "1GiB"`, "  base = each.key == \"b\" ? \"x\" : null\n  size = \"1GiB\"", 1)
	p, _ = l.carry(one)
	if got := actions(p); got != "volume.data[\"b\"] replace cannot_update\nmachine.n[\"b\"] replace stands_on\nnode.n[\"b\"] replace stands_on" {
		t.Errorf("plan:\n%s", got)
	}
	l.before(`node.n["b"] remove`, `machine.n["b"] delete`, `volume.data["b"] delete`, `volume.data["b"] create`, `machine.n["b"] create`, `node.n["b"] install`)
	l.quiet(one)

	// The network under all of them would take all of them.
	p, _ = l.of(strings.Replace(one, "10.0.0.0/24", "10.0.1.0/24", 1))
	if !p.Errored || !strings.Contains(diagnostics(p), "all of them would be out at once") {
		t.Errorf("not refused:\n%s", diagnostics(p))
	}
	// So would the removal of a machine from under its node.
	gone := strings.NewReplacer(`machine.n[each.key].address`, `{ a = "10.0.0.4", b = "`+l.host("n-b").Value.GetAttr("address").AsString()+`", c = "10.0.0.6" }[each.key]`,
		"for_each = toset([\"a\", \"b\", \"c\"])\n  image", "for_each = toset([\"a\", \"c\"])\n  image", `["serve", machine.n["a"].address]`, `["serve", "10.0.0.4"]`).Replace(one)
	p, _ = l.of(gone)
	if !p.Errored || !strings.Contains(diagnostics(p), `machine.n["b"] can't go from under node.n["b"]`) {
		t.Errorf("not refused:\n%s\n%s", diagnostics(p), actions(p))
	}
}

// A node that moves to another machine while its old one stays: its fence would turn
// that one off for it. Where the old one goes, or the fence does not cover it, it moves.
func TestMachinesSwapped(t *testing.T) {
	fence := func(nodes, plugs string) string {
		return `
fence "hypervisor" {
  agent      = "libvirt"
  nodes      = [` + nodes + `]
  plugs      = { ` + plugs + ` }
  parameters = { uri = "qemu+tcp://10.0.0.1/system" }
}
`
	}
	const both = `node.n["a"], node.n["b"]`
	l := newLab(t)
	l.carry(onMachines + fence(both, `n-a = "n-a", n-b = "n-b"`))
	swapped := strings.Replace(onMachines, "address  = machine.n[each.key].address", `address  = machine.n[{ a = "b", b = "a", c = "c" }[each.key]].address`, 1)
	p, _ := l.of(swapped + fence(both, `n-a = "n-b", n-b = "n-a"`))
	if got := diagnostics(p); !p.Errored || !strings.Contains(got, `node.n["a"] goes from machine n-a to n-b, and n-a stays (machine.n["a"])`) || !strings.Contains(got, `node.n["b"] goes from machine n-b to n-a`) {
		t.Errorf("the plan says %s", got)
	}
	l.carry(onMachines + fence(`node.n["c"]`, `n-c = "n-c"`))
	if p, _ := l.of(swapped + fence(`node.n["c"]`, `n-c = "n-c"`)); strings.Contains(diagnostics(p), "turn off another machine") {
		t.Errorf("what the fence does not cover gives %s", diagnostics(p))
	}

	// Its old machine goes with the same apply, so the fence is no reason to refuse that: the
	// node joins on the new one, leaves on the old one and is stopped there, the fence is
	// told, and then the old one goes.
	moved := strings.NewReplacer(`for_each = toset(["a", "b", "c"])`+"\n  image", `for_each = toset(["b", "c", "d"])`+"\n  image",
		`for_each = toset(["a", "b", "c"])`+"\n  size", `for_each = toset(["b", "c", "d"])`+"\n  size",
		"machine.n[each.key].address", `machine.n[{ a = "d", b = "b", c = "c" }[each.key]].address`,
		`["serve", machine.n["a"].address]`, `["serve", machine.n["b"].address]`).Replace(onMachines)
	l = newLab(t)
	l.conf = func(c *apply.Config) { c.Parallelism = 8 }
	l.carry(onMachines + fence(both, `n-a = "n-a", n-b = "n-b"`))
	p, _ = l.carry(moved + fence(both, `n-a = "n-d", n-b = "n-b"`))
	if p.Quorum.Lowest < 2 {
		t.Errorf("quorum %+v", p.Quorum)
	}
	l.before(`machine.n["d"] create`, `node.n["a"] install`, `node.n["a"] promote`)
	old, _, _ := strings.Cut(l.calls()[strings.Index(l.calls(), `node.n["a"] (deposed`):], ") ")
	l.before(`node.n["a"] promote`, old+") drain", old+") leave", old+") stop", old+") remove", "fence.hypervisor", `machine.n["a"] delete`, `volume.data["a"] delete`)
	l.quiet(moved + fence(both, `n-a = "n-d", n-b = "n-b"`))
}

// What is gone when it is to go may have left something that no state knows of: a
// delete that was cut off just before its end, or somebody who has done half of it. Its
// provider is asked to take it away all the same, and a machine that is gone stands in
// nobody's way. What may not be destroyed is only forgotten.
func TestMachinesGoneAlready(t *testing.T) {
	for _, kept := range []bool{false, true} {
		src := onMachines
		if kept {
			src = strings.Replace(src, "size     = \"1GiB\"", "size     = \"1GiB\"\n  lifecycle { prevent_destroy = true }", 1)
		}
		l := newLab(t)
		l.carry(src)
		for id, m := range l.world.Machinery {
			if m.Addr.Type == addr.TypeVolume {
				delete(l.world.Machinery, id)
			}
		}
		l.world.Ending = true
		l.world.Calls = nil
		l.must(nil, planner.ModeDestroy)
		if got := slices.Contains(strings.Split(l.calls(), "\n"), `volume.data["a"] delete`); got == kept {
			t.Errorf("may not be destroyed: %v; the provider was asked to remove what is left of it: %v", kept, got)
		}
		if len(l.world.Machinery)+len(l.state.Objects) != 0 {
			t.Errorf("left: %v", l.state.Objects)
		}
	}
	l := newLab(t)
	l.carry(onMachines)
	at := map[string]string{}
	for id, m := range l.world.Machinery {
		if m.Addr.Type == addr.TypeMachine {
			k := m.Addr.Key.Plain()
			if at[k] = m.Value.GetAttr("address").AsString(); k == "b" {
				delete(l.world.Machinery, id)
			}
		}
	}
	p, _ := l.of(strings.NewReplacer(`machine.n[each.key].address`, fmt.Sprintf(`{ a = %q, b = %q, c = %q }[each.key]`, at["a"], at["b"], at["c"]),
		"for_each = toset([\"a\", \"b\", \"c\"])\n  image", "for_each = toset([\"a\", \"c\"])\n  image").Replace(onMachines))
	if strings.Contains(diagnostics(p), "can't go from under") || !strings.Contains(actions(p), `machine.n["b"] delete gone`) {
		t.Errorf("a machine that is gone, under a node that stays:\n%s\n%s", diagnostics(p), actions(p))
	}
}

func diagnostics(p *planner.Plan) string {
	var out []string
	for _, d := range p.Diagnostics {
		out = append(out, d.Severity+" "+d.Summary+": "+d.Detail)
	}
	return strings.Join(out, "\n")
}

// More memory reboots machines: their nodes are drained and stopped before and come
// back after, one at a time; what is changed without a reboot touches no node.
func TestMachinesReboot(t *testing.T) {
	for _, diskless := range []bool{false, true} {
		l := newLab(t)
		l.world.Diskless = diskless
		l.carry(onMachines)
		more := strings.Replace(onMachines, "256MiB", "512MiB", 1)
		p, _ := l.carry(more)
		if p.Summary.Update != 6 || p.Quorum.Lowest < 2 {
			t.Errorf("summary %+v, quorum %+v", p.Summary, p.Quorum)
		}
		for _, k := range []string{"a", "b", "c"} {
			l.before(`node.n["`+k+`"] drain`, `node.n["`+k+`"] stop`, `machine.n["`+k+`"] update`, `node.n["`+k+`"] start`, `node.n["`+k+`"] resume`)
		}
		l.quiet(more)
		auto := strings.Replace(more, `image    =`, "autostart = true\n  image    =", 1)
		p, _ = l.carry(auto)
		if p.Summary.Update != 3 || len(p.Steps) != 0 {
			t.Errorf("summary %+v, steps %v", p.Summary, p.Steps)
		}
		l.quiet(auto)
		// Off: drift, which the apply mends, and the node on it comes back with it.
		l.world.TurnOff("n-b")
		p, _ = l.carry(auto)
		if len(p.Drift) == 0 || p.Drift[0].What[0] != "machine off" {
			t.Errorf("drift: %+v", p.Drift)
		}
		l.before(`machine.n["b"] update`, `node.n["b"] start`)
		l.quiet(auto)
		// What can't be reached ends with its machine.
		l.world.TurnOff("n-c")
		l.world.Ending = true
		l.must(nil, planner.ModeDestroy)
		if len(l.world.Machinery)+len(l.state.Objects) != 0 {
			t.Errorf("left: %v", l.state.Objects)
		}
	}
}

// The machine of a cluster's only node can't be made anew: the plan says what would be
// lost with it, and what to do.
func TestMachineOfSingleNode(t *testing.T) {
	one := strings.NewReplacer("majority_node_set", "single_node", `["a", "b", "c"]`, `["a"]`).Replace(onMachines)
	l := newLab(t)
	l.carry(one)
	p, _ := l.of(strings.Replace(one, "tiny-1", "tiny-2", 1))
	if got := diagnostics(p); !p.Errored || !strings.Contains(got, `node.n["a"] has the last vote`) || !strings.Contains(got, `machine.n["a"] is made anew, and the only copy of the cluster's database goes with it`) || !strings.Contains(got, "clusterplan destroy, then apply") {
		t.Errorf("the plan says %s\n%s", got, actions(p))
	}
}

// A machine that does not come loses its own node alone; the next apply goes on.
func TestMachineThatNeverComes(t *testing.T) {
	l := newLab(t)
	l.world.Fail = func(c plannertest.Call) error {
		if c.Addr.Type == addr.TypeMachine && c.Addr.Key.Plain() == "b" {
			return errors.New("no memory")
		}
		return nil
	}
	p, def := l.of(onMachines)
	l.planned = p
	res, _, err := l.apply(def, "")
	if err != nil || len(res.Failed) != 1 || len(l.world.Members) != 2 || len(l.world.Groups) != 1 {
		t.Fatalf("%v, failed %v, %d members, %d groups", err, res.Failed, len(l.world.Members), len(l.world.Groups))
	}
	// Nobody can tell whether some of it is there: a destroy doesn't call it gone.
	l.world.Hidden = fmt.Errorf("%w: no hypervisor answers", providers.ErrUnreachable)
	var b planner.Change
	for _, c := range l.plan(def, planner.ModeDestroy).Changes {
		if c.Address.String() == `machine.n["b"]` {
			b = c
		}
	}
	if b.Action() != "delete" {
		t.Errorf("a machine that was begun and can't be read: %s, %s", b.Action(), b.Why)
	}
	l.world.Fail, l.world.Hidden = nil, nil
	l.carry(onMachines)
	l.quiet(onMachines)
	for id, m := range l.world.Machinery { // none was made twice, and none is left behind
		if l.state.Find(m.Addr) == nil || l.state.Find(m.Addr).ID != id {
			t.Errorf("%s is an orphan", m.Addr)
		}
	}
}

// Killed at every write of the journal of what makes a machine anew: the next runs
// make nothing twice, leave nothing behind, and come to the same end.
func TestMachinesKilledAnywhere(t *testing.T) {
	for at := 1; ; at++ {
		l := newLab(t)
		l.conf = func(c *apply.Config) { c.Parallelism = 1 }
		l.carry(onMachines)
		next := strings.Replace(onMachines, `image    = "tiny-1"`, `image    = each.key == "b" ? "tiny-2" : "tiny-1"`, 1)
		p, def := l.of(next)
		l.planned = p
		l.journal.killAt, l.journal.after = (at+1)/2, at%2 == 0
		_, _, err := l.apply(def, "")
		if err == nil {
			if at < 20 {
				t.Fatalf("only %d writes", at/2)
			}
			return
		}
		l.journal.dead.Store(false)
		l.journal.killAt = 0
		l.conf = nil
		for range 2 {
			if p, def = l.of(next); !p.Applyable {
				break
			}
			if p.Errored {
				t.Fatalf("killed at %d: %s", at, diagnostics(p))
			}
			l.planned = p
			l.must(def, "")
		}
		l.quiet(next)
		if len(l.world.Machinery) != 7 || len(l.world.Hosts) != 3 || len(l.world.Members) != 3 {
			t.Fatalf("killed at %d: %d of machinery, %d hosts, %d members", at, len(l.world.Machinery), len(l.world.Hosts), len(l.world.Members))
		}
		if t.Failed() {
			return
		}
	}
}

// What is there already comes in by an import block, and by its name.
func TestMachinesImport(t *testing.T) {
	l := newLab(t)
	const net = "cluster \"c\" {\n  quorum { model = \"majority_node_set\" }\n}\nnode \"n\" { provider = local }\n" +
		"network \"lab\" {\n  provider = hypervisor\n  subnet = \"10.0.0.0/24\"\n}\nimport {\n  to = network.lab\n  id = \"lab\"\n}\n"
	s := l.world.Registry().Machinery()["hypervisor"]["network"]
	attrs := map[string]cty.Value{"bridge": cty.StringVal("br7"), "name": cty.StringVal("lab"), "provider": cty.StringVal("hypervisor"), "mode": cty.StringVal("nat"), "subnet": cty.StringVal("10.0.0.0/24")}
	if len(attrs) != len(s.Attributes) {
		t.Fatal("the schema has changed")
	}
	l.world.Machinery["5eed"] = &plannertest.Machinery{Addr: addr.Address{Type: addr.TypeNetwork, Name: "lab"}, Value: cty.ObjectVal(attrs)}
	p, res := l.carry(net)
	if p.Summary.Import != 1 || len(l.world.Machinery) != 1 || len(res.Failed) > 0 {
		t.Errorf("imports %d, of machinery %d", p.Summary.Import, len(l.world.Machinery))
	}
	if o := l.state.Find(addr.Address{Type: addr.TypeNetwork, Name: "lab"}); o == nil || o.ID != "5eed" {
		t.Errorf("in the state: %+v", o)
	}
	l.quiet(net)
}

// A part: a target takes the machine and the network that it needs along, and
// nothing is taken from under a node that is left out.
func TestMachinesPart(t *testing.T) {
	l := newLab(t)
	_, def := l.of(onMachines)
	l.planned = l.target(def, "network.lab")
	if got := actions(l.planned); got != "network.lab create not_in_state" {
		t.Errorf("plan:\n%s", got)
	}
	l.must(def, "")
	_, def = l.of(onMachines)
	l.planned = l.target(def, `node.n["a"]`)
	if got := actions(l.planned); got != "volume.data[\"a\"] create not_in_state\nmachine.n[\"a\"] create not_in_state\ncluster create not_in_state\nnode.n[\"a\"] create not_in_state" {
		t.Errorf("plan:\n%s", got)
	}
	l.must(def, "")
	l.carry(onMachines)
	l.quiet(onMachines)
	next := strings.Replace(onMachines, "tiny-1", "tiny-2", 1)
	_, def = l.of(next)
	if p, _ := l.part(def, func(in *planner.Input) { in.Targets = addrs(t, `machine.n["a"]`) }); !p.Errored || !strings.Contains(diagnostics(p), `node.n["a"] stands on machine.n["a"], and is left out`) {
		t.Errorf("not refused:\n%s", diagnostics(p))
	}
	l.planned = l.exclude(def, `machine.n["b"]`, `machine.n["c"]`)
	if got := actions(l.planned); l.planned.Errored || got != "machine.n[\"a\"] replace cannot_update\nnode.n[\"a\"] replace stands_on\ngroup.web update changed\ngroup.web.resource.app update changed" && got != "machine.n[\"a\"] replace cannot_update\nnode.n[\"a\"] replace stands_on\ngroup.web.resource.app update changed" {
		t.Errorf("plan:\n%s\n%s", got, diagnostics(l.planned))
	}
	l.must(def, "")
	l.carry(next)
	l.quiet(next)

	// Renamed blocks are the same machines, where their names stay.
	moved := strings.NewReplacer(`machine "n" {`, "machine \"m\" {\n  name = \"n-${each.key}\"", "machine.n", "machine.m").Replace(next) +
		"moved {\n  from = machine.n\n  to = machine.m\n}\n"
	p, _ := l.carry(moved)
	if p.Summary.Move != 3 || p.Summary.Replace+p.Summary.Create+p.Summary.Delete != 0 {
		t.Errorf("%+v:\n%s", p.Summary, actions(p))
	}
	l.quiet(moved)
}
