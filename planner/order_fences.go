package planner

import (
	"fmt"
	"slices"

	"github.com/clusterplan/clusterplan/graph"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// fence makes a fence's unit.
func (o *orderer) fence(it *item) {
	if it.acts() {
		o.fences = append(o.fences, o.add(it, StageWhole))
	}
}

// fenceEdges: new and changed fences after the nodes that they cover and before
// the groups that rely on them; one goes when no group changes any more.
func (o *orderer) fenceEdges() {
	byName := o.unitsByName()
	for _, u := range o.fences {
		o.needQuorum(u.Key)
		if u.Action == "delete" || u.Action == "forget" {
			if len(o.groups) > 0 {
				o.mark(markGroups)
				o.g.AddEdge(u.Key, markGroups, graph.Soft)
			}
			continue
		}
		if o.units[markRolled] != nil {
			o.g.AddEdge(u.Key, markRolled, graph.Soft)
		}
		for _, name := range ownerNames(u.Config) {
			for _, k := range byName[name] {
				o.g.AddEdge(u.Key, k, graph.Soft)
			}
		}
		o.mark(markFences)
		o.g.AddEdge(markFences, u.Key, graph.Soft)
	}
}

// refuseSwaps refuses to move a node to another machine while a fence has it by its
// old one and that stays. The fence learns of it only when the node is on the other
// one: until then, and for long where an apply is cut off, it would turn the old
// machine off, see that it is, and take the node for off, which runs.
func (b *builder) refuseSwaps() {
	if !slices.ContainsFunc(b.after.Fences, func(f spec.Fence) bool { return f.Agent == spec.FenceLibvirt }) {
		return
	}
	stays := map[string]*item{}
	for _, it := range b.items {
		if it.want != nil && it.addr().Type == addr.TypeMachine {
			if name := it.want.config.GetAttr("name"); name.IsKnown() && !name.IsNull() && !name.IsMarked() {
				stays[name.AsString()] = it
			}
		}
	}
	if len(stays) == 0 {
		return
	}
	plug := func(f *spec.Fence, node string) string {
		if p, ok := f.Plugs[node]; ok {
			return p
		}
		return node
	}
	was := b.fromState().Fences
	for i := range was {
		f := &was[i]
		it := b.at.At(f.Addr)
		k := slices.IndexFunc(b.after.Fences, func(o spec.Fence) bool { return o.Addr == f.Addr })
		if f.Agent != spec.FenceLibvirt || k < 0 || it == nil || it.want == nil {
			continue
		}
		for j := range b.after.Nodes {
			n := &b.after.Nodes[j]
			node, old, next := b.at.At(n.Addr), plug(f, n.Name), plug(&b.after.Fences[k], n.Name)
			if len(f.Nodes) > 0 && !slices.Contains(f.Nodes, n.Name) || old == next || stays[old] == nil || node == nil || node.change.Action() != "replace" {
				continue
			}
			b.fail(it, "Fence that would turn off another machine", fmt.Sprintf("%s goes from machine %s to %s, and %s stays (%s). Until this fence is told, which is after the node has moved, it would turn off %[2]s for it, and take the node for off while it runs. First have the fence cover the node no more, in an apply of its own (nodes of its block; of the default one, enabled = false in block fence of the provider), then move it, then have it covered again.", n.Addr, old, next, old, stays[old].addr()))
		}
	}
}
