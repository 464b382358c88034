package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/placement"
)

const (
	// startPatience is how long a group waits at a cluster's start for a
	// preferred owner that is a member and not up yet.
	startPatience = 120 * time.Second
	// retryFailed is how long a group that failed, with nowhere else to go,
	// rests before it is tried again.
	retryFailed = time.Hour
)

// manage is the failover manager: it asks placement where every group should
// rest, and proposes each step there that is safe and due.
func (m *Machine) manage() {
	l := m.lead
	m.noteRests()
	outcomes := m.settled()
	leaving := map[string][]string{} // node name -> groups that are to leave it
	for i, o := range outcomes {
		if g := m.ix.groups[i]; (g.Handover != nil || o.To != "" && !m.dependenciesOnline(g)) && m.isReleased(m.ix.groupIDs[i], g) {
			continue // it has made its room, which what it waits for perhaps waits for
		}
		if o.From != "" && o.From != o.To {
			leaving[o.From] = append(leaving[o.From], o.Group)
		}
	}
	for i, id := range m.ix.groupIDs {
		if len(l.busy) == 0 || !l.busy[id] {
			m.act(id, m.ix.groups[i], outcomes[i], leaving)
		}
	}
	l.causes = causes{}
}

// placementGroup tells placement what is known of a group.
func (m *Machine) placementGroup(g *confdb.Group, want byte, p *placement.Group) {
	p.Forget()
	p.Want, p.Asked, p.LeftFailed, p.Failed = spec.WantOnline, g.WantBy != nil, g.LeftFailed != "", g.GaveUp
	if want == wantOffline {
		p.Want = spec.WantOffline
	}
	if n := m.state.Nodes[g.Owner.Node]; n != nil {
		p.Owner = n.Spec.Name
	}
	if m.coldStart(g) {
		p.Owner = "" // a start of the cluster and no failover: from the head
		return
	}
	if g.HomeFrom != "" {
		if n := m.state.Nodes[g.HomeFrom]; n != nil {
			p.Home = n.Spec.Name
			if p.Owner == "" {
				p.Last = p.Home
			}
		}
	}
	switch {
	case g.Handover != nil && (g.Handover.Why == WhyShed || g.Handover.To == ""):
		p.Last, p.Owner = p.Owner, "" // it made room: where that was found for it, or wherever there is some
		if g.Handover.To != "" {
			p.Move, p.MoveTo = true, m.state.NodeName(g.Handover.To)
		}
	case g.Handover != nil:
		p.Move, p.MoveTo = true, m.state.NodeName(g.Handover.To)
	case g.Move != nil:
		p.Move = true
		if g.Move.To != "" {
			p.MoveTo = m.state.NodeName(g.Move.To)
		}
	case g.HomeFrom != "":
		if p.Failback = m.failbackDue(g); p.Failback {
			p.NoHome = m.noHomes(g)
		}
	}
}

// act does the next step for one group on its way to its outcome.
func (m *Machine) act(id string, g *confdb.Group, o placement.Outcome, leaving map[string][]string) {
	owner, to := g.Owner.Node, m.nodeID(o.To)
	lost := owner != "" && !m.isUp(owner)
	released := owner != "" && m.isReleased(id, g)
	switch {
	case owner == "":
		if to != "" && m.mayStart(id, g, to, leaving) {
			m.assign(id, g, to, o.Why, false, fmt.Sprintf("group %s starts on node %s", g.Spec.Name, o.To))
		}
		m.tellWait(id, g, o)
	case m.effectiveWant(g) == spec.WantOffline || g.Deleting != nil:
		// Its owner stops it by itself (dependents first).
		if (released || lost) && m.mayTake(id, g) {
			m.assign(id, g, "", WhyOffline, false, fmt.Sprintf("group %s is offline", g.Spec.Name))
		}
	case g.LeftFailed != "":
	case g.GaveUp && !lost:
		m.failedOver(id, g, to, released, leaving)
	case lost:
		if to == "" || to == owner {
			if n := m.state.Nodes[owner]; n != nil && n.Evicting != nil && m.mayTake(id, g) {
				m.assign(id, g, "", WhyEvicted, false, fmt.Sprintf("group %s has no owner any more: node %s is evicted", g.Spec.Name, n.Spec.Name))
				return
			}
			m.tellWait(id, g, o)
			return
		}
		if m.mayTake(id, g) && m.mayStart(id, g, to, leaving) {
			from := m.state.NodeName(owner)
			text := fmt.Sprintf("group %s fails over from node %s, which is down, to node %s", g.Spec.Name, from, o.To)
			switch n := m.state.Nodes[owner]; {
			case n != nil && n.Fenced.Covers(id, g.Owner.Epoch):
				text = fmt.Sprintf("group %s fails over from node %s, which was fenced, to node %s", g.Spec.Name, from, o.To)
			case released:
				text = fmt.Sprintf("group %s goes from node %s, which stops, to node %s", g.Spec.Name, from, o.To)
			}
			m.assign(id, g, to, WhyFailover, false, text)
		}
	case released:
		// It waits for a new epoch: elsewhere, or where it was.
		if to == "" && o.Why == WhyShed || to == "" && g.Handover != nil && g.Handover.To == "" {
			m.assign(id, g, "", WhyShed, false, fmt.Sprintf("group %s makes room for one of higher priority", g.Spec.Name))
			return
		}
		if (to == "" || to == owner) && m.crowded(g) {
			m.assign(id, g, "", WhyShed, false, fmt.Sprintf("group %s can't go back to node %s: others have taken its place there", g.Spec.Name, m.state.NodeName(owner)))
			return
		}
		why := o.Why
		if to == "" {
			to = owner
		}
		if to == owner {
			why = WhyRetry
		}
		if to == owner || m.mayStart(id, g, to, leaving) {
			if g.Handover != nil && why != WhyRetry {
				why = g.Handover.Why
			}
			m.assign(id, g, to, why, false, fmt.Sprintf("group %s starts on node %s", g.Spec.Name, m.state.NodeName(to)))
		}
	case to != owner && g.Handover == nil:
		m.handOver(id, g, to, o)
	}
}

