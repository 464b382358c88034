package planner

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/runtime/placement"
)

// voyage follows the groups through an apply: who owns them, and how often
// each is interrupted.
type voyage struct {
	scene  scene
	way    way
	trips  map[string]*trip // by group name
	comes  bool             // a node comes back that was down
	heirs  map[addr.Address]succession
	done   map[addr.Address]bool // nodes that have left, and that were rolled
	born   map[string]bool       // groups that the apply makes
	edited map[string]bool       // groups that prefer others since, or go back otherwise
	stuck  map[string]string     // group name -> node that is to leave, and can't: the group runs nowhere else
}

type trip struct {
	from, to string
	times    int
	backs    int // of them: it went back by its failback policy
	drained  int // of them: its node was drained
	stopped  int // and could not be left: the group stopped with it
	why      string
	maxMS    int64
}

// voyage tells what the steps do to the groups that run: of the ways that it may
// come about, the worst for each group.
func (b *builder) voyage(o *orderer, batches [][]*Unit) {
	live := b.in.World.Live
	switch {
	case b.fresh || !b.plan.Summary.Any():
		return
	case live == nil:
		b.refuseUnseen(o, batches)
		return
	}
	largest, units := 0, 0
	for _, batch := range batches {
		largest, units = max(largest, len(batch)), units+len(batch)
	}
	ways := orders(largest, units, len(live.Groups))
	goes := func(g *spec.Group) bool { return g.Failback.Mode == spec.FailbackImmediate }
	moves := slices.ContainsFunc(live.Groups, func(g providers.LiveGroup) bool { return goes(&g.Spec) }) ||
		slices.ContainsFunc(b.after.Groups, func(g spec.Group) bool { return goes(&g) })
	if len(o.ups)+len(batches)+len(o.leaves) > 0 && moves {
		for _, w := range slices.Clone(ways) {
			for _, w.back = range [...]back{later, atEnd} {
				ways = append(ways, w)
			}
		}
	}
	// Before a node is drained the apply waits for those that it has started, and before
	// groups change it does not.
	if slices.ContainsFunc(o.ups, func(u *Unit) bool { return slices.Contains(u.Phases, providers.PhaseStart) }) && !slices.ContainsFunc(slices.Concat(batches...), waits) {
		for _, w := range slices.Clone(ways) {
			w.late = true
			ways = append(ways, w)
		}
	}
	nodeAt := b.nodeAddresses()
	var worst *voyage
	maybe := map[string]string{} // stuck in some other way
	stops := map[string][]int{}  // how often a group stops with its node, of the ways in which it does
	for _, w := range ways {
		v := b.sail(o, batches, w)
		for name, t := range v.trips {
			if t.stopped > 0 {
				stops[name] = append(stops[name], t.stopped)
			}
		}
		if worst == nil {
			worst = v
			continue
		}
		maps.Copy(maybe, v.stuck)
		for name, t := range v.trips {
			known := worst.trips[name]
			if known == nil {
				worst.trips[name] = t
				continue
			}
			// Each failback may come about early or late, whatever the others do.
			away := max(known.times-known.backs, t.times-t.backs)
			known.backs = max(known.backs, t.backs)
			known.times, known.drained = away+known.backs, max(known.drained, t.drained)
			if t.maxMS < 0 || known.maxMS < 0 {
				known.maxMS = -1
			} else {
				known.maxMS = max(known.maxMS, t.maxMS)
			}
		}
	}
	if largest > 1 {
		for name, times := range stops {
			// It may be on its way to a node that another group then goes to, and come back
			// to the one that it stops with.
			least := 0
			if len(times) == len(ways) {
				least = slices.Min(times)
			}
			worst.trips[name].times += slices.Max(times) - least
		}
	}
	b.plan.Availability = worst.availability(nodeAt)
	b.refuseStuck(worst, maybe, nodeAt)
}

