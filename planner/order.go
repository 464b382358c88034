package planner

import (
	"errors"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/graph"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
)

// Marks: vertices without work, so that "all of these after all of those"
// costs one edge each and not one a pair.
var (
	markUp      = Key{addr.Address{Name: "agents started"}, StageMark}
	markMembers = Key{addr.Address{Name: "nodes joined"}, StageMark}
	markRolled  = Key{addr.Address{Name: "nodes rolled"}, StageMark}
	markFences  = Key{addr.Address{Name: "fences settled"}, StageMark}
	markGroups  = Key{addr.Address{Name: "groups settled"}, StageMark}
	gateQuorum  = Key{addr.Address{Name: "of the cluster"}, StageGate}
)

// orderer makes the units and their edges.
type orderer struct {
	*builder
	g     *graph.Graph[Key]
	units map[Key]*Unit

	ups, joins, rolls, leaves []*Unit   // of nodes
	early                     []*Unit   // leaves of nodes that are down: they come before the rolls
	names                     []*Unit   // of nodes that take others' places
	named                     [][]*Unit // the same: before the first batch of rolls, and after each
	fences, groups            []*Unit
	cluster                   *Unit
}

// order turns the changes into units, orders them, and tells the steps.
func (b *builder) order() {
	b.depose()
	o := &orderer{builder: b, g: graph.New[Key](), units: make(map[Key]*Unit, b.undivided())}
	o.g.Grow(b.undivided())
	for _, it := range b.items {
		switch {
		case it.addr().IsResource():
		case it.addr().Type == addr.TypeNode:
			o.node(it)
			o.succeeds(it)
		case addr.Machinery(it.addr().Type):
			o.machinery(it)
		case it.addr().Type == addr.TypeFence:
			o.fence(it)
		case it.addr().Type == addr.TypeGroup:
			o.group(it)
		case it.acts():
			o.cluster = o.add(it, StageWhole)
		}
	}
	if o.grows() {
		c := o.at.At(o.cluster.Key.Addr).change
		c.Why = append(c.Why, "the one node's database becomes a majority's in place: no group stops; nodes can join after it")
	}
	o.leaderLast(o.leaves)
	o.wake()
	o.leaveEarly()
	o.rollDeposed()
	o.sortRolls()
	if o.wakeForRolls(); o.rollDeposed() {
		o.sortRolls()
	}
	o.sortNames()
	batches := o.batches()
	o.nameTurns(batches)
	o.passNames(batches)
	if b.destroy {
		o.destroyEdges()
	} else {
		o.nodeEdges(batches)
		o.fenceEdges()
		o.groupEdges()
	}
	b.steps(o, batches)
	if o.together() {
		return
	}
	o.split()
	o.machineryEdges()
	keys, err := o.g.Order()
	var cycle *graph.CycleError[Key]
	if errors.As(err, &cycle) {
		names := make([]string, 0, len(cycle.Cycle)+1)
		for _, k := range append(cycle.Cycle, cycle.Cycle[0]) {
			names = append(names, k.String())
		}
		b.diags = append(b.diags, problem(hcl.DiagError, "Changes wait for each other",
			"None of these can be the first: "+strings.Join(names, " -> ")+". Do it in two applies: first take away what they exchange, then give it."))
		return
	}
	w := &Work{Graph: o.g, Renames: b.in.Renames, Deposes: statefile.Then(b.swapped, b.deposes), Adoptions: b.adoptions(), Dropped: b.dropped, First: b.fresh, AllowQuorumLoss: b.in.AllowQuorumLoss, Destroy: b.destroy, KeepOutputs: b.partly()}
	if b.in.World.Objects != nil && !b.destroy {
		if !b.in.Only {
			w.Kept = make([]Kept, 0, b.plan.Summary.NoOp)
		}
		for _, it := range b.items {
			if !it.acts() && !it.left && !it.silent && it.old != nil && it.prior != nil && !b.comes(it.addr()) {
				k := Kept{it.addr(), it.prior.Value, false, it.old.Sensitive, it.old.DependsOn}
				if it.want != nil {
					k.Prevent, k.Sensitive = it.want.PreventDestroy, schema.SensitiveNames(it.want.config)
				}
				b.remember = b.remember || k.Prevent != it.old.PreventDestroy || !slices.Equal(k.Sensitive, it.old.Sensitive)
				if b.in.Only && !addr.Machinery(it.addr().Type) { // Plan.Known looks at those
					continue
				}
				if it.want != nil {
					k.DependsOn = it.want.hard()
				}
				w.Kept = append(w.Kept, k)
			}
		}
	}
	for _, k := range keys {
		w.Units = append(w.Units, o.units[k])
	}
	b.plan.work = w
}

