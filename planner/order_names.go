package planner

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/graph"
)

// sortNames has nodes that give a name up change before those that take it, for the
// cluster has no two of one name at any moment. Where nobody can be first that is
// refused.
func (o *orderer) sortNames() {
	o.keptNames()
	gives := map[string]*Unit{} // by the name that its node has now
	for _, u := range slices.Concat(o.joins, o.rolls) {
		if u.Action == "update" && u.Prior != nil {
			if was := nameIn(u.Prior.Value, u.Key.Addr); was != nameOf(u) {
				gives[was] = u
			}
		}
	}
	if len(gives) == 0 {
		return
	}
	giver := func(u *Unit) *Unit {
		if g := gives[nameOf(u)]; g != u && !u.Beside {
			return g
		}
		return nil
	}
	done := map[*Unit]bool{}
	var stuck []*Unit
	sort := func(units []*Unit) []*Unit {
		sorted, rest := make([]*Unit, 0, len(units)), slices.Clone(units)
		for len(rest) > 0 {
			i := slices.IndexFunc(rest, func(u *Unit) bool { g := giver(u); return g == nil || done[g] })
			if i < 0 {
				stuck = append(stuck, rest...)
				return append(sorted, rest...)
			}
			u := rest[i]
			if g := giver(u); g != nil {
				o.g.AddEdge(u.Key, g.Key, graph.Hard)
			}
			sorted, rest, done[u] = append(sorted, u), slices.Delete(rest, i, i+1), true
		}
		return sorted
	}
	o.joins = sort(o.joins)
	o.rolls = sort(o.rolls)
	var words []string
	for _, u := range stuck {
		if g := giver(u); g != nil {
			words = append(words, u.Key.Addr.String()+" takes "+nameOf(u)+", which "+g.Key.Addr.String()+" has")
		}
	}
	if len(stuck) > 0 {
		o.diags = append(o.diags, problem(hcl.DiagError, "Names that are not free",
			strings.Join(words, "; ")+". Names are unique at every moment, so none of these can be the first. Do it in two applies: first give one of them a name that nobody has."))
	}
}

// keptNames refuses what takes the name of a node that leaves: that has it until the end.
func (o *orderer) keptNames() {
	if o.in.World.Live == nil || o.destroy {
		return
	}
	leaves := map[string]*Unit{} // by id
	for _, u := range slices.Concat(o.early, o.leaves) {
		if u.Key.Addr.Deposed() == "" {
			leaves[u.ID] = u
		}
	}
	kept := map[string]*Unit{} // by name
	for _, m := range o.in.World.Live.Members {
		if u := leaves[m.Spec.ID]; u != nil {
			kept[m.Spec.Name] = u
		}
	}
	for _, u := range slices.Concat(o.joins, o.rolls) {
		if k := kept[nameOf(u)]; k != nil && !u.Beside {
			o.diags = append(o.diags, problem(hcl.DiagError, u.Key.Addr.String()+" takes a name that is not free",
				k.Key.Addr.String()+" is called "+nameOf(u)+", and leaves only after others have joined. If they are one node, say so with a moved block from "+k.Key.Addr.String()+" to "+u.Key.Addr.String()+
					"; else give the new one another name, or have "+k.Key.Addr.String()+" leave in an apply before."))
		}
	}
}
