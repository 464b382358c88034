package planner

import (
	"slices"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// refuseUnseen refuses, where no agent answers, that a node leaves which a group may
// be on that then has no other place: where the groups are isn't known, so that it may
// be any that the other nodes, asked anew for all of them, have no place for.
func (b *builder) refuseUnseen(o *orderer, batches [][]*Unit) {
	leave := func(u *Unit, def spec.Definition) {
		it := o.at.At(u.Key.Addr)
		if o.down(it) && o.units[Key{u.Key.Addr, StageUp}] == nil {
			return // and it will be: what it owned is freed once nothing of it can run
		}
		i := slices.IndexFunc(b.before.Nodes, func(n spec.Node) bool { return n.Addr == u.Key.Addr })
		if i < 0 {
			return
		}
		mayBeOn := map[addr.Address]bool{}
		for _, groups := range [][]spec.Group{b.before.Groups, def.Groups} {
			for k := range groups {
				if g := &groups[k]; g.MayOwn(b.before.Nodes[i]) {
					mayBeOn[g.Addr] = true
				}
			}
		}
		def.Nodes = slices.DeleteFunc(slices.Clone(def.Nodes), func(n spec.Node) bool { return n.Addr == u.Key.Addr })
		def.Groups = slices.Clone(def.Groups)
		for k := range def.Groups {
			def.Groups[k].Priority = max(def.Groups[k].Priority, 1) // it may have been asked for
		}
		placed := (&scene{def: def}).board().owner
		for k := range def.Groups {
			g := &def.Groups[k]
			_, elsewhere := placed[g.Name]
			if g.PersistentState == spec.WantOffline || !mayBeOn[g.Addr] || elsewhere && g.Failover.Mode != spec.FailoverNone {
				continue
			}
			b.cantLeave(u.Key.Addr, "No agent answers, so that it isn't known which groups are on it; and when it is drained, %s may be on it and able to run on no other node. Have the node leave in an apply after this one (--exclude %s now), or give the group another possible owner with room for it.", g.Addr, u.Key.Addr.Current().Arg())
			return
		}
	}
	for _, u := range slices.Concat(batches...) {
		if slices.Contains(u.Remove, providers.PhaseLeave) {
			leave(u, b.before)
		}
	}
	for _, u := range o.leaves {
		if u.Action != "forget" && o.at.At(u.Key.Addr).change.Reason != ReasonRemoved {
			leave(u, b.after)
		}
	}
}
