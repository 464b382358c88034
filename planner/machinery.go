package planner

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/graph"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// Machines, networks and volumes are what nodes stand on. What stands on
// something is made anew with it, and a node is out while its machine is made
// anew or reboots: its way out comes before that, its way back after. Both are
// one turn of the rolling order, so that the next node's turn waits for it.

// sinks is what an object stands on that is made anew; nil: nothing is.
func (b *builder) sinks(it *item) *item {
	if it.want == nil {
		return nil
	}
	for _, a := range it.want.on() {
		if on := b.at.At(a); on != nil && on.change.Action() == "replace" {
			return on
		}
	}
	return nil
}

// underneath says why an object is made anew for what it stands on: that is made
// anew, or, of a node, it is another machine than before. "": it is not.
func (b *builder) underneath(it *item) string {
	if on := b.sinks(it); on != nil {
		return "it stands on " + on.addr().String() + ", which is made anew"
	}
	if it.addr().Type != addr.TypeNode || it.want == nil || it.old == nil {
		return ""
	}
	machine := func(a addr.Address) bool { return a.Type == addr.TypeMachine }
	i := slices.IndexFunc(it.want.on(), machine)
	if i < 0 || !slices.ContainsFunc(it.old.DependsOn, machine) ||
		slices.ContainsFunc(it.want.on(), func(a addr.Address) bool { return machine(a) && slices.Contains(it.old.DependsOn, a) }) {
		return ""
	}
	return "it stands on another machine, " + it.want.on()[i].String()
}

// reboots is what a node stands on that reboots by its change; nil: nothing does.
func (b *builder) reboots(it *item) *item {
	if it.want == nil || it.addr().Type != addr.TypeNode {
		return nil
	}
	for _, a := range it.want.on() {
		if on := b.at.At(a); on != nil && on.addr().Type == addr.TypeMachine && on.change.Action() == "update" && on.change.Impact == spec.ImpactReboot {
			return on
		}
	}
	return nil
}

// afterReboot is what brings a node back after its machine has rebooted: each
// finds what is there as it should be, or makes it so, for a machine without a
// disk of its own comes back empty.
var afterReboot = []string{providers.PhaseInstall, providers.PhaseStart, providers.PhaseJoin, providers.PhasePromote}

// rebootNodes has nodes whose machines reboot be drained and stopped before it
// and started after it.
func (b *builder) rebootNodes() {
	for _, it := range b.items {
		c := it.change
		if it.left || it.prior == nil || it.addr().Deposed() != "" || c.Action() != "no-op" && c.Action() != "update" {
			continue
		}
		on := b.reboots(it)
		if on == nil {
			continue
		}
		phases := afterReboot
		if b.serves(it) {
			phases = append([]string{providers.PhaseDrain, providers.PhaseStop, providers.PhaseResume}, phases...)
		} else { // there is nothing to drain, and nobody to stop it
			it.phases = slices.DeleteFunc(slices.Clone(it.phases), func(p string) bool { return p == providers.PhaseDrain || p == providers.PhaseStop })
		}
		for _, p := range phases {
			if !slices.Contains(it.phases, p) {
				it.phases = append(slices.Clip(it.phases), p)
			}
		}
		inSequence(it.phases)
		if c.Action() == "no-op" {
			c.Actions, c.Reason = ActionUpdate, ReasonReboots
			c.Before = it.veil(b.shapes[c.Type].guard(it.prior.Value))
			c.After = c.Before
		}
		c.Impact = stronger(c.Impact, spec.ImpactReboot)
		c.Why = append(c.Why, on.addr().String()+" reboots")
		c.Phases = it.phases
		c.DependsOn = it.want.hard()
	}
}

// serves tells whether a node's agent runs, as far as anyone can tell.
func (b *builder) serves(it *item) bool {
	if m := b.member(it.id); m != nil && (m.Node == spec.NodeUp || m.Node == spec.NodePaused) {
		return true
	}
	down := slices.ContainsFunc(it.prior.Health, func(h string) bool {
		return h == providers.HealthNotRunning || strings.HasPrefix(h, providers.HealthGone)
	})
	return !it.silent && !down
}

// comesBack tells whether a node's machine is made anew or reboots: if it can't be
// reached now, it can then.
func (b *builder) comesBack(it *item) bool { return b.sinks(it) != nil || b.reboots(it) != nil }

// standing are the nodes that stand on something, also by way of a machine.
func (b *builder) standing(on addr.Address) []*item {
	var out []*item
	seen := map[addr.Address]bool{on: true}
	for grown := true; grown; {
		grown = false
		for _, it := range b.items {
			if it.want == nil || seen[it.addr()] || !slices.ContainsFunc(it.want.on(), func(a addr.Address) bool { return seen[a] }) {
				continue
			}
			seen[it.addr()], grown = true, true
			if it.addr().Type == addr.TypeNode {
				out = append(out, it)
			}
		}
	}
	slices.SortFunc(out, func(x, y *item) int { return addr.Compare(x.addr(), y.addr()) })
	return out
}

