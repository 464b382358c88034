package planner

import "github.com/clusterplan/clusterplan/graph"

// destroyEdges: groups go dependents first, then fences, then every node, then what is left.
func (o *orderer) destroyEdges() {
	needs := o.leanings()
	for _, u := range o.groups {
		for _, d := range needs(u) {
			o.g.AddEdge(d.Key, u.Key, graph.Soft)
		}
	}
	if len(o.groups) > 0 {
		o.mark(markGroups)
		for _, u := range o.groups {
			o.g.AddEdge(markGroups, u.Key, graph.Soft)
		}
	}
	for _, u := range o.leaves {
		if len(o.groups) > 0 {
			o.g.AddEdge(u.Key, markGroups, graph.Soft)
		}
	}
	for _, u := range o.fences {
		if len(o.groups) > 0 {
			o.g.AddEdge(u.Key, markGroups, graph.Soft)
		}
		for _, n := range o.leaves { // while someone answers for the database
			o.g.AddEdge(n.Key, u.Key, graph.Soft)
		}
	}
	if o.cluster != nil {
		for _, u := range o.fences {
			o.g.AddEdge(o.cluster.Key, u.Key, graph.Soft)
		}
		if len(o.groups) > 0 {
			o.g.AddEdge(o.cluster.Key, markGroups, graph.Soft)
		}
		for _, u := range o.leaves {
			o.g.AddEdge(o.cluster.Key, u.Key, graph.Hard)
		}
	}
}

// leanings tells what a group that is there depends on: as the cluster has it, where
// it was asked, for an apply that was cut off may have changed that since the state
// was written (of two groups that exchange who depends on whom, each would wait for
// the other), else as the state has it.
func (o *orderer) leanings() func(*Unit) []*Unit {
	byName, live := map[string]*Unit{}, map[*Unit][]string{}
	if l := o.in.World.Live; l != nil {
		byID := make(map[string]*Unit, len(o.groups))
		for _, u := range o.groups {
			byID[u.ID] = u
		}
		for i := range l.Groups {
			g := &l.Groups[i].Spec
			if u := byID[g.ID]; g.ID != "" && u != nil {
				byName[g.Name], live[u] = u, g.DependsOn
			}
		}
	}
	return func(u *Unit) (needs []*Unit) {
		add := func(d *Unit) {
			if d != nil && d != u {
				needs = append(needs, d)
			}
		}
		if names, asked := live[u]; asked {
			for _, name := range names {
				add(byName[name])
			}
		} else if u.Old != nil {
			for _, dep := range u.Old.DependsOn {
				add(o.unitOf(dep.Owner()))
			}
		}
		return needs
	}
}
