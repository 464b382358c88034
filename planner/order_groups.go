package planner

import (
	"slices"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/graph"
	"github.com/clusterplan/clusterplan/lang/addr"
)

// group makes one unit of a group and its resources.
func (o *orderer) group(it *item) {
	parts := o.parts[it.addr()]
	acts := it.acts()
	for _, p := range parts {
		acts = acts || p.acts()
	}
	if !acts {
		return
	}
	u := o.add(it, StageWhole)
	if it.change.Action() == "create" && !o.in.Only {
		u.Parts = make([]Part, 0, len(parts))
	}
	for _, p := range parts {
		if p.want == nil {
			u.Gone = append(u.Gone, p.addr())
			continue
		}
		if o.in.Only { // they are in no edge of their own
			continue
		}
		part := Part{Addr: p.addr(), ID: p.id, Type: p.want.Type, Config: p.want.config, Old: p.old, Change: p.change, Depends: p.want.hard(), Prevent: p.want.PreventDestroy}
		switch p.change.Action() {
		case "replace":
			part.ID = ""
		case "update", "no-op":
			part.Keep = p.keeper()
		}
		u.Parts = append(u.Parts, part)
	}
	o.groups = append(o.groups, u)
}

// groupEdges: after the nodes that may own them, what they depend on, and
// what gives up an address that they take.
func (o *orderer) groupEdges() {
	byName, needs := o.unitsByName(), o.leanings()
	release := o.releases()
	for _, u := range o.groups {
		if u.Action == "forget" {
			continue // of the state alone
		}
		o.needQuorum(u.Key)
		if o.units[markRolled] != nil {
			o.g.AddEdge(u.Key, markRolled, graph.Soft)
		}
		if o.units[markFences] != nil {
			o.g.AddEdge(u.Key, markFences, graph.Soft)
		}
		if u.Config != cty.NilVal {
			for _, name := range ownerNames(u.Config) {
				for _, k := range byName[name] {
					o.g.AddEdge(u.Key, k, graph.Soft)
				}
			}
		}
		if o.units[markGroups] != nil {
			o.g.AddEdge(markGroups, u.Key, graph.Soft)
		}
		it := o.at.At(u.Key.Addr)
		if it.want != nil {
			for _, dep := range append(slices.Clone(it.want.hard()), o.partNeeds(it)...) {
				o.waitChecked(u.Key, dep)
				d := o.unitOf(dep.Owner())
				if d == nil || d == u || d.Config == cty.NilVal {
					continue
				}
				// Two groups that are there already can change in any order;
				// one that waits for an address of the other goes last.
				if u.Action != "create" && d.Action != "create" && (release[[2]addr.Address{d.Key.Addr, u.Key.Addr}]) {
					continue
				}
				o.g.AddEdge(u.Key, d.Key, graph.Hard)
			}
		}
		for _, d := range needs(u) {
			if d.Action == "delete" { // a group goes only once nothing depends on it any more
				o.g.AddEdge(d.Key, u.Key, graph.Hard)
			}
		}
	}
	for pair := range release {
		o.g.AddEdge(Key{pair[0], StageWhole}, Key{pair[1], StageWhole}, graph.Hard)
	}
	o.nodeNeeds()
}

// partNeeds is what a group's resources refer to outside of it.
func (o *orderer) partNeeds(it *item) []addr.Address {
	var out []addr.Address
	for _, p := range o.parts[it.addr()] {
		if p.want == nil {
			continue
		}
		for _, dep := range p.want.hard() {
			if dep.Owner() != it.addr() {
				out = append(out, dep)
			}
		}
	}
	return out
}