// stoodOn tells whether a node is on a machine: it has depended on it, and has an
// address that the machine has.
func (b *builder) stoodOn(it, on *item) bool {
	address := unmark(attribute(it.prior.Value, "address"))
	if it.old == nil || on.old == nil || !slices.Contains(it.old.DependsOn, on.addr()) || isAbsent(address) || !address.IsKnown() {
		return false
	}
	host := address.AsString()
	if ap, err := netip.ParseAddrPort(host); err == nil {
		host = ap.Addr().String()
	} else if name, _, ok := strings.Cut(host, ":"); ok && !strings.Contains(host, "::") {
		host = name
	}
	for name, a := range b.shapes[on.old.Type].attrs {
		v := unmark(attribute(b.attributes(on), name))
		switch {
		case !a.Computed || isAbsent(v) || !v.IsWhollyKnown():
		case v.Type() == cty.String && v.AsString() == host:
			return true
		case v.Type() == cty.List(cty.String) && v.LengthInt() > 0 && slices.ContainsFunc(v.AsValueSlice(), func(e cty.Value) bool { return e.RawEquals(cty.StringVal(host)) }):
			return true
		}
	}
	return false
}

// groundRules refuses what would take away or make anew what a node still needs.
func (b *builder) groundRules() {
	if b.destroy || b.rereads {
		return
	}
	for _, on := range b.items {
		if !addr.Machinery(on.addr().Type) || on.left {
			continue
		}
		action := on.change.Action()
		if action == "delete" && on.change.Reason != ReasonGone {
			for _, it := range b.items {
				if it.addr().Type != addr.TypeNode || it.prior == nil || it.want == nil || it.change.Action() == "replace" || !b.stoodOn(it, on) {
					continue
				}
				b.fail(it, fmt.Sprintf("%s can't go from under %s", on.addr(), it.addr()),
					fmt.Sprintf("The definition has no %s any more, and %s stands on it and is not made anew. Leave it in; or to have it go on without being managed: removed { from = %s, lifecycle { destroy = false } }.", on.addr(), it.addr(), on.addr()))
			}
		}
		if action != "replace" && (action != "update" || on.change.Impact != spec.ImpactReboot) {
			continue
		}
		for _, it := range b.standing(on.addr()) {
			if it.left && it.prior != nil {
				b.fail(it, fmt.Sprintf("%s stands on %s, and is left out", it.addr(), on.addr()),
					fmt.Sprintf("It has to be taken out of the cluster before %s %s. Take it into the plan as well, or leave both out.", on.addr(), anew(action)))
			}
		}
	}
}

func anew(action string) string {
	if action == "replace" {
		return "is made anew"
	}
	return "reboots"
}

// together refuses to take at once what several nodes of the cluster stand on:
// one node after the other is what keeps the quorum, and that can't wait for them.
func (o *orderer) together() bool {
	refused := false
	told := map[string]bool{}
	for _, on := range o.items {
		action := on.change.Action()
		if !addr.Machinery(on.addr().Type) || on.left || action != "replace" && (action != "update" || on.change.Impact != spec.ImpactReboot) {
			continue
		}
		var names []string
		for _, it := range o.standing(on.addr()) {
			if o.units[Key{it.addr(), StageRoll}] != nil {
				names = append(names, it.addr().String())
			}
		}
		if len(names) < 2 {
			continue
		}
		refused = true
		all := strings.Join(names, ", ")
		if told[all] {
			continue
		}
		told[all] = true
		o.diags = append(o.diags, problem(hcl.DiagError, QuorumLost,
			fmt.Sprintf("%s %s, and %s stand on it: all of them would be out at once. Add another one beside it, and let one node after the other move there (each gets a machine of its own on it), in applies of their own; remove this one once nothing stands on it.", on.addr(), anew(action), all)))
	}
	return refused
}

// machinery makes the units of a machine, network or volume: what is made anew is
// taken away and made in two, for what stands on it goes before and comes after.
func (o *orderer) machinery(it *item) {
	if !it.acts() {
		return
	}
	switch it.change.Action() {
	case "delete":
		o.add(it, StageOut)
	case "replace":
		out := o.add(it, StageOut)
		out.Action, out.Config, out.Phases, out.Instead, out.Last = "delete", cty.NilVal, nil, true, false
		o.add(it, StageWhole).anew()
	default:
		o.add(it, StageWhole)
	}
}

// anew makes a unit that of the new object alone, where another unit takes the old
// one away.
func (u *Unit) anew() {
	u.Action, u.ID, u.Prior, u.Old, u.Remove, u.Instead = "create", "", nil, nil, nil, true
}

