package planner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
)

// down tells whether a node's agent does not run, as far as its host tells.
func (b *builder) down(it *item) bool {
	if it.silent || it.prior == nil {
		return true
	}
	if it.want == nil || it.left || it.change.Action() == "replace" {
		return slices.Contains(it.prior.Health, providers.HealthNotRunning)
	}
	start := slices.Contains(it.phases, providers.PhaseStart)
	return start && !slices.Contains(it.phases, providers.PhaseStop) && !slices.Contains(it.remove, providers.PhaseStop)
}

// hung tells whether a node's agent runs and answers nobody. Where the cluster
// has its quorum, that knows better whether the vote counts.
func (b *builder) hung(it *item) bool {
	return it.prior != nil && slices.Contains(it.prior.Health, providers.HealthNoAnswer)
}

// leaderLast puts the node that leads at the end: its going costs an election.
func (o *orderer) leaderLast(units []*Unit) {
	live := o.in.World.Live
	if live == nil || live.Leader == "" {
		return
	}
	slices.SortStableFunc(units, func(a, b *Unit) int {
		return rank(a.ID == live.Leader) - rank(b.ID == live.Leader)
	})
}

func rank(b bool) int {
	if b {
		return 1
	}
	return 0
}

// sortRolls says in which order nodes are rolled: what gives votes before what
// takes them, for votes to spare are what the others need; those that serve nobody
// now before the others; then the leader; last those whose hosts can't be reached.
func (o *orderer) sortRolls() {
	o.leaderLast(o.rolls)
	live := o.in.World.Live
	idle := map[string]bool{}
	if live != nil {
		for _, m := range live.Members {
			idle[m.Spec.ID] = m.Paused != nil || m.Node == spec.NodeDown
		}
	}
	t := o.tally()
	for _, u := range slices.Concat(o.ups, o.joins, o.early) {
		t.play(u)
	}
	wait := true
	turn := func(u *Unit) int {
		v := t.voters[u.Key.Addr]
		switch {
		case t.silent[u.Key.Addr] && (v == nil || u.gives > 0 || wait && stops(u)):
			return 4 // it won't come back, and that ends the rolling
		case v == nil && u.gives > 0, v != nil && !v.up && u.gives == 0:
			return 0 // a vote more, or one less that only counts against the others
		case v != nil && v.up && u.gives == 0:
			return 3
		case idle[u.ID] || v != nil && !v.up:
			return 1
		}
		return 2
	}
	sort := func() {
		slices.SortStableFunc(o.rolls, func(a, b *Unit) int { return turn(a) - turn(b) })
	}
	if sort(); o.loses() {
		wait = false // its vote, which only counts against the others, has to go first
		sort()
	}
}

// batches says which nodes are taken out together: never more at once than
// max_unavailable less what is down or paused already, and fewer where quorum asks
// for it; but always one, for a paused node must not keep the others back.
func (o *orderer) batches() [][]*Unit {
	t := o.tally()
	for _, u := range slices.Concat(o.ups, o.joins, o.early) {
		t.play(u)
	}
	out := o.unavailable()
	size := max(1, o.after.Cluster.MaxUnavailable)
	var batches [][]*Unit
	for rest := o.rolls; len(rest) > 0; {
		n := min(size, len(rest))
		for i, u := range rest[:n] { // who brings a vote goes alone: the next ones count on it
			if v := t.voters[u.Key.Addr]; (v == nil || !v.up) && u.gives > 0 {
				n = max(i, 1)
				break
			}
		}
		_, up := t.count()
		for n > 1 {
			cost, away := 0, len(out)
			for _, u := range rest[:n] {
				if v := t.voters[u.Key.Addr]; v != nil && v.up {
					cost += v.votes
				}
				if _, already := out[u.Key.Addr]; !already {
					away++
				}
			}
			if up-cost >= t.needed() && away <= size {
				break
			}
			n--
		}
		for _, u := range rest[:n] {
			t.play(u)
			if !out[u.Key.Addr] && !u.onlyVote() {
				delete(out, u.Key.Addr) // it is back
			}
		}
		batches = append(batches, rest[:n])
		rest = rest[n:]
	}
	return batches
}

