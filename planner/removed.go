package planner

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/providers"
)

// forgets tells whether a removed block says that the object goes on, and only
// the state forgets it. prevent_destroy says nothing against that.
func (b *builder) forgets(it *item) bool {
	if b.in.Definition == nil || b.destroy {
		return false
	}
	r := b.in.Definition.Removed(it.addr)
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
	if it.addr.Type != addr.TypeNode {
		return
	}
	d := problem(hcl.DiagWarning, it.addr.String()+" stays a member",
		fmt.Sprintf("The state forgets it, and the cluster doesn't: it keeps its vote, may own groups, and nobody starts its agent again or renews its certificate. To take it out of the cluster, remove the block for %s.", it.addr))
	if r := b.in.Definition.Removed(it.addr); r != nil {
		d.Subject = &r.Range
	}
	b.diags = append(b.diags, d)
}

// goesOn has the cluster after the apply hold what is only forgotten, and members
// and groups that this state doesn't have: they keep their votes, and move.
func (b *builder) goesOn() {
	live := b.in.World.Live
	if live == nil || b.destroy {
		return
	}
	b.strayMembers(live)
	b.strayGroups(live)
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
func (b *builder) strayMembers(live *providers.Live) {
	known := make(map[string]bool, 2*len(b.after.Nodes))
	for _, it := range b.items {
		known[it.id] = true
	}
	for i := range b.after.Nodes {
		known[b.after.Nodes[i].Name] = true
	}
	for i := range live.Members {
		if m := &live.Members[i].Spec; !known[m.ID] && !known[m.Name] {
			b.after.Nodes = append(slices.Clip(b.after.Nodes), *m)
		}
	}
}

// strayGroups are the groups likewise: nobody touches them, and they move with the
// nodes that they run on.
func (b *builder) strayGroups(live *providers.Live) {
	known := make(map[string]bool, 3*len(b.after.Groups))
	for _, it := range b.items {
		known[it.id] = true
	}
	for i := range b.after.Groups {
		known[b.after.Groups[i].Name], known[b.after.Groups[i].Addr.String()] = true, true
	}
	for i := range live.Groups {
		if g := &live.Groups[i].Spec; !known[g.ID] && !known[g.Name] && !known[g.Addr.String()] {
			b.after.Groups = append(slices.Clip(b.after.Groups), *g)
		}
	}
}