// refuseStuck refuses a plan where a group may keep a node from leaving: for sure, or
// in some of the ways (maybe).
func (b *builder) refuseStuck(v *voyage, maybe map[string]string, nodeAt map[string]addr.Address) {
	refuse := func(node, text string, args ...any) { b.cantLeave(nodeAt[node], text, args...) }
	perhaps := func(g *spec.Group) {
		if node, ok := maybe[g.Name]; ok && v.stuck[g.Name] == "" {
			refuse(node, "%s may be on it when the node is drained, and then be able to run on no other node: that turns on when groups go back by their failback policies, and in which order nodes are drained, which this plan does not settle. Have the node leave in an apply after this one (--exclude %s now), or give the group another possible owner with room for it.", g.Addr, nodeAt[node])
		}
	}
	live := b.in.World.Live.Groups
	for i := range live {
		g := &live[i].Spec
		if node, ok := v.stuck[g.Name]; ok {
			refuse(node, "%s runs on it, and when the node is drained it can run on no other node. Give it another possible owner with room for it, or delete it, in an apply before this one; or take it offline first (clusterplan offline %s).", g.Addr, g.Name)
		}
		perhaps(g)
	}
	for i := range b.after.Groups {
		g := &b.after.Groups[i]
		if !v.born[g.Name] {
			continue
		}
		if node, ok := v.stuck[g.Name]; ok {
			refuse(node, "%s is made by this plan and starts on it, for no other node can run it. Give it a possible owner that stays and has room for it, or leave it out.", g.Addr)
		}
		perhaps(g)
	}
}

// cantLeave refuses the plan, for a node can't leave the cluster.
func (b *builder) cantLeave(node addr.Address, text string, args ...any) {
	b.diags = append(b.diags, problem(hcl.DiagError, node.String()+" can't leave the cluster", fmt.Sprintf(text, args...)))
}

// nodeAddresses are the nodes' addresses by name, now and then.
func (b *builder) nodeAddresses() map[string]addr.Address {
	out := map[string]addr.Address{}
	for _, m := range b.in.World.Live.Members {
		out[m.Spec.Name] = m.Spec.Addr.Current()
	}
	for _, n := range b.after.Nodes {
		if _, known := out[n.Name]; !known {
			out[n.Name] = n.Addr
		}
	}
	return out
}

// harbour is where the groups are before anything is done. Nodes that can't be
// reached stay down; those that are only not running are started first.
func (b *builder) harbour(o *orderer) scene {
	live := b.in.World.Live
	names := map[string]string{} // node id -> name
	s := scene{def: spec.Definition{Cluster: b.after.Cluster}, owner: map[string]string{}, home: map[string]string{}, paused: map[string]bool{}, drain: map[string]bool{}, up: map[string]bool{}, want: map[string]string{}}
	starts := map[string]bool{}
	for _, it := range b.items {
		if it.addr().Type == addr.TypeNode && !it.silent && (slices.Contains(it.phases, providers.PhaseStart) || slices.Contains(it.phases, providers.PhaseJoin)) {
			starts[it.id] = true
		}
	}
	for _, u := range o.ups {
		if it := o.at.At(u.Key.Addr); slices.Contains(u.Phases, providers.PhaseStart) && (!it.silent || b.comesBack(it)) {
			starts[u.ID] = true
		}
	}
	gone := map[string]bool{} // down, whatever the cluster knows, and without a group to lose
	for _, u := range slices.Concat(o.early, o.leaves) {
		gone[u.ID] = o.down(o.at.At(u.Key.Addr)) && !slices.ContainsFunc(live.Groups, func(g providers.LiveGroup) bool { return g.Owner == u.ID })
	}
	known := map[string]bool{}
	for _, m := range live.Members {
		names[m.Spec.ID], known[m.Spec.Name] = m.Spec.Name, true
		s.def.Nodes = append(s.def.Nodes, m.Spec)
		s.paused[m.Spec.Name] = m.Paused != nil
		s.up[m.Spec.Name] = m.Node == spec.NodeUp || m.Node == spec.NodePaused || starts[m.Spec.ID] || !live.Quorum && !gone[m.Spec.ID]
	}
	for _, heir := range b.successions() {
		if !known[heir.next] {
			n := *heir.to
			n.Name = heir.next
			known[heir.next], known[heir.to.Name] = true, true // under its own name later
			s.def.Nodes = append(s.def.Nodes, n)
			s.up[n.Name] = true
		}
	}
	for _, n := range b.after.Nodes {
		if !known[n.Name] {
			s.def.Nodes = append(s.def.Nodes, n)
			s.up[n.Name] = true
		}
	}
	s.def.Groups = make([]spec.Group, 0, len(live.Groups))
	for _, g := range live.Groups {
		s.def.Groups = append(s.def.Groups, g.Spec)
		if owner := names[g.Owner]; owner != "" && g.State != spec.StateOffline && g.Want != spec.WantOffline {
			s.owner[g.Spec.Name] = owner
		}
		if home := names[g.Home]; home != "" {
			s.home[g.Spec.Name] = home
		}
		if g.WantBy != nil { // operators' online and offline
			s.want[g.Spec.Name] = g.Want
		}
	}
	return s
}

