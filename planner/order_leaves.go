package planner

import (
	"slices"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// wake starts agents of nodes that are to go, where the cluster can't commit
// without their votes: it takes a quorum to let them go.
func (o *orderer) wake() {
	begun := o.cluster != nil && o.at.At(o.cluster.Key.Addr).partial
	if o.destroy || o.fresh && !begun {
		return
	}
	t := o.tally()
	for _, u := range o.ups {
		t.play(u)
	}
	for _, leave := range o.leaves {
		if leave.Action == "forget" {
			continue
		}
		it, v := o.at.At(leave.Key.Addr), t.voters[leave.Key.Addr]
		if it.partial && o.in.World.Live == nil && o.down(it) {
			v = &voter{} // cut off as it joined: the only vote may be its own
		} else if _, up := t.count(); up >= t.needed() {
			continue
		}
		if v == nil || v.up || it.silent || it.prior == nil {
			continue
		}
		v.up = true
		o.startLeaving(leave)
	}
}

// startLeaving has a node that is to leave start first.
func (o *orderer) startLeaving(leave *Unit) {
	it := o.at.At(leave.Key.Addr)
	u := o.add(it, StageUp)
	u.Action, u.Phases, u.Remove, u.Last = "update", []string{providers.PhaseStart}, nil, false
	if o.hung(it) {
		u.Phases = []string{providers.PhaseStop, providers.PhaseStart}
	}
	u.Config = it.prior.Value
	o.ups = append(o.ups, u)
}

// wakeForRolls starts nodes that are to leave and are down, where the others can't
// be rolled without their votes. They leave after that.
func (o *orderer) wakeForRolls() {
	if o.loses() {
		o.ownersFirst()
	}
	if !o.loses() {
		return
	}
	t := o.tally()
	for _, u := range o.ups {
		t.play(u)
	}
	woken := map[*Unit]bool{}
	for _, leave := range slices.Concat(o.early, o.leaves) {
		it, v := o.at.At(leave.Key.Addr), t.voters[leave.Key.Addr]
		if leave.Action != "forget" && v != nil && !v.up && !it.silent && it.prior != nil {
			o.startLeaving(leave)
			woken[leave] = true
		}
	}
	for _, leave := range o.early {
		if woken[leave] {
			o.leaves = append(o.leaves, leave)
		}
	}
	o.early = slices.DeleteFunc(o.early, func(u *Unit) bool { return woken[u] })
}

// ownersFirst has nodes whose hosts can't be reached leave before any node is rolled
// although they own groups, which are freed by that: their votes only count against
// the others.
func (o *orderer) ownersFirst() {
	t := o.tally()
	o.leaves = slices.DeleteFunc(o.leaves, func(u *Unit) bool {
		v := t.voters[u.Key.Addr]
		if u.Action == "forget" || v == nil || v.up || !t.silent[u.Key.Addr] {
			return false
		}
		o.early = append(o.early, u)
		return true
	})
}

// loses tells whether a roll would be refused, each done alone.
func (o *orderer) loses() bool {
	t := o.tally()
	if o.destroy || o.fresh || t.model == spec.SingleNode {
		return false
	}
	for _, u := range slices.Concat(o.ups, o.joins, o.early) {
		t.play(u)
	}
	for _, u := range o.rolls {
		for _, phase := range slices.Concat(u.Remove, u.Phases) {
			takes := t.begin(u.Key.Addr, phase)
			if _, up := t.count(); takes && up < max(t.needed(), 1) {
				return true
			}
			t.end(u, phase)
		}
	}
	return false
}

// leaveEarly has nodes that are down and own nothing leave before any node is
// rolled, and so before the groups: their votes only count against the others.
func (o *orderer) leaveEarly() {
	live := o.in.World.Live
	if o.destroy || o.fresh || live == nil {
		return
	}
	t := o.tally()
	for _, u := range o.ups {
		t.play(u)
	}
	o.leaves = slices.DeleteFunc(o.leaves, func(u *Unit) bool {
		v := t.voters[u.Key.Addr]
		owns := slices.ContainsFunc(live.Groups, func(g providers.LiveGroup) bool { return g.Owner == u.ID })
		if u.Action == "forget" || v == nil || v.up || owns {
			return false
		}
		o.early = append(o.early, u)
		return true
	})
	// Those that own something still leave first of the rest, for the same reason.
	down := func(u *Unit) bool {
		v := t.voters[u.Key.Addr]
		return u.Action != "forget" && v != nil && !v.up
	}
	slices.SortStableFunc(o.leaves, func(a, b *Unit) int { return rank(!down(a)) - rank(!down(b)) })
}
