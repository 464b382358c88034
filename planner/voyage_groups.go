package planner

import (
	"slices"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// rewrite gives the groups their new definitions; those that go are gone.
func (b *builder) rewrite(v *voyage) (edited map[string]bool) {
	edited = map[string]bool{}
	after := make(map[addr.Address]*spec.Group, len(b.after.Groups))
	for i := range b.after.Groups {
		after[b.after.Groups[i].Addr] = &b.after.Groups[i]
	}
	kept := make([]spec.Group, 0, len(after))
	for _, g := range v.scene.def.Groups {
		next := after[g.Addr]
		if next == nil {
			continue
		}
		if owner, ok := v.scene.owner[g.Name]; ok && next.Name != g.Name {
			delete(v.scene.owner, g.Name)
			v.scene.owner[next.Name] = owner
		}
		if home, ok := v.scene.home[g.Name]; ok && next.Name != g.Name {
			delete(v.scene.home, g.Name)
			v.scene.home[next.Name] = home
		}
		if t := v.trips[g.Name]; t != nil && next.Name != g.Name {
			delete(v.trips, g.Name)
			v.trips[next.Name] = t
		}
		edited[next.Name] = !slices.Equal(g.PreferredOwners, next.PreferredOwners) || g.Failback != next.Failback
		kept = append(kept, *next)
	}
	v.scene.def.Groups = kept
	return edited
}

// bear adds the groups that the apply makes: they start where they may, also on a
// node that leaves after that.
func (b *builder) bear(v *voyage) {
	v.born = map[string]bool{}
	for i := range b.after.Groups {
		g := &b.after.Groups[i]
		it := b.at.At(g.Addr)
		if it == nil || it.left || it.change.Action() != "create" || slices.ContainsFunc(v.scene.def.Groups, func(o spec.Group) bool { return o.Name == g.Name }) {
			continue
		}
		v.scene.def.Groups = append(v.scene.def.Groups, *g)
		v.born[g.Name] = true
	}
}

// madeAnew tells whether a group is deleted and created.
func (b *builder) madeAnew(g *spec.Group) bool {
	it := b.at.At(g.Addr)
	return it != nil && it.change.Action() == "replace"
}

// remake takes down each group that is made anew, and first those that depend on
// it, and lets all of them start where they start then.
func (b *builder) remake(v *voyage) {
	groups := v.scene.def.Groups
	for i := range groups {
		g := &groups[i]
		if v.scene.owner[g.Name] == "" || !b.madeAnew(g) {
			continue
		}
		down := map[string]bool{g.Name: true}
		for grown := true; grown; {
			grown = false
			for k := range groups {
				d := &groups[k]
				if !down[d.Name] && v.scene.owner[d.Name] != "" && slices.ContainsFunc(d.DependsOn, func(name string) bool { return down[name] }) {
					down[d.Name], grown = true, true
				}
			}
		}
		for k := range groups {
			d := &groups[k]
			if !down[d.Name] {
				continue
			}
			why := "it is made anew"
			if k != i {
				why = g.Addr.String() + ", which it depends on, is made anew"
			}
			v.record(d, v.scene.owner[d.Name], "", why, moveBound(d, b.after.Cluster.Heartbeat))
			delete(v.scene.owner, d.Name)
		}
		v.settle("", false)
	}
}
