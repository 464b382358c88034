package confdb

import (
	"maps"
	"slices"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// A node or a group that is called otherwise stays who it is. What names it
// goes with it in the same command: were it written a moment later, an owner
// would for that moment be no possible owner any more, and its groups would move.

// renameNode has owner lists and fences go with a node's name.
func (s *State) renameNode(old, name string) {
	for _, g := range s.Groups {
		g.Spec.PreferredOwners = renamed(g.Spec.PreferredOwners, old, name)
		g.Spec.PossibleOwners = renamed(g.Spec.PossibleOwners, old, name)
	}
	for _, f := range s.Fences {
		f.Spec.Nodes = renamed(f.Spec.Nodes, old, name)
		if plug, ok := f.Spec.Plugs[old]; ok {
			plugs := maps.Clone(f.Spec.Plugs)
			delete(plugs, old)
			plugs[name] = plug
			f.Spec.Plugs = plugs
		}
	}
}

// renameGroup has the other groups' lists go with a group's name.
func (s *State) renameGroup(old, name string) {
	for _, g := range s.Groups {
		g.Spec.DependsOn = renamed(g.Spec.DependsOn, old, name)
		g.Spec.KeepApart = renamed(g.Spec.KeepApart, old, name)
		g.Spec.KeepApartSoft = renamed(g.Spec.KeepApartSoft, old, name)
	}
}

// renamed is list with name in the place of old; another list, for whoever
// reads the old one goes on with it.
func renamed(list []string, old, name string) []string {
	if !slices.Contains(list, old) {
		return list
	}
	out := slices.Clone(list)
	for i := range out {
		if out[i] == old {
			out[i] = name
		}
	}
	return out
}

// renameCheckpoints has what is kept of a resource go with its name.
func (g *Group) renameCheckpoints(next spec.Group) {
	var kept map[string]*Checkpoint
	for _, r := range next.Resources {
		i := slices.IndexFunc(g.Spec.Resources, func(was spec.Resource) bool { return was.ID == r.ID && r.ID != "" })
		if i < 0 || g.Spec.Resources[i].Name == r.Name || g.Checkpoints[g.Spec.Resources[i].Name] == nil {
			continue
		}
		if kept == nil {
			kept = maps.Clone(g.Checkpoints) // who reads the old map goes on with it
		}
		old := g.Spec.Resources[i].Name
		kept[r.Name] = kept[old]
		delete(kept, old)
	}
	if kept != nil {
		g.Checkpoints = kept
	}
}