// sail goes through the steps.
func (b *builder) sail(o *orderer, batches [][]*Unit, w way) *voyage {
	v := &voyage{scene: b.harbour(o), way: w, trips: map[string]*trip{}, stuck: map[string]string{}, heirs: b.successions(), done: map[addr.Address]bool{}}
	late := v.late(b.in.World.Live)
	if len(o.ups) > 0 {
		v.settle("", w.back == atOnce) // nodes that come back may get their groups back
	}
	for _, u := range slices.Concat(o.ups, o.rolls) {
		v.comes = v.comes || slices.Contains(u.Phases, providers.PhaseStart) && slices.ContainsFunc(b.in.World.Live.Members, func(m providers.LiveMember) bool {
			return m.Spec.ID == u.ID && m.Node != spec.NodeUp && m.Node != spec.NodePaused
		})
	}
	become := func(units []*Unit) { // with their new settings
		for _, u := range units {
			if u.Beside {
				continue // under its own name, once it has it
			}
			for _, n := range b.after.Nodes {
				i := slices.IndexFunc(v.scene.def.Nodes, func(old spec.Node) bool { return old.Name == n.Name })
				if n.Addr == u.Key.Addr && i >= 0 {
					v.scene.def.Nodes[i] = n
				}
			}
		}
	}
	become(o.joins)
	for _, u := range o.early {
		if u.Key.Addr.Deposed() == "" { // who prefers it has one place less to prefer
			v.part(succession{name: v.nameOf(u)})
		}
	}
	if slices.ContainsFunc(o.early, func(u *Unit) bool { return u.Key.Addr.Deposed() != "" }) {
		v.passed(o.early, o.rolls)
		v.settle("", w.back == atOnce)
	}
	for _, batch := range w.split(batches) {
		var out []string
		for _, u := range batch {
			out = append(out, v.nameOf(u))
		}
		why := strings.Join(out, ", ") + " restarts"
		switch {
		case len(out) == 1 && !stops(batch[0]):
			why = batch[0].Key.Addr.String() + " is drained"
		case len(out) == 1 && (batch[0].Action == "replace" || batch[0].Key.Addr.Deposed() != ""):
			why = batch[0].Key.Addr.Current().String() + " is made anew"
		case len(out) == 1:
			why = batch[0].Key.Addr.String() + " restarts"
		}
		v.drain(w.turned(batch), why)
		become(batch)
		for i, n := range out {
			delete(v.scene.drain, n)
			if it := o.at.At(batch[i].Key.Addr); it.silent && b.comesBack(it) {
				v.scene.up[n] = true
			}
		}
		v.passed(batch, o.rolls)
		v.settle(why, w.back == atOnce)
	}
	edited := b.rewrite(v)
	b.bear(v)
	v.settle("its owner is no possible owner any more", false)
	for i := range v.scene.def.Groups {
		g := &v.scene.def.Groups[i]
		owner, runs := v.scene.owner[g.Name]
		if why, n := b.restarts(g.Addr); runs && !b.madeAnew(g) {
			for range n { // one after the other, at the worst
				v.record(g, owner, owner, why, moveBound(g, b.after.Cluster.Heartbeat))
			}
		}
	}
	b.remake(v)
	if w.back == atOnce {
		v.edited = edited
		v.settle("", false) // another owner may be the best one now
	}
	if len(late) > 0 {
		v.settle("", w.back == atOnce) // to the best that is up
		for _, n := range late {
			v.scene.up[n] = true
		}
		v.settle("", w.back == atOnce)
	}
	for _, u := range o.leaves {
		if b.at.At(u.Key.Addr).change.Reason != ReasonRemoved {
			v.drain([]*Unit{u}, u.Key.Addr.String()+" leaves")
		}
	}
	if w.back != atOnce {
		v.settle("", true)
	}
	return v
}

