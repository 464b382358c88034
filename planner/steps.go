package planner

import (
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/runtime/quorum"
	"github.com/clusterplan/clusterplan/statefile"
)

// tally counts votes while the steps are gone through.
type tally struct {
	model  spec.QuorumModel
	voters map[addr.Address]*voter
	lowest int
}

type voter struct {
	votes int
	up    bool
}

func (t *tally) count() (votes, up int) {
	for _, v := range t.voters {
		votes += v.votes
		if v.up {
			up += v.votes
		}
	}
	return votes, up
}

func (t *tally) needed() int {
	votes, _ := t.count()
	if votes == 0 {
		return 0
	}
	return quorum.Needed(t.model, votes)
}

// voters are the members that vote now and whether they are up.
func (b *builder) voters() map[addr.Address]*voter {
	out := map[addr.Address]*voter{}
	byID := map[string]*item{}
	for _, it := range b.items {
		if it.addr.Type == addr.TypeNode && it.id != "" {
			byID[it.id] = it
		}
	}
	if live := b.in.World.Live; live != nil {
		for _, m := range live.Members {
			a := m.Spec.Addr
			down := false
			if it := byID[m.Spec.ID]; it != nil {
				a, down = it.addr, b.down(it) || !live.Quorum && b.hung(it)
			}
			if m.State != "voter" || m.Spec.Votes == 0 {
				continue
			}
			up := m.Node == spec.NodeUp || m.Node == spec.NodePaused
			if !live.Quorum {
				up = up || m.Node == spec.NodeUnknown
			}
			out[a] = &voter{votes: m.Spec.Votes, up: up && !down}
		}
		return out
	}
	for _, it := range b.items {
		if it.addr.Type == addr.TypeNode && it.old != nil && !it.partial {
			if votes := (&orderer{builder: b}).votesOf(it); votes > 0 {
				out[it.addr] = &voter{votes: votes, up: it.prior != nil && !b.down(it) && !b.hung(it)}
			}
		}
	}
	return out
}

