package planner

import (
	"github.com/clusterplan/clusterplan/graph"
	"github.com/clusterplan/clusterplan/lang/addr"
)

// destroyEdges: groups go dependents first, then fences, then every node, then what is left.
func (o *orderer) destroyEdges() {
	unit := make(map[addr.Address]*Unit, len(o.groups))
	for _, u := range o.groups {
		unit[u.Key.Addr] = u
	}
	for _, u := range o.groups {
		if u.Old != nil {
			for _, dep := range u.Old.DependsOn {
				if d := unit[dep.Owner()]; d != nil && d != u {
					o.g.AddEdge(d.Key, u.Key, graph.Soft)
				}
			}
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
