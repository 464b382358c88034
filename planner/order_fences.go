package planner

import "github.com/clusterplan/clusterplan/graph"

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