// failedOver deals with a group that failed past its restarts where it is.
func (m *Machine) failedOver(id string, g *confdb.Group, to string, released bool, leaving map[string][]string) {
	owner := g.Owner.Node
	if to == "" || to == owner {
		if m.dueRetry(id) && released {
			m.assign(id, g, owner, WhyRetry, false, fmt.Sprintf("group %s is tried again on node %s", g.Spec.Name, m.state.NodeName(owner)))
		}
		return
	}
	if !released {
		return // the owner stops what is left of it first
	}
	if n, limit := m.failovers(g), m.threshold(g); n >= limit {
		m.propose(confdb.Command{Cause: m.causeOf(g), Assign: &confdb.Assign{
			Group: id, From: g.Owner.Epoch, Why: WhyLeftFailed, Timings: m.ownership(g),
			LeftFailed: fmt.Sprintf("it failed over %d times within %s (failover.threshold = %d)", n, failoverPeriod(g), limit),
			Text:       fmt.Sprintf("group %s is left failed: it failed over %d times within %s already; mend it, then `clusterplan online %s`", g.Spec.Name, n, failoverPeriod(g), g.Spec.Name),
		}}, proposal{group: id, taken: owner})
		return
	}
	if m.mayStart(id, g, to, leaving) {
		m.assign(id, g, to, WhyGaveUp, true, fmt.Sprintf("group %s fails over from node %s, where it failed, to node %s",
			g.Spec.Name, m.state.NodeName(owner), m.state.NodeName(to)))
	}
}

// rest is until when a failed group is left alone; of which failure, GaveUpAt tells.
type rest struct {
	gaveUp time.Time
	until  spec.Instant
}

// noteRests has groups that failed rest from now on, by this leader's own clock,
// whatever time of day their owners told. Only those that a new leader finds so
// have rested a while already: since GaveUpAt, as far as that can be.
func (m *Machine) noteRests() {
	l := m.lead
	first := l.rests == nil
	if first {
		l.rests = map[string]rest{}
	}
	for i, id := range m.ix.groupIDs {
		g := m.ix.groups[i]
		if !g.GaveUp {
			delete(l.rests, id)
			continue
		}
		if r, ok := l.rests[id]; ok && r.gaveUp.Equal(g.GaveUpAt) {
			continue
		}
		wait := retryFailed
		if first && !g.GaveUpAt.IsZero() {
			wait = min(g.GaveUpAt.Add(retryFailed).Sub(m.wallNow()), retryFailed)
		}
		l.rests[id] = rest{g.GaveUpAt, m.now.Add(wait)}
	}
}

// dueRetry tells whether a failed group has rested long enough.
func (m *Machine) dueRetry(id string) bool {
	until := m.lead.rests[id].until
	if m.now < until {
		earliest(&m.lead.manageAt, until)
		return false
	}
	return true
}