// waits tells whether the apply waits, before a unit, for the nodes that it has started.
func waits(u *Unit) bool {
	return slices.ContainsFunc(slices.Concat(u.Remove, u.Phases), func(phase string) bool {
		return phase == providers.PhaseDrain || phase == providers.PhaseDemote
	})
}

// late takes out the nodes that are up late, those that come: not up now, and owners
// of nothing.
func (v *voyage) late(live *providers.Live) []string {
	if !v.way.late {
		return nil
	}
	here := map[string]bool{}
	for _, m := range live.Members {
		here[m.Spec.Name] = m.Node == spec.NodeUp || m.Node == spec.NodePaused || !live.Quorum
	}
	for _, owner := range v.scene.owner {
		here[owner] = true
	}
	var out []string
	for n, up := range v.scene.up {
		if up && !here[n] {
			v.scene.up[n] = false
			out = append(out, n)
		}
	}
	return out
}

// drains tells whether a unit takes its node out, or brings it in: one that only gives
// its vote up keeps its groups.
func drains(u *Unit) bool {
	return slices.ContainsFunc(slices.Concat(u.Remove, u.Phases), func(phase string) bool {
		return phase != providers.PhaseDemote && phase != providers.PhasePromote && phase != providers.PhaseUpdate
	})
}

// stops tells whether a unit ends its node's agent.
func stops(u *Unit) bool {
	return slices.Contains(u.Remove, providers.PhaseStop) || slices.Contains(u.Phases, providers.PhaseStop)
}

// drain takes nodes out together. What can't leave them stops with them; from a
// node that leaves the cluster all has to go.
func (v *voyage) drain(batch []*Unit, why string) {
	batch = slices.DeleteFunc(slices.Clone(batch), func(u *Unit) bool { return !drains(u) })
	names := make([]string, len(batch))
	for i, u := range batch {
		names[i] = v.nameOf(u)
		if v.way.order != oneByOne {
			v.scene.drain[names[i]] = true
		}
	}
	for i := range names {
		v.scene.drain[names[i]] = true
		had := make(map[string]string, len(v.scene.owner))
		for name, owner := range v.scene.owner {
			had[name] = owner
		}
		v.settle(why, v.way.back == later)
		for name, owner := range had {
			if t := v.trips[name]; t != nil && v.scene.drain[owner] && v.scene.owner[name] != owner {
				t.drained++
			}
		}
	}
	for i := range v.scene.def.Groups {
		g := &v.scene.def.Groups[i]
		owner := v.scene.owner[g.Name]
		k := slices.Index(names, owner)
		switch {
		case owner == "" || k < 0 || !v.scene.up[owner]:
		case slices.Contains(batch[k].Remove, providers.PhaseLeave):
			v.stuck[g.Name] = owner
		case stops(batch[k]):
			v.record(g, owner, owner, why+", and no other node can run it", -1)
			v.trips[g.Name].stopped++
		}
	}
}

func (v *voyage) record(g *spec.Group, from, to, why string, bound int64) {
	t := v.trips[g.Name]
	if t == nil {
		t = &trip{from: from, why: why}
		v.trips[g.Name] = t
	}
	t.to = to
	t.times++
	if bound < 0 || t.maxMS < 0 {
		t.maxMS = -1
	} else {
		t.maxMS = max(t.maxMS, bound)
	}
}