func (o *orderer) add(it *item, stage Stage) *Unit {
	u := &Unit{
		Key: Key{it.addr(), stage}, Action: it.change.Action(), Type: it.change.Type, ID: it.id,
		Prior: it.prior, Old: it.old, Last: true, Silent: it.silent,
	}
	switch {
	case u.Action == "no-op": // its parts change, or its address
		u.Action = "update"
	case it.instead && it.want != nil:
		u.Action = "create"
	}
	u.Instead = it.instead
	if it.old != nil {
		u.Provider = it.old.Provider
	}
	if it.want != nil {
		u.Provider, u.Config, u.Prevent = it.want.Provider, it.want.config, it.want.PreventDestroy
		u.DependsOn = it.want.hard()
		if it.addr().Type == addr.TypeNode {
			u.gives = votesIn(it.want.config)
		}
	} else if p := o.pending[it.addr()]; it.old == nil && p != nil && p.Object != nil {
		u.Provider = p.Object.Provider
	}
	if u.Action == "create" || u.Action == "update" || u.Action == "replace" {
		u.Phases = it.phases
	}
	if u.Action == "update" {
		u.Keep = it.keeper()
	}
	if one := o.importing[it.addr()]; one != nil && one.Foreign() {
		u.Adopt = o.adoption(it).Objects
	}
	if u.Action == "replace" || u.Action == "delete" {
		u.Remove = it.remove
	}
	o.units[u.Key] = u
	o.g.AddVertex(u.Key)
	return u
}

func (o *orderer) mark(k Key) *Unit {
	if u := o.units[k]; u != nil {
		return u
	}
	u := &Unit{Key: k}
	o.units[k] = u
	o.g.AddVertex(k)
	return u
}

// takesOut are the phases that take a node away, for a while or for good.
var takesOut = []string{providers.PhaseDrain, providers.PhaseStop, providers.PhaseDemote, providers.PhaseLeave, providers.PhaseRemove}

// node splits a node's phases into stages.
func (o *orderer) node(it *item) {
	if !it.acts() {
		return
	}
	votes := votesOf(it)
	switch it.change.Action() {
	case "delete", "forget":
		u := o.add(it, StageLeave)
		u.Votes = votes
		o.leaves = append(o.leaves, u)
		return
	case "replace":
		if it.instead {
			break // it is made, and joins; the old one is an item of its own
		}
		if o.fresh {
			// There is no cluster yet that it could leave, and perhaps none before the
			// new one is up: a first apply was cut off, and it is to be elsewhere now.
			it.remove = slices.DeleteFunc(slices.Clone(it.remove), func(p string) bool {
				return p == providers.PhaseDrain || p == providers.PhaseDemote || p == providers.PhaseLeave
			})
			it.change.Phases = slices.Concat(it.remove, it.phases)
			break
		}
		u := o.add(it, StageRoll)
		u.Votes = votes
		o.rolls = append(o.rolls, u)
		return
	}
	first := []string{providers.PhaseInstall, providers.PhaseStart}
	live := o.in.World.Live
	stranger := o.stranger(it)
	if stranger || o.hung(it) && (live == nil || !live.Quorum) {
		// Ending its agent takes no vote away: it has none yet, or there is no
		// quorum, and perhaps none until it is started again. So that comes first.
		first = append(first, providers.PhaseStop)
	}
	if stranger { // it owns nothing that it could hand over; an earlier apply, cut off, may have had it do so
		drained := it.prior != nil && slices.Contains(it.prior.Health, providers.HealthDrained)
		it.phases = slices.DeleteFunc(slices.Clone(it.phases), func(p string) bool {
			return p == providers.PhaseDrain || p == providers.PhaseDemote || p == providers.PhaseResume && !drained
		})
		it.change.Phases = it.phases
	}
	out := slices.ContainsFunc(it.phases, func(p string) bool { return slices.Contains(takesOut, p) && !slices.Contains(first, p) })
	if out {
		u := o.add(it, StageRoll)
		u.Votes = votes
		o.rolls = append(o.rolls, u)
		return
	}
	n := 0
	for n < len(it.phases) && slices.Contains(first, it.phases[n]) {
		n++
	}
	if n > 0 || len(it.phases) == 0 {
		u := o.add(it, StageUp)
		u.Phases, u.Last = it.phases[:n], n == len(it.phases)
		o.ups = append(o.ups, u)
	}
	if n < len(it.phases) {
		u := o.add(it, StageJoin)
		u.Phases, u.Votes = it.phases[n:], votes
		if u.Action == "replace" { // the unit before it is the old one's
			u.anew()
		}
		o.joins = append(o.joins, u)
		if n > 0 {
			o.g.AddEdge(u.Key, Key{it.addr(), StageUp}, graph.Hard)
		}
	}
}

