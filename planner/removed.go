package planner

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// forgets tells whether a removed block says that the object goes on, and only
// the state forgets it. prevent_destroy says nothing against that.
func (b *builder) forgets(it *item) bool {
	if b.in.Definition == nil || b.destroy {
		return false
	}
	r := b.in.Definition.Removed(it.addr())
	return r != nil && !r.Destroy
}

// forget plans to take an object out of the state, and nothing else.
func (b *builder) forget(it *item) {
	c := it.change
	c.Actions, c.Reason = ActionForget, ReasonRemoved
	c.Why = []string{"by a removed block; it goes on, and is not managed any more"}
	if it.prior != nil {
		c.Before = it.veil(b.shapes[c.Type].guard(it.prior.Value))
	}
	if it.addr().Type != addr.TypeNode {
		return
	}
	d := problem(hcl.DiagWarning, it.addr().String()+" stays a member",
		fmt.Sprintf("The state forgets it, and the cluster doesn't: it keeps its vote, may own groups, and nobody starts its agent again or renews its certificate. To take it out of the cluster, remove the block for %s.", it.addr()))
	if r := b.in.Definition.Removed(it.addr()); r != nil {
		d.Subject = &r.Range
	}
	b.diags = append(b.diags, d)
}

// leftBehind warns of nodes whose place others take while their hosts, which stay,
// can't be reached: nothing is stopped there but by the node itself.
func (b *builder) leftBehind() {
	goes := func(a addr.Address) bool {
		on := b.at.At(a)
		return addr.Machinery(a.Type) && on != nil && (on.change.Action() == "delete" || on.change.Action() == "replace")
	}
	for _, it := range b.items {
		action := it.change.Action()
		if it.addr().Type != addr.TypeNode || !it.silent || it.old == nil || action != "replace" && (action != "delete" || it.addr().Deposed() == "") ||
			b.sinks(it) != nil || slices.ContainsFunc(it.old.DependsOn, goes) {
			continue
		}
		b.diags = append(b.diags, problem(hcl.DiagWarning, "The host that "+it.addr().Current().String()+" leaves can't be reached",
			"Its agent may still run there, and nobody stops it. It loses its lease before any of its groups starts elsewhere, and gets none again: it is no member any more. But its directory stays, and what outlives a lease (\"not held\") may run on: where that must not be, turn the host off or fence it before this is applied. Once it is back, stop the agent and remove the directory, or make the host anew."))
	}
}

// goesOn has the cluster after the apply hold what is only forgotten, and members
// and groups that this state doesn't have: they keep their votes, and move.
func (b *builder) goesOn() {
	live := b.in.World.Live
	if live == nil || b.destroy {
		return
	}
	ids := make(map[string]bool, len(b.items))
	for _, it := range b.items {
		ids[it.id] = true
	}
	b.strayMembers(live, ids)
	b.strayGroups(live, ids)
	if b.plan.Summary.Forget == 0 {
		return
	}
	forgotten := map[string]bool{}
	for _, it := range b.items {
		if it.change.Reason == ReasonRemoved {
			forgotten[it.id] = true
		}
	}
	for i := range live.Members {
		if m := &live.Members[i].Spec; forgotten[m.ID] {
			b.after.Nodes = append(slices.Clip(b.after.Nodes), *m)
		}
	}
	for i := range live.Groups {
		if g := &live.Groups[i].Spec; forgotten[g.ID] {
			b.after.Groups = append(slices.Clip(b.after.Groups), *g)
		}
	}
}

// strayMembers are those that neither the state nor the definition knows, by
// their ids or their names.
func (b *builder) strayMembers(live *providers.Live, ids map[string]bool) {
	names := make(map[string]bool, len(b.after.Nodes))
	for i := range b.after.Nodes {
		names[b.after.Nodes[i].Name] = true
	}
	for i := range live.Members {
		if m := &live.Members[i].Spec; !ids[m.ID] && !names[m.Name] {
			b.after.Nodes = append(slices.Clip(b.after.Nodes), *m)
		}
	}
}

// strayGroups are the groups likewise: nobody touches them, and they move with the
// nodes that they run on.
func (b *builder) strayGroups(live *providers.Live, ids map[string]bool) {
	var strays []*spec.Group
	for i := range live.Groups {
		if g := &live.Groups[i].Spec; !ids[g.ID] {
			strays = append(strays, g)
		}
	}
	if len(strays) == 0 {
		return
	}
	names, addrs := make(map[string]bool, len(b.after.Groups)), make(map[addr.Address]bool, len(b.after.Groups))
	for i := range b.after.Groups {
		names[b.after.Groups[i].Name], addrs[b.after.Groups[i].Addr] = true, true
	}
	b.after.Groups = slices.Clip(b.after.Groups) // the definition's own is not to be written
	for _, g := range strays {
		if !names[g.Name] && !addrs[g.Addr] {
			b.after.Groups = append(b.after.Groups, *g)
		}
	}
}