// mayStart tells whether a group may be given to a node now: what it depends
// on is online, what must not share the node or its room has left, and the
// node can start it at once.
func (m *Machine) mayStart(id string, g *confdb.Group, to string, leaving map[string][]string) bool {
	if !m.dependenciesOnline(g) {
		return false
	}
	name := m.state.NodeName(to)
	for _, other := range leaving[name] {
		if other == g.Spec.Name {
			continue
		}
		h := m.groupNamed(other)
		if len(g.Spec.Demand) > 0 && len(h.Spec.Demand) > 0 || slices.Contains(g.Spec.KeepApart, other) || slices.Contains(h.Spec.KeepApart, g.Spec.Name) {
			return false
		}
	}
	if m.waitsForPreferred(g, name) {
		return false
	}
	if !m.canStart(to) {
		earliest(&m.lead.manageAt, m.now.Add(m.timings.Interval.D()))
		return false
	}
	return true
}

// crowded tells whether a group that was released to go elsewhere can't go back to
// its owner: others have its room by now, or it is kept apart from one that is there.
func (m *Machine) crowded(g *confdb.Group) bool {
	n := m.state.Nodes[g.Owner.Node]
	if g.Handover == nil || n == nil {
		return false
	}
	used := maps.Clone(g.Spec.Demand)
	for i, other := range m.ix.groups {
		if other == g || other.Owner.Node != g.Owner.Node || other.Handover != nil && m.isReleased(m.ix.groupIDs[i], other) {
			continue
		}
		if slices.Contains(g.Spec.KeepApart, other.Spec.Name) || slices.Contains(other.Spec.KeepApart, g.Spec.Name) {
			return true
		}
		for what := range used {
			used[what] += other.Spec.Demand[what]
		}
	}
	for what, sum := range used {
		if room, limited := n.Spec.Capacity[what]; limited && g.Spec.Demand[what] > 0 && sum > room {
			return true
		}
	}
	return false
}

// dependenciesOnline tells whether all that the group depends on is online. A
// name that nothing has holds nothing back.
func (m *Machine) dependenciesOnline(g *confdb.Group) bool {
	for _, name := range g.Spec.DependsOn {
		if d := m.groupNamed(name); d != nil && d.State != spec.StateOnline {
			return false
		}
	}
	return true
}

// waitsForPreferred tells whether, at the cluster's start, a group that runs
// nowhere yet waits for a preferred owner before name: a member that has not
// come up since. A node that never joined is no member, so a first apply never
// waits for it; one that was up and is lost again is not waited for either.
func (m *Machine) waitsForPreferred(g *confdb.Group, name string) bool {
	atRest := g.Owner.Node == "" && g.Owner.Epoch == 0 && g.WantBy == nil && m.clusterStart(startPatience)
	if len(g.Spec.PreferredOwners) == 0 || !atRest && !m.coldStart(g) {
		return false
	}
	for _, p := range g.Spec.PreferredOwners {
		if p == name {
			return false
		}
		if id := m.nodeID(p); id != "" && m.state.Nodes[id].Joined && m.state.Nodes[id].Paused == nil && !m.cameUp(id) {
			earliest(&m.lead.manageAt, m.start.Add(startPatience))
			return true
		}
	}
	return false
}

// coldStart tells whether a group's owner is from before the cluster's start
// and has not come up since, so that nothing says that it failed.
func (m *Machine) coldStart(g *confdb.Group) bool {
	return g.Owner.Node != "" && len(g.Spec.PreferredOwners) > 0 && g.Spec.Priority > 0 && g.Handover == nil && g.Move == nil &&
		(g.Spec.Failover.Mode == "" || g.Spec.Failover.Mode == spec.FailoverAutomatic) &&
		m.wallNow().Sub(g.Owner.Since) >= m.now.Sub(m.start) && !m.cameUp(g.Owner.Node) && m.clusterStart(startPatience)
}

// cameUp tells whether a node has said since this agent's start that it takes groups.
func (m *Machine) cameUp(node string) bool {
	if node == m.cfg.Node {
		return true
	}
	p := m.peers[m.nodeServer(node)]
	return p != nil && p.inc != 0 && p.ready
}