// stranger tells whether a node is not in the cluster yet, or not in full: it
// has no vote and owns nothing.
func (o *orderer) stranger(it *item) bool {
	if it.prior == nil || slices.Contains(it.prior.Health, providers.HealthNotMember) || slices.Contains(it.prior.Health, providers.HealthNotCaught) {
		return true
	}
	live := o.in.World.Live
	return o.unmade && (live == nil || !slices.ContainsFunc(live.Members, func(m providers.LiveMember) bool { return m.Spec.ID == it.id }))
}

// unitsByName are the units that bring nodes about, by the nodes' names.
func (o *orderer) unitsByName() map[string][]Key {
	byName := map[string][]Key{}
	for _, u := range slices.Concat(o.joins, o.rolls) {
		byName[nameOf(u)] = append(byName[nameOf(u)], u.Key)
	}
	return byName
}

// unitOf is a group's unit; nil: it has none, or a is no group.
func (o *orderer) unitOf(a addr.Address) *Unit {
	if a.Type != addr.TypeGroup {
		return nil
	}
	return o.units[Key{a, StageWhole}]
}

// votesOf is what a node counts for now, or will.
func votesOf(it *item) int {
	if it.prior != nil {
		return votesIn(it.prior.Value)
	} else if it.want != nil {
		return votesIn(it.want.config)
	}
	return 1
}

// votesIn is a node's value's votes.
func votesIn(v cty.Value) int {
	if n := unmark(attribute(v, "votes")); n != cty.NilVal && n.IsKnown() && !n.IsNull() {
		i, _ := n.AsBigFloat().Int64()
		return int(i)
	}
	return 1
}

// onlyVote tells of a unit of the rolls that the next ones wait for its node's vote to
// be gone, and not for the node, which can't be reached.
func (u *Unit) onlyVote() bool { return u.Silent && u.Action == "update" && u.gives == 0 }

// nodeEdges: agents first, then the cluster, then joins, of nodes that vote one after the other,
// then what takes votes away.
func (o *orderer) nodeEdges(batches [][]*Unit) {
	if len(o.ups) > 0 {
		o.mark(markUp)
		for _, u := range o.ups {
			o.g.AddEdge(markUp, u.Key, graph.Soft)
		}
	}
	creates := o.cluster != nil && o.cluster.Action == "create"
	if o.cluster != nil {
		if creates {
			// One started agent is enough to begin with; the cluster is made
			// there, and the others join it.
			if !o.anyRuns() {
				o.cluster.Any = 1
			}
			for _, u := range o.founders() {
				o.cluster.Of = append(o.cluster.Of, u.Key)
				o.g.AddEdge(o.cluster.Key, u.Key, graph.Soft)
			}
		} else {
			o.needQuorum(o.cluster.Key)
		}
	}
	members := append(slices.Clone(o.joins), o.rolls...)
	if len(members) > 0 {
		o.mark(markMembers)
	}
	var last Key // of those that vote
	for i, u := range o.joins {
		switch {
		case creates:
			o.g.AddEdge(u.Key, o.cluster.Key, graph.Hard)
		default:
			o.needQuorum(u.Key)
			if o.cluster != nil {
				kind := graph.Soft
				if o.grows() {
					kind = graph.Hard // a single node's database takes no other node
				}
				o.g.AddEdge(u.Key, o.cluster.Key, kind)
			}
		}
		if i > 0 {
			o.g.AddEdge(u.Key, last, graph.Soft) // the votes change by one at a time
		}
		if i == 0 || o.counts(u) { // no vote changes by the others: they join beside each other
			last = u.Key
		}
		o.g.AddEdge(markMembers, u.Key, graph.Soft)
	}
	for i, u := range o.early {
		o.needQuorum(u.Key)
		if o.units[markMembers] != nil {
			o.g.AddEdge(u.Key, markMembers, graph.Soft)
		}
		if i > 0 {
			o.g.AddEdge(u.Key, o.early[i-1].Key, graph.Soft)
		}
	}
	for i, batch := range batches {
		for _, u := range batch {
			o.needQuorum(u.Key)
			for _, j := range slices.Concat(o.joins, o.early) {
				o.g.AddEdge(u.Key, j.Key, graph.Soft)
			}
			for _, n := range o.named[0] {
				o.g.AddEdge(u.Key, n.Key, graph.Soft) // what leaves its node may go there by name
			}
			if o.cluster != nil {
				o.g.AddEdge(u.Key, o.cluster.Key, graph.Soft)
			}
			if i > 0 {
				for _, before := range batches[i-1] {
					kind := graph.Hard // a node that does not come back ends the rolling
					if before.onlyVote() {
						kind = graph.Soft
					}
					o.g.AddEdge(u.Key, before.Key, kind)
				}
				for _, n := range o.named[i] {
					o.g.AddEdge(u.Key, n.Key, graph.Hard)
				}
			}
			o.mark(markRolled)
			o.g.AddEdge(markRolled, u.Key, graph.Soft)
		}
	}
	o.nameEdges(batches)
	for i, u := range o.leaves {
		if u.Action == "forget" {
			continue
		}
		o.needQuorum(u.Key)
		for _, k := range []Key{markMembers, markRolled} {
			if o.units[k] != nil {
				o.g.AddEdge(u.Key, k, graph.Soft)
			}
		}
		for _, e := range o.early {
			o.g.AddEdge(u.Key, e.Key, graph.Soft)
		}
		if len(o.groups) > 0 {
			o.mark(markGroups)
			o.g.AddEdge(u.Key, markGroups, graph.Soft)
		}
		if i > 0 {
			o.g.AddEdge(u.Key, o.leaves[i-1].Key, graph.Soft)
		}
	}
}

