package planner

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/graph"
	"github.com/clusterplan/clusterplan/lang/addr"
)

// The cluster has no two nodes of one name at any moment. So who gives a name up has its
// turn before who takes it, as far as the stages allow; else the plan is refused.

// namesNow are the names that the cluster has for its nodes, by id. Where it can't be
// asked they are taken to be those that they were seen with.
func (o *orderer) namesNow() map[string]string {
	if o.destroy || o.fresh {
		return nil
	}
	if o.in.World.Live != nil {
		return maps.Clone(o.called)
	}
	now := map[string]string{}
	for _, it := range o.items {
		if it.addr().Type == addr.TypeNode && it.id != "" && it.prior != nil {
			now[it.id] = nameIn(it.prior.Value, it.addr())
		}
	}
	return now
}

// takes is the name that a unit's node gets with its turn; "": none.
func (o *orderer) takes(u *Unit) string {
	if u.Beside || u.Action == "delete" || u.Action == "forget" {
		return ""
	}
	return nameOf(u)
}

// goes tells whether a unit takes away the node that was there.
func (u *Unit) goes() bool { return u.Action == "delete" || u.Action == "replace" }

// sortNames has those that give a name up come before those that take it, among the
// joins and among the rolls. One that is made anew takes its name after the old one has
// left.
func (o *orderer) sortNames() {
	now := o.namesNow()
	sort := func(units []*Unit) []*Unit {
		gives := map[string]*Unit{}
		for _, u := range units {
			if was := now[u.ID]; was != "" && (u.goes() || !u.Beside && o.takes(u) != was) {
				gives[was] = u
			}
		}
		done := map[*Unit]bool{}
		ready := func(u *Unit) bool {
			name := o.takes(u)
			if n := o.units[Key{u.Key.Addr.Current(), StageName}]; n != nil && u.Key.Stage != StageJoin {
				name = nameOf(n)
			}
			g := gives[name]
			return g == nil || done[g] || g.Key.Addr.Current() == u.Key.Addr.Current()
		}
		sorted, rest := make([]*Unit, 0, len(units)), slices.Clone(units)
		for len(rest) > 0 {
			i := slices.IndexFunc(rest, ready)
			if i < 0 { // a circle, which is refused
				return append(sorted, rest...)
			}
			u := rest[i]
			sorted, rest, done[u] = append(sorted, u), slices.Delete(rest, i, i+1), true
		}
		return sorted
	}
	o.joins, o.rolls = sort(o.joins), sort(o.rolls)
}

// passNames follows the names through the plan: who takes one waits for who gives it up,
// and what would be taken while another has it is refused.
func (o *orderer) passNames(batches [][]*Unit) {
	now := o.namesNow()
	if len(now) == 0 {
		return
	}
	has, gave := make(map[string]string, len(now)), map[string]*Unit{} // has: the id, by name
	for id, name := range now {
		has[name] = id
	}
	var words []string
	turn := func(units []*Unit) {
		for _, u := range units {
			id := cmp.Or(u.ID, u.Key.String()) // of one that is made
			free := func() {
				if was, named := now[id]; named {
					delete(has, was)
					delete(now, id)
					gave[was] = u
				}
			}
			if u.goes() && u.Key.Stage != StageName {
				free()
			}
			name := o.takes(u)
			if name == "" || name == now[id] {
				continue
			}
			if who, taken := has[name]; taken {
				if text := o.keeps(u, who, name); text != "" {
					words = append(words, text)
				}
				continue
			}
			if g := gave[name]; g != nil && g != u {
				o.g.AddEdge(u.Key, g.Key, graph.Hard)
			}
			free()
			now[id], has[name] = name, id
		}
	}
	turn(o.joins)
	turn(o.early)
	turn(o.named[0])
	for i, batch := range batches {
		turn(batch)
		turn(o.named[i+1])
	}
	if len(words) > 0 {
		o.diags = append(o.diags, problem(hcl.DiagError, "Names that are not free",
			strings.Join(words, "; ")+". Names are unique at every moment, and these would be taken before they are free. Do it in two applies: first give one of them a name that nobody has."))
	}
}

// keeps says why the node with the id still has the name that u takes, or refuses u, with
// what to do, where that is another thing than to go by another name.
func (o *orderer) keeps(u *Unit, id, name string) string {
	i := slices.IndexFunc(o.items, func(it *item) bool { return it.addr().Type == addr.TypeNode && it.id == id })
	if i < 0 {
		return "" // somebody else's, or one that comes in this plan, which the definition has twice
	}
	it, at := o.items[i], u.Key.Addr.String()
	who := it.addr().Current().String()
	refuse := func(detail string) string {
		o.diags = append(o.diags, problem(hcl.DiagError, at+" takes a name that is not free", who+" is called "+name+", and "+detail))
		return ""
	}
	switch {
	case it.left:
		return refuse("is left out of this plan. Take it into the plan as well, or give " + at + " another name.")
	case it.want != nil || it.addr().Deposed() != "":
		return at + " takes " + name + ", which " + who + " has"
	case it.change.Action() == "forget":
		return refuse("stays in the cluster when the state forgets it. Give " + at + " another name.")
	case u.Action == "create" && u.Key.Stage != StageName:
		return refuse("leaves only after others have joined. If they are one node, say so with a moved block from " + who + " to " + at +
			"; else give the new one another name, or have " + who + " leave in an apply before.")
	}
	return refuse("leaves only after others have joined. Give " + at + " another name, or have " + who + " leave in an apply before.")
}