// handOver asks a healthy owner to stop the group, once it is known where it goes.
func (m *Machine) handOver(id string, g *confdb.Group, to string, o placement.Outcome) {
	if to != "" && !m.canStart(to) {
		earliest(&m.lead.manageAt, m.now.Add(m.timings.Interval.D()))
		return
	}
	from := m.state.NodeName(g.Owner.Node)
	text := fmt.Sprintf("group %s is stopped on node %s to go to node %s", g.Spec.Name, from, o.To)
	switch o.Why {
	case WhyShed:
		text = fmt.Sprintf("group %s is stopped on node %s to make room for one of higher priority", g.Spec.Name, from)
		if to != "" {
			text += ", and goes to node " + o.To
		}
	case WhyFailback:
		text = fmt.Sprintf("group %s fails back from node %s to node %s", g.Spec.Name, from, o.To)
	case WhyDrain:
		text = fmt.Sprintf("group %s leaves node %s, which is drained, for node %s", g.Spec.Name, from, o.To)
	case WhyNotPossible:
		text = fmt.Sprintf("group %s leaves node %s, which may not own it any more, for node %s", g.Spec.Name, from, o.To)
	}
	m.propose(confdb.Command{Cause: m.orderEvent(g, o.Why, o.To), Handover: &confdb.HandOver{
		Group: id, From: g.Owner.Epoch, To: to, Why: o.Why, Text: text,
	}}, proposal{group: id})
}

// assign proposes a new owner; "" is nobody.
func (m *Machine) assign(id string, g *confdb.Group, to, why string, counts bool, text string) {
	taken := g.Owner.Node
	if taken == to {
		taken = "" // a new epoch where it was takes nothing away
	}
	delete(m.lead.waits, id)
	m.propose(confdb.Command{Cause: m.causeOf(g), Assign: &confdb.Assign{
		Group: id, From: g.Owner.Epoch, Node: to, Why: why, Text: text,
		Failover: g.Owner.Node != to && to != "" && (why == WhyFailover || why == WhyGaveUp) && g.Owner.Node != "",
		Away:     why == WhyDrain,
		Counts:   counts, Timings: m.ownership(g),
	}}, proposal{group: id, taken: taken})
}

// ownership is what a takeover from the next owner counts with.
func (m *Machine) ownership(g *confdb.Group) confdb.Ownership {
	s := g.Spec.StopWithin
	if s == 0 {
		s = m.timings.StopWithin
	}
	return confdb.Ownership{Lease: m.timings.Lease, StopWithin: s, Kill: m.timings.Kill, Open: g.Spec.OutlivesLease(), Freeze: g.Spec.NoQuorum == spec.NoQuorumFreeze}
}

// tellWait says once why a group that is wanted online can't be.
func (m *Machine) tellWait(id string, g *confdb.Group, o placement.Outcome) {
	l := m.lead
	why := ""
	switch o.Why {
	case placement.WhyNoNode:
		why = "no possible owner is up"
	case placement.WhyNoRoom:
		why = "no node that is up has room for it"
	case placement.WhyApart:
		why = "the nodes that are up hold groups that it is kept apart from"
	case placement.WhyManual:
		why = "its node is down and failover.mode is manual: it waits for `clusterplan move`"
	case placement.WhyNoFailover:
		why = "its node is down and failover.mode is none: it waits for its node"
	}
	if why == "" || g.Owner.Node == "" && m.now.Sub(l.since) < m.timings.Suspicion.D() {
		if why == "" {
			delete(l.waits, id)
		}
		return
	}
	if l.waits[id] == why {
		return
	}
	l.waits[id] = why
	m.say("warn", "a group waits", "group", g.Spec.Name, "why", why)
	if last := m.newestAbout(g); last == nil || last.Kind != KindGroupWaits || !strings.HasSuffix(last.Text, why) {
		c := m.command(confdb.Command{Cause: m.causeOf(g), Event: &confdb.Event{
			Object: g.Spec.Addr.String(), Kind: KindGroupWaits, Text: "group " + g.Spec.Name + " is not online: " + why,
		}})
		m.emit(Propose{Command: c, Term: l.term})
	}
}

func (m *Machine) newestAbout(g *confdb.Group) *confdb.Event {
	object := g.Spec.Addr.String()
	for i := range slices.Backward(m.state.Events) {
		if m.state.Events[i].Object == object {
			return &m.state.Events[i]
		}
	}
	return nil
}

// threshold is how many failovers a group gets within its period.
func (m *Machine) threshold(g *confdb.Group) int {
	if t := g.Spec.Failover.Threshold; t > 0 {
		return t
	}
	return max(1, len(m.state.Nodes)-1)
}

func failoverPeriod(g *confdb.Group) spec.Duration {
	if p := g.Spec.Failover.Period; p > 0 {
		return p
	}
	return spec.Duration(6 * time.Hour)
}

func (m *Machine) failovers(g *confdb.Group) int {
	n := 0
	for _, t := range g.Failovers {
		if m.wallNow().Sub(t) < failoverPeriod(g).D() {
			n++
		}
	}
	return n
}