// counts tells whether the votes change with a node's join. Those of a quorum
// device's nodes are told apart by their settings alone.
func (o *orderer) counts(u *Unit) bool {
	return u.gives > 0 || u.Votes > 0 && u.Action != "create" || o.model() == spec.SingleQuorum
}

// founders are the starts that a cluster can be made after: those of nodes that
// are to vote, for the first member votes whatever its settings say.
func (o *orderer) founders() []*Unit {
	var vote []*Unit
	for _, u := range o.ups {
		if u.gives > 0 {
			vote = append(vote, u)
		}
	}
	if len(vote) == 0 {
		return o.ups
	}
	return vote
}

// anyRuns tells whether a node's agent runs already.
func (o *orderer) anyRuns() bool {
	for _, it := range o.items {
		if it.addr().Type == addr.TypeNode && it.prior != nil && o.units[Key{it.addr(), StageUp}] == nil && !o.down(it) {
			return true
		}
	}
	return false
}

// needQuorum has what writes to the database wait until it can commit.
func (o *orderer) needQuorum(k Key) {
	gate := o.units[gateQuorum]
	if gate == nil {
		gate = o.mark(gateQuorum)
		if o.units[markUp] != nil {
			o.g.AddEdge(gateQuorum, markUp, graph.Soft)
		}
		if o.cluster != nil && o.cluster.Action == "create" {
			// Enough joins make a majority of what is planned, with those that vote
			// already; one that fails keeps nobody else from going on.
			o.g.AddEdge(gateQuorum, o.cluster.Key, graph.Hard)
			votes, have := 0, o.stayingVotes()
			for _, u := range o.joins {
				if u.Votes > 0 {
					votes++
					gate.Of = append(gate.Of, u.Key)
				}
			}
			if o.after.Cluster.Quorum.Model == spec.MajorityNodeSet {
				gate.Any = max((votes+have)/2+1-have, 0)
			} else {
				gate.Any = max(min(1, votes)-have, 0)
			}
			for _, k := range gate.Of {
				o.g.AddEdge(gateQuorum, k, graph.Soft)
			}
		}
	}
	o.g.AddEdge(k, gateQuorum, graph.Hard)
}

// waitChecked has k wait for a node's postconditions, and be skipped where
// they fail.
func (o *orderer) waitChecked(k Key, node addr.Address) {
	it := o.at.At(node)
	if node.Type != addr.TypeNode || it == nil || it.want == nil || !it.want.Checked {
		return
	}
	for _, stage := range []Stage{StageUp, StageJoin, StageRoll, StageName} {
		if u := o.units[Key{node, stage}]; u != nil && u.Last {
			o.g.AddEdge(k, u.Key, graph.Hard)
		}
	}
}

// nodeNeeds adds what the definition says a node depends on.
func (o *orderer) nodeNeeds() {
	for _, u := range slices.Concat(o.ups, o.joins, o.rolls) {
		it := o.at.At(u.Key.Addr)
		if it.want == nil {
			continue
		}
		for _, dep := range it.want.hard() {
			for _, stage := range []Stage{StageUp, StageRoll} {
				if k := (Key{dep, stage}); o.units[k] != nil && k != u.Key && u.Key.Stage != StageJoin {
					o.g.AddEdge(u.Key, k, graph.Hard)
				}
			}
		}
	}
}

// unique are the attributes that are unique in the cluster, by resource type.
var unique = map[string]string{"ip_address": "address", "network_name": "name"}