// unavailable are the members that serve nobody before any node is rolled,
// agents that this apply starts first left out: true are those that stay so,
// for an operator paused them.
func (o *orderer) unavailable() map[addr.Address]bool {
	out := map[addr.Address]bool{}
	if o.in.World.Live == nil {
		return out
	}
	byID := map[string]addr.Address{}
	for _, it := range o.items {
		if it.addr().Type == addr.TypeNode && it.id != "" {
			byID[it.id] = it.addr()
		}
	}
	for _, m := range o.in.World.Live.Members {
		a, ok := byID[m.Spec.ID]
		if !ok {
			a = m.Spec.Addr
		}
		switch {
		case m.Paused != nil:
			out[a] = true
		case m.Node == spec.NodeDown && o.units[Key{a, StageUp}] == nil:
			out[a] = false
		}
	}
	return out
}

func (b *builder) model() spec.QuorumModel {
	if b.before.Cluster.Quorum.Model != "" {
		return b.before.Cluster.Quorum.Model
	}
	return b.after.Cluster.Quorum.Model
}

// grows tells whether a single node's database becomes a majority's.
func (o *orderer) grows() bool {
	return o.cluster != nil && o.cluster.Action == "update" && !o.destroy && o.before.Cluster.Quorum.Model == spec.SingleNode && o.after.Cluster.Quorum.Model == spec.MajorityNodeSet
}

// steps lists every phase that touches a node, counts the votes that are up
// during it, and refuses what would leave the cluster without quorum.
func (b *builder) steps(o *orderer, batches [][]*Unit) {
	t := b.tally()
	exempt := func() bool { return b.fresh || b.destroy || b.in.AllowQuorumLoss || t.model == spec.SingleNode }
	lost := false
	emit := func(u *Unit, phase string, alsoDown int, why string) {
		copies := t.copies()
		takes := t.begin(u.Key.Addr, phase)
		if phase == providers.PhaseBootstrap && len(o.joins) > 0 {
			first := max(slices.IndexFunc(o.joins, func(u *Unit) bool { return u.gives > 0 }), 0)
			t.voters[o.joins[first].Key.Addr] = &voter{votes: 1, up: true, has: true}
		}
		votes, up := t.count()
		up -= alsoDown
		step := Step{N: len(b.plan.Steps) + 1, Address: u.Key.Addr, Phase: phase, Up: up, Needed: t.needed(), Why: why}
		switch last := takes && votes == 0 && phase == providers.PhaseLeave && !b.fresh && !b.destroy; {
		case last: // whatever is allowed: its database would be nobody's
			step.Refused = true
			if !lost {
				b.diags = append(b.diags, refuseLast(u.Key.Addr, b.sinks(b.at.At(u.Key.Addr))))
			}
			lost = true
		case phase == providers.PhaseStop && t.copies() < min(copies, max(step.Needed, 1)) && !b.fresh && !b.destroy && t.model != spec.SingleQuorum: // so it is here
			step.Refused = true
			if !lost {
				b.diags = append(b.diags, refuseCopy(u.Key.Addr, t, max(step.Needed, 1)))
			}
			lost = true
		case takes && up < max(step.Needed, 1) && !exempt():
			step.Refused = true
			if !lost {
				b.diags = append(b.diags, t.refuse(u.Key.Addr, phase, up, max(step.Needed, 1)))
			}
			lost = true
		}
		t.lowest = min(t.lowest, up)
		b.plan.Steps = append(b.plan.Steps, step)
		t.end(u, phase)
	}
	unit := func(u *Unit, alsoDown int) {
		why := strings.Join(b.at.At(u.Key.Addr).change.Why, "; ")
		for _, p := range slices.Concat(u.Remove, u.Phases) {
			emit(u, p, alsoDown, why)
		}
	}
	for _, u := range o.ups {
		unit(u, 0)
	}
	if o.cluster != nil && !b.destroy {
		if whys := o.retimes(); whys != nil {
			for _, why := range whys {
				emit(o.cluster, providers.PhaseUpdate, 0, why)
			}
		} else {
			unit(o.cluster, 0)
		}
		if o.grows() {
			t.model = b.after.Cluster.Quorum.Model
		}
	}
	for _, u := range o.joins {
		unit(u, 0)
	}
	for _, u := range slices.Concat(o.early, o.named[0]) {
		unit(u, 0)
	}
	for i, batch := range batches {
		for _, u := range batch {
			others := 0
			for _, other := range batch {
				if v := t.voters[other.Key.Addr]; other != u && v != nil && v.up {
					others += v.votes
				}
			}
			unit(u, others)
		}
		for _, u := range o.named[i+1] {
			unit(u, 0)
		}
	}
	for _, u := range o.leaves {
		unit(u, 0)
	}
	if b.destroy {
		return
	}
	votes, up := t.count()
	if b.fresh {
		t.lowest = up
	}
	b.plan.Quorum = &Quorum{Model: b.after.Cluster.Quorum.Model, Votes: votes, Needed: t.needed(), Lowest: t.lowest, Lost: lost}
	b.voyage(o, batches)
}