// settle lets the groups go where they go now. Groups that had no owner and
// get one are starting, not interrupted.
func (v *voyage) settle(why string, failback bool) {
	in := v.scene.placementInput()
	for i := range in.Groups {
		g := &in.Groups[i]
		g.Failback = g.Spec.Failback.Mode == spec.FailbackImmediate && (failback || v.edited[g.Spec.Name] && v.scene.home[g.Spec.Name] != "")
	}
	for i, o := range placement.Settle(in) {
		g := &v.scene.def.Groups[i]
		if o.From == o.To {
			continue
		}
		if o.From != "" {
			bound := moveBound(g, v.scene.def.Cluster.Heartbeat)
			if o.To == "" {
				bound = -1
			}
			reason := why
			if o.Why == placement.WhyFailback {
				reason = "it goes back by its failback policy"
			}
			v.record(g, o.From, o.To, reason, bound)
			if o.Why == placement.WhyFailback {
				v.trips[g.Name].backs++
			}
		} else if t := v.trips[g.Name]; t != nil {
			t.to = o.To
		}
		if o.To == "" {
			delete(v.scene.owner, g.Name)
		} else {
			v.scene.owner[g.Name] = o.To
		}
		home := v.scene.home[g.Name]
		best := home
		if len(g.PreferredOwners) > 0 {
			best = g.PreferredOwners[0]
		}
		switch {
		case o.To == best:
			delete(v.scene.home, g.Name)
		case home == "" && (o.Why == placement.WhyDrain || o.Why == placement.WhyFailover):
			v.scene.home[g.Name] = o.From
		}
	}
}

// chained is the longest interruption of a group that moves: it starts once what it
// depends on is known to be online, and that may be moving too.
func (v *voyage) chained(g *spec.Group, seen map[string]bool) int64 {
	own := moveBound(g, v.scene.def.Cluster.Heartbeat)
	if t := v.trips[g.Name]; t != nil {
		if own = t.maxMS; own < 0 {
			return -1
		}
	}
	seen[g.Name] = true // a cycle was refused by validate
	var longest int64
	for i := range v.scene.def.Groups {
		d := &v.scene.def.Groups[i]
		if seen[d.Name] || v.trips[d.Name] == nil || !slices.Contains(g.DependsOn, d.Name) {
			continue
		}
		below := v.chained(d, seen)
		if below < 0 {
			return -1
		}
		longest = max(longest, below)
	}
	return own + longest
}

// availability is the interruptions in address order.
func (v *voyage) availability(nodeAt map[string]addr.Address) []Availability {
	out := []Availability{}
	place := func(name string) *addr.Address {
		if a, ok := nodeAt[name]; ok && name != "" {
			return &a
		}
		return nil
	}
	for i := range v.scene.def.Groups {
		g := &v.scene.def.Groups[i]
		if v.born[g.Name] {
			continue // nobody used it before
		}
		t := v.trips[g.Name]
		if g.Failback.Mode == spec.FailbackImmediate && len(g.PreferredOwners) == 0 && v.scene.owner[g.Name] != "" {
			// Which node is better turns on what else is where by then: it may go
			// back each time, and when a node comes back that was down.
			if t == nil {
				t = &trip{from: v.scene.owner[g.Name], to: v.scene.owner[g.Name], why: "it may go back by its failback policy", maxMS: moveBound(g, v.scene.def.Cluster.Heartbeat)}
			}
			back := 2 * t.drained
			if v.comes {
				back++
			}
			t.times = max(t.times, back)
		}
		if t != nil && t.times > 0 {
			if t.maxMS >= 0 {
				t.maxMS = v.chained(g, map[string]bool{})
			}
			out = append(out, Availability{Group: g.Addr, From: place(t.from), To: place(t.to), Interruptions: t.times, MaxMS: t.maxMS, Why: t.why})
		}
	}
	slices.SortFunc(out, func(x, y Availability) int { return addr.Compare(x.Group, y.Group) })
	return out
}