// split makes two units of a node's turn among the rolling changes where its
// machine is made anew or reboots in the middle of it; and of the start of one that
// is made anew before there is a cluster.
func (o *orderer) split() {
	for _, u := range slices.Concat(o.rolls, o.ups) {
		it := o.at.At(u.Key.Addr)
		if (u.Key.Stage != StageRoll || !o.comesBack(it)) && (u.Key.Stage != StageUp || u.Action != "replace") {
			continue
		}
		out := *u
		out.Key.Stage, out.Last, out.Any, out.Of = StageOut, false, 0, nil
		switch u.Action {
		case "replace":
			out.Action, out.Config, out.Phases, out.Instead, out.Ground = "delete", cty.NilVal, nil, true, o.sinks(it) != nil
			u.anew()
		default:
			n := 0
			for n < len(u.Phases) && slices.Contains(takesOut, u.Phases[n]) {
				n++
			}
			out.Phases, u.Phases = u.Phases[:n:n], u.Phases[n:]
		}
		o.units[out.Key] = &out
		o.g.AddVertex(out.Key)
		for _, dep := range o.dependencies(u.Key) {
			o.g.AddEdge(out.Key, dep.key, dep.kind)
		}
		o.g.AddEdge(u.Key, out.Key, graph.Hard)
		if u.Key.Stage == StageUp && o.cluster != nil {
			o.g.AddEdge(o.cluster.Key, out.Key, graph.Soft) // it is not begun on one that goes
		}
	}
}

type dependency struct {
	key  Key
	kind graph.Kind
}

func (o *orderer) dependencies(k Key) []dependency {
	var out []dependency
	for key, kind := range o.g.Dependencies(k) {
		out = append(out, dependency{key, kind})
	}
	return out
}

// standsOn is what an object was made with that is there, or that a create which was
// cut off had begun to make: that has to outlive it.
func (b *builder) standsOn(it *item) []addr.Address {
	if it.old != nil {
		return it.old.DependsOn
	}
	if p := b.pending[it.addr()]; p != nil && p.Object != nil {
		return p.Object.DependsOn
	}
	return nil
}

// machineryEdges: what stands on something is made after it, and goes before it.
func (o *orderer) machineryEdges() {
	if !slices.ContainsFunc(o.items, func(it *item) bool { return addr.Machinery(it.addr().Type) }) {
		return
	}
	for _, it := range o.items {
		first, goes := o.ends(it)
		if it.want != nil && first != nil && !o.destroy {
			for _, needed := range [][]addr.Address{it.want.hard(), it.want.soft()} {
				for _, dep := range needed {
					if u := o.units[Key{dep, StageWhole}]; addr.Machinery(dep.Type) && u != nil && u.Action != "forget" {
						o.g.AddEdge(first.Key, u.Key, graph.Hard)
					}
				}
			}
		}
		if out, whole := o.units[Key{it.addr(), StageOut}], o.units[Key{it.addr(), StageWhole}]; addr.Machinery(it.addr().Type) && out != nil && whole != nil {
			o.g.AddEdge(whole.Key, out.Key, graph.Hard)
		}
		if goes == nil || it.old == nil && goes.Action != "delete" {
			continue
		}
		for _, dep := range o.standsOn(it) {
			u := o.units[Key{dep, StageOut}]
			if o.units[Key{dep, StageWhole}] != nil && goes.Key.Stage != StageOut && goes.Key.Stage != StageLeave && it.want != nil && refersTo(it.want, dep) {
				continue // it follows what is made anew, and has no way out of its own
			}
			if addr.Machinery(dep.Type) && u != nil && u != goes {
				o.g.AddEdge(u.Key, goes.Key, graph.Hard)
				goes.Ground = goes.Ground || goes.Key.Stage == StageLeave
			}
		}
	}
	for _, it := range o.items {
		out := o.units[Key{it.addr(), StageOut}]
		if on := o.reboots(it); out != nil && on != nil {
			o.g.AddEdge(Key{on.addr(), StageWhole}, out.Key, graph.Hard)
		}
	}
}

func refersTo(w *wanted, dep addr.Address) bool {
	return slices.Contains(w.hard(), dep) || slices.Contains(w.soft(), dep)
}

// ends are the unit with which an object begins to be made, and the one with which
// the old one is gone; nil: there is none.
func (o *orderer) ends(it *item) (first, goes *Unit) {
	unit := func(stages ...Stage) *Unit {
		for _, s := range stages {
			if u := o.units[Key{it.addr(), s}]; u != nil && u.Action != "forget" {
				return u
			}
		}
		return nil
	}
	if it.addr().Type == addr.TypeNode {
		return unit(StageUp, StageRoll, StageJoin), unit(StageLeave, StageOut, StageRoll, StageJoin, StageUp)
	}
	owner := it.addr().Owner() // a resource comes and goes with its group
	u := o.units[Key{owner, StageWhole}]
	if u != nil && u.Action == "forget" {
		return nil, nil
	}
	if out := unit(StageOut); out != nil && !it.addr().IsResource() {
		return u, out
	}
	if o.destroy {
		return nil, u
	}
	return u, u
}