// retimes are the two steps in which the lease changes, in words; nil: it doesn't.
// The second one the nodes take by themselves, after the apply's own.
func (o *orderer) retimes() []string {
	if o.fresh || o.cluster.Action != "update" || !slices.Contains(o.cluster.Phases, providers.PhaseUpdate) {
		return nil
	}
	was, is := o.before.Cluster.Heartbeat.WithDefaults().Lease, o.after.Cluster.Heartbeat.WithDefaults().Lease
	switch {
	case o.before.Cluster.Name == "" || was == is:
		return nil
	case is > was:
		return []string{
			fmt.Sprintf("timings, step 1: every takeover waits for a lease of %s, and none is given yet", is),
			fmt.Sprintf("timings, step 2: the leader gives leases of %s in the place of %s; no group stops", is, was),
		}
	}
	return []string{
		fmt.Sprintf("timings, step 1: the leader gives leases of %s; every takeover waits for %s still", is, was),
		fmt.Sprintf("timings, step 2: takeovers wait for %s once the node has said that it holds no longer one; no group stops", is),
	}
}

// restarts names what in a group's resources starts again, and how many they are.
func (b *builder) restarts(group addr.Address) (string, int) {
	var out []string
	for _, p := range b.parts[group] {
		if !p.acts() || p.change.Action() == "create" {
			continue
		}
		switch p.change.Impact {
		case spec.ImpactRestartResource, spec.ImpactRestartGroup, spec.ImpactReplace:
			out = append(out, p.addr().Resource+p.addr().ResourceKey.String())
		}
	}
	switch len(out) {
	case 0:
		return "", 0
	case 1:
		return out[0] + " starts again with its changes", 1
	}
	return strings.Join(out, ", ") + " start again with their changes", len(out)
}

// finish says whether the plan may be applied.
func (b *builder) finish() {
	p := b.plan
	p.Errored = b.diags.HasErrors()
	p.Applyable = !p.Errored && p.work != nil && (p.Summary.Any() || changedOutputs(p.OutputChanges) || b.unsettled() || b.remember)
	p.Diagnostics = Diagnostics(b.diags)
}

// unsettled tells whether an apply settles what an earlier one had begun.
func (b *builder) unsettled() bool {
	return slices.ContainsFunc(b.in.Pending, func(p statefile.Pending) bool {
		it := b.at.At(p.Addr)
		return it == nil || !it.left
	})
}

func changedOutputs(outputs map[string]OutputChange) bool {
	for _, o := range outputs {
		if !slices.Equal(o.Actions, ActionNoOp) {
			return true
		}
	}
	return false
}