// down tells whether a node's agent does not run, as far as its host tells.
func (b *builder) down(it *item) bool {
	if it.silent || it.prior == nil {
		return true
	}
	if it.want == nil || it.left {
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

// rollOrder says which nodes are taken out together, and in which order:
// those that serve nobody now first, the leader last, never more at once than
// max_unavailable less what is down or paused already, and fewer where quorum
// asks for it; but always one, for a paused node must not keep the others back.
func (o *orderer) rollOrder() [][]*Unit {
	if len(o.rolls) == 0 {
		return nil
	}
	o.leaderLast(o.rolls)
	live := o.in.World.Live
	idle := map[string]bool{}
	if live != nil {
		for _, m := range live.Members {
			idle[m.Spec.ID] = m.Paused != nil || m.Node == spec.NodeDown
		}
	}
	slices.SortStableFunc(o.rolls, func(a, b *Unit) int { return rank(!idle[a.ID]) - rank(!idle[b.ID]) })
	t := tally{model: o.model(), voters: o.voters()}
	_, up := t.count()
	out := o.unavailable()
	size := max(1, o.after.Cluster.MaxUnavailable)
	var batches [][]*Unit
	for rest := o.rolls; len(rest) > 0; {
		n := min(size, len(rest))
		for n > 1 {
			cost, away := 0, len(out)
			for _, u := range rest[:n] {
				cost += u.Votes
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
			if !out[u.Key.Addr] {
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
		if it.addr.Type == addr.TypeNode && it.id != "" {
			byID[it.id] = it.addr
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
	t := &tally{model: b.model(), voters: b.voters()}
	_, t.lowest = t.count()
	exempt := func() bool { return b.fresh || b.destroy || b.in.AllowQuorumLoss || t.model == spec.SingleNode }
	lost := false
	emit := func(u *Unit, phase string, alsoDown int, why string) {
		v := t.voters[u.Key.Addr]
		takes := false
		switch phase {
		case providers.PhaseStop:
			if v != nil && v.up {
				v.up, takes = false, v.votes > 0
			}
		case providers.PhaseLeave, providers.PhaseDemote:
			if v != nil {
				delete(t.voters, u.Key.Addr)
				takes = v.votes > 0
			}
		case providers.PhaseBootstrap:
			if len(o.joins) > 0 {
				t.voters[o.joins[0].Key.Addr] = &voter{votes: 1, up: true}
			}
		}
		_, up := t.count()
		up -= alsoDown
		step := Step{N: len(b.plan.Steps) + 1, Address: u.Key.Addr, Phase: phase, Up: up, Needed: t.needed(), Why: why}
		if takes && up < step.Needed && !exempt() {
			step.Refused = true
			if !lost {
				b.diags = append(b.diags, refuse(u.Key.Addr, phase, up, step.Needed))
			}
			lost = true
		}
		t.lowest = min(t.lowest, up)
		b.plan.Steps = append(b.plan.Steps, step)
		switch phase {
		case providers.PhaseStart:
			if v != nil {
				v.up = true
			}
		case providers.PhasePromote:
			if t.voters[u.Key.Addr] == nil && u.Votes > 0 {
				t.voters[u.Key.Addr] = &voter{votes: u.Votes, up: true}
			}
		}
	}
	unit := func(u *Unit, alsoDown int) {
		why := strings.Join(b.at[u.Key.Addr].change.Why, "; ")
		for _, p := range slices.Concat(u.Remove, u.Phases) {
			emit(u, p, alsoDown, why)
		}
	}
	for _, u := range o.ups {
		unit(u, 0)
	}
	if o.cluster != nil && !b.destroy {
		unit(o.cluster, 0)
		if o.grows() {
			t.model = b.after.Cluster.Quorum.Model
		}
	}
	for _, u := range o.joins {
		unit(u, 0)
	}
	for _, batch := range batches {
		for _, u := range batch {
			others := 0
			for _, other := range batch {
				if v := t.voters[other.Key.Addr]; other != u && v != nil && v.up {
					others += v.votes
				}
			}
			unit(u, others)
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

// voyage tells what the steps do to the groups that run.
func (b *builder) voyage(o *orderer, batches [][]*Unit) {
	live := b.in.World.Live
	if live == nil || b.fresh || !b.plan.Summary.Any() {
		return
	}
	names := map[string]string{} // node id -> name
	nodeAt := map[string]addr.Address{}
	def := spec.Definition{Cluster: b.after.Cluster}
	for _, m := range live.Members {
		names[m.Spec.ID] = m.Spec.Name
		nodeAt[m.Spec.Name] = m.Spec.Addr
		def.Nodes = append(def.Nodes, m.Spec)
	}
	for _, n := range b.after.Nodes {
		if _, known := nodeAt[n.Name]; !known {
			nodeAt[n.Name] = n.Addr
			def.Nodes = append(def.Nodes, n)
		}
	}
	owners := map[string]string{}
	for _, g := range live.Groups {
		def.Groups = append(def.Groups, g.Spec)
		if owner := names[g.Owner]; owner != "" && g.State != spec.StateOffline && g.Want != spec.WantOffline {
			owners[g.Spec.Name] = owner
		}
	}
	paused := map[string]bool{}
	for _, m := range live.Members {
		if m.Paused != nil {
			paused[m.Spec.Name] = true
		}
	}
	v := &voyage{scene: scene{def: def, owner: owners, paused: paused, want: b.wants()}, trips: map[string]*trip{}}
	if len(o.ups) > 0 {
		v.settle("", true) // nodes that come back may get their groups back
	}
	for _, batch := range batches {
		var out []string
		for _, u := range batch {
			out = append(out, nameOf(u))
		}
		why := strings.Join(out, ", ") + " restarts"
		if len(out) == 1 {
			why = batch[0].Key.Addr.String() + " restarts"
		}
		v.roll(out, why, true)
	}
	after := make(map[addr.Address]*spec.Group, len(b.after.Groups))
	for i := range b.after.Groups {
		after[b.after.Groups[i].Addr] = &b.after.Groups[i]
	}
	kept := v.scene.def.Groups[:0:0]
	for _, g := range v.scene.def.Groups {
		next := after[g.Addr]
		if next == nil {
			continue
		}
		if owner, ok := v.scene.owner[g.Name]; ok && next.Name != g.Name {
			delete(v.scene.owner, g.Name)
			v.scene.owner[next.Name] = owner
		}
		if t := v.trips[g.Name]; t != nil && next.Name != g.Name {
			delete(v.trips, g.Name)
			v.trips[next.Name] = t
		}
		kept = append(kept, *next)
	}
	v.scene.def.Groups = kept
	v.settle("its owner is no possible owner any more", false)
	for i := range kept {
		g := &kept[i]
		owner, runs := v.scene.owner[g.Name]
		if why := b.restarts(g.Addr); why != "" && runs {
			v.record(g, owner, owner, why, moveBound(g, b.after.Cluster.Heartbeat))
		}
	}
	for _, u := range o.leaves {
		if b.at[u.Key.Addr].change.Reason == ReasonRemoved {
			continue
		}
		v.roll([]string{nameOf(u)}, u.Key.Addr.String()+" leaves", false)
	}
	b.plan.Availability = v.availability(nodeAt)
}

// restarts names what in a group's resources starts again.
func (b *builder) restarts(group addr.Address) string {
	var out []string
	for _, p := range b.parts[group] {
		if !p.acts() || p.change.Action() == "create" {
			continue
		}
		switch p.change.Impact {
		case spec.ImpactRestartResource, spec.ImpactRestartGroup, spec.ImpactReplace:
			out = append(out, p.addr.Resource+p.addr.ResourceKey.String())
		}
	}
	if len(out) == 0 {
		return ""
	}
	return strings.Join(out, ", ") + " starts again with its changes"
}

// wants are the operators' online and offline, by group name.
func (b *builder) wants() map[string]string {
	out := map[string]string{}
	for _, g := range b.in.World.Live.Groups {
		if g.WantBy != nil {
			out[g.Spec.Name] = g.Want
		}
	}
	return out
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
		it := b.at[p.Addr]
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
