package core

import (
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// leadership is what a node knows as leader of one term; a new term starts
// from nothing.
type leadership struct {
	term     uint64
	since    spec.Instant
	ready    bool   // an entry of this term is applied: all that older leaders committed is in the state
	revision uint64 // the state's then: no node gets a lease before it has applied that much
	voters   []uint64
	needed   int // of voters; both as the term began

	// By node id, whichever server the node is by then: proposals under way that take
	// a group from it, and the revision that it has to have applied for its next lease.
	taking  map[string]int
	needRev map[string]uint64

	lossTold       bool         // whether there was a quorum before it is known, and told (loss.go)
	lapsed         spec.Instant // when the own last lease ended, granted by an older leader that stood in a quorum; 0: there was none
	beaten, heldUp spec.Instant // the newest round of frames; when it was seen to come late (jitter.go)

	selfGone bool
	selfUp   spec.Instant
	inflight map[string]proposal // by command id
	busy     map[string]bool     // groups with a proposal under way
	view     bool                // a SetView is under way
	aside    map[string]bool     // other commands under way, by what they are for
	wasUp    []string

	causes causes
	leases map[string]time.Duration // the shortest lease of each owner's groups, of the state; nil: not worked out

	plan        *plan           // of the failover manager
	rests       map[string]rest // of groups that failed where they are; nil: not looked at yet
	dirty       bool
	manageAt    spec.Instant // when the failover manager has something to do without an event
	notBefore   spec.Instant // how soon it may look again
	retryGrants spec.Instant
	deadline    spec.Instant
	waits       map[string]string       // group -> why it waits, as last told
	nodeLeases  map[string]spec.Instant // node id -> when the last possible lease granted to it began
	scratch     []spec.Instant
	fencings    map[string]*fencing // by node id (fence.go)
	fenceWanted map[string]bool     // node ids, as manage found just now
	handAt      spec.Instant        // when leadership is handed over, as the own node is one of them; 0: it isn't
}

type proposal struct {
	group  string // "": a view, or what aside names
	aside  string
	taken  string   // node id that a group is taken from
	fence  *fencing // whose end it records
	failed bool     // that it failed
}

// agreement takes the driver's status.
func (m *Machine) agreement(s confdb.Status) {
	m.drv = s
	leads := s.Role == confdb.Leader
	if m.lead != nil && (!leads || m.lead.term != s.Term) {
		m.cancelFences()
	}
	switch {
	case leads && (m.lead == nil || m.lead.term != s.Term):
		for _, p := range m.peers {
			p.forgetTerm()
		}
		m.lead = &leadership{
			term: s.Term, since: m.now, voters: slices.Clone(s.Voters), needed: s.Needed, inflight: map[string]proposal{}, busy: map[string]bool{}, aside: map[string]bool{},
			waits: map[string]string{}, wasUp: slices.Clone(m.state.View.Up),
			nodeLeases: map[string]spec.Instant{}, taking: map[string]int{}, needRev: map[string]uint64{},
			fencings: map[string]*fencing{}, fenceWanted: map[string]bool{},
		}
		m.noteAnswer(s.Term, m.now)
		m.leadDirty()
		for _, id := range m.probed { // those who follow hear of it at once
			m.peers[id].probe.Hurry(m.now)
		}
	case !leads:
		m.lead = nil
	}
	if m.lead != nil && s.Ready && !m.lead.ready {
		m.lead.ready, m.lead.revision, m.lead.lapsed = true, m.state.Revision, m.leaseEnd
		m.say("info", "leads the cluster", "term", s.Term)
		m.leadDirty()
		m.renewSelf()
	} else if m.lead != nil && s.ByDevice {
		m.renewSelf()
	}
}

// leadDirty has the failover manager look again.
func (m *Machine) leadDirty() {
	if m.lead != nil {
		m.lead.dirty = true
	}
}

// nodeServer is the server id of a node in the state, 0 if it is not there.
func (m *Machine) nodeServer(node string) uint64 {
	if n := m.state.Nodes[node]; n != nil {
		return n.ServerID
	}
	return 0
}

// leadStep does a leader's work that is due.
func (m *Machine) leadStep() {
	l := m.lead
	if l.retryGrants != 0 && m.now >= l.retryGrants {
		l.retryGrants = 0
		m.renewSelf()
	}
	m.watchPeers()
	if !l.ready {
		return
	}
	m.turnKeys()
	m.tellLoss()
	if l.dirty || l.manageAt != 0 && m.now >= l.manageAt {
		if m.now >= l.notBefore {
			l.dirty, l.manageAt = false, 0
			m.proposeView()
			m.endQuarantines()
			m.manage()
			m.stepFences()
			// Some hundred groups that all report within a moment are looked at a few times, not hundreds.
			l.notBefore = m.now.Add(time.Duration(len(m.ix.groups)) * 4 * time.Microsecond)
		} else {
			if l.manageAt <= m.now {
				l.manageAt = 0 // due, and not before that
			}
			earliest(&l.manageAt, l.notBefore)
		}
	}
	earliest(&l.deadline, l.manageAt)
	earliest(&l.deadline, l.retryGrants)
}

// watchPeers notices who has fallen silent or deaf, and sets the deadline for
// the next to do so. It runs at every frame, so it only compares.
func (m *Machine) watchPeers() {
	l := m.lead
	l.deadline = 0
	suspicion := m.timings.Suspicion.D()
	changed := false
	for _, id := range m.order {
		p := m.peers[id]
		if p.fresh != 0 && !p.lost {
			if m.silent(p) {
				p.lost = true
			} else if !m.timings.Probing() {
				earliest(&l.deadline, m.silentAt(p))
			}
		}
		if p.deaf && m.now >= p.deafTill {
			p.deaf, p.refused = false, 0
		}
		if p.deaf {
			earliest(&l.deadline, p.deafTill)
		}
		up := m.peerUp(p)
		if up && p.upSince == 0 {
			p.upSince, changed = m.now, true
		} else if !up && p.upSince != 0 {
			p.upSince, changed = 0, true
		}
	}
	if up := m.takesGroups(); up && l.selfUp == 0 {
		l.selfUp, changed = m.now, true
	} else if !up && l.selfUp != 0 {
		l.selfUp, changed = 0, true
	}
	if grace := l.since.Add(suspicion); m.now < grace {
		earliest(&l.deadline, grace)
	} else if !l.dirty && l.wasUp != nil {
		changed, l.wasUp = true, nil // the time to find the new leader is over
	}
	if changed {
		l.dirty = true
	}
}

// peerUp tells whether a peer answers, asks for leases, and takes them.
func (m *Machine) peerUp(p *peer) bool {
	return p.fresh != 0 && p.ready && !p.leaving && !p.deaf && !m.silent(p)
}

// isUp tells whether a node counts as up. A new leader gives those that were
// up the time of a suspicion to find it.
func (m *Machine) isUp(node string) bool {
	n := m.state.Nodes[node]
	if n == nil || !n.Joined {
		return false
	}
	if node == m.cfg.Node {
		return m.takesGroups()
	}
	if m.beingFenced(node) {
		return false
	}
	p := m.peers[n.ServerID]
	if p != nil && p.node == node && m.peerUp(p) {
		return true
	}
	l := m.lead
	if p != nil && (p.fresh != 0 && (!p.ready || p.leaving || p.deaf) || p.probe.Down()) {
		return false
	}
	return m.now.Sub(l.since) < m.timings.Suspicion.D() && slices.Contains(l.wasUp, node)
}

// canStart tells whether a node that is to get a group can start it: it has
// answered this leader, which may grant to it (or has).
func (m *Machine) canStart(node string) bool {
	if node == m.cfg.Node {
		return m.takesGroups() && m.hasLease()
	}
	p := m.peers[m.nodeServer(node)]
	return p != nil && p.node == node && m.peerUp(p) && p.granted == p.inc && !m.beingFenced(node)
}

func (m *Machine) upNodes() []string {
	var up []string
	for _, id := range m.ix.nodeIDs {
		if m.isUp(id) {
			up = append(up, id)
		}
	}
	return up
}

// proposeView commits who is up: one view, with an epoch of its own, that
// every node knows.
func (m *Machine) proposeView() {
	l := m.lead
	if l.view {
		return
	}
	up := m.upNodes()
	if slices.Equal(up, m.state.View.Up) {
		return
	}
	l.view = true
	m.propose(confdb.Command{SetView: &confdb.SetView{From: m.state.View.Epoch, Up: up, Left: m.tookLeave(up)}}, proposal{})
}

// tookLeave are the nodes of the view that are not up any more because they
// said that they go.
func (m *Machine) tookLeave(up []string) []string {
	var left []string
	for _, id := range m.state.View.Up {
		if _, is := slices.BinarySearch(up, id); is {
			continue
		}
		p := m.peers[m.nodeServer(id)]
		if id == m.cfg.Node && m.closing || p != nil && p.node == id && p.leaving {
			left = append(left, id)
		}
	}
	return left
}

// endQuarantines ends those whose time is over, and looks again when the next
// one's is.
func (m *Machine) endQuarantines() {
	l := m.lead
	for _, id := range m.ix.nodeIDs {
		q := m.state.Nodes[id].Quarantine
		if q == nil {
			continue
		}
		if rest := q.Until.Sub(m.wallNow()); rest > 0 {
			earliest(&l.manageAt, m.now.Add(rest))
			continue
		}
		m.proposeAside("quarantine "+id, confdb.Command{EndQuarantine: &confdb.NodeRef{Node: id}})
	}
}

// proposeAside proposes what is neither a group's nor a view, once at a time.
func (m *Machine) proposeAside(what string, c confdb.Command) {
	if m.lead.aside[what] {
		return
	}
	m.lead.aside[what] = true
	m.propose(c, proposal{aside: what})
}

// propose asks for a command that only this leader in this term may commit: a
// later leader would have to work out for itself whether it is safe.
func (m *Machine) propose(c confdb.Command, p proposal) {
	l := m.lead
	c = m.command(c)
	if p.group != "" {
		l.busy[p.group] = true
	}
	if p.taken != "" {
		l.taking[p.taken]++
	}
	l.inflight[c.ID] = p
	m.emit(Propose{Command: c, Term: l.term})
}

// proposed learns what became of a command.
func (m *Machine) proposed(ev Proposed) {
	m.reportDone(ev)
	m.confirmed(ev)
	if m.lead == nil {
		return
	}
	p, ok := m.lead.inflight[ev.ID]
	if !ok {
		return
	}
	delete(m.lead.inflight, ev.ID)
	if p.aside != "" {
		delete(m.lead.aside, p.aside)
		if p.aside == asideLoss && ev.Result.Code != "" {
			m.lead.lossTold = false // what kept it from the log passes, or this leader goes
		}
	} else if p.fence != nil {
		m.fenceRecorded(p, ev.Result)
	} else if p.group == "" {
		m.lead.view = false
	} else {
		delete(m.lead.busy, p.group)
	}
	if p.taken != "" {
		m.lead.taking[p.taken]--
		if ev.Result.Code == "" {
			m.lead.needRev[p.taken] = max(m.lead.needRev[p.taken], ev.Result.Revision)
		}
	}
	m.leadDirty()
	if ev.Result.Code == CodeLost {
		// Whatever kept it from the log (a transfer under way) may last a little.
		m.lead.notBefore = m.now.Add(m.timings.Interval.D())
	}
}

// takeoverWait is W for an ownership.
func (m *Machine) takeoverWait(o confdb.Ownership) time.Duration {
	t := m.timings
	t.Lease, t.Kill = max(t.Lease, o.Lease), max(t.Kill, o.Kill)
	s := o.StopWithin
	if s == 0 {
		s = t.StopWithin
	}
	return t.TakeoverWaitWith(s, o.Watchdog)
}

// maxWait is the longest takeover wait of all groups and nodes.
func (m *Machine) maxWait() time.Duration {
	t := m.timings
	for _, n := range m.state.Nodes {
		t.Lease = max(t.Lease, n.Lease)
	}
	w := t.TakeoverWait(0)
	for _, g := range m.ix.groups {
		w = max(w, m.takeoverWait(g.Owner))
	}
	return w
}

// isReleased tells whether a group's owner has released it under its epoch, or
// was off since.
func (m *Machine) isReleased(id string, g *confdb.Group) bool {
	if n := m.state.Nodes[g.Owner.Node]; n != nil && n.Fenced.Covers(id, g.Owner.Epoch) {
		return true
	}
	if m.owns(g) {
		r := m.owner.runs[id]
		return r != nil && r.released && r.epoch == g.Owner.Epoch
	}
	p := m.peers[m.nodeServer(g.Owner.Node)]
	return p != nil && p.releases[id] >= g.Owner.Epoch && g.Owner.Epoch > 0
}

// mayTake tells whether a group may be taken from its owner now: it released
// the group, or a fence proved its node off, or W has passed since its last
// possible lease began, where a wait frees the group. Else when W will have
// passed is a deadline, and a fence is asked for where one helps.
func (m *Machine) mayTake(id string, g *confdb.Group) bool {
	if g.Owner.Node == "" || m.isReleased(id, g) {
		return true
	}
	open := m.isOpen(g)
	m.wantFence(g, open)
	if open {
		return false
	}
	wait := m.takeoverWait(g.Owner)
	free := max(m.oldLeases(), m.lead.nodeLeases[g.Owner.Node]).Add(wait)
	if m.owns(g) {
		// Its own groups: the lease's end is known here, and nothing renews it
		// while the node asks for none.
		if m.asksForLease() {
			return false
		}
		free = max(m.start.Add(wait), m.leaseEnd.Add(spec.StretchRho(g.Owner.StopWithin.D()+g.Owner.Kill.D()+g.Owner.Watchdog.D())))
	}
	if m.now >= free {
		return true
	}
	earliest(&m.lead.manageAt, free)
	return false
}

// clusterStart tells whether the cluster came up moments ago: every node that
// is up started within that time.
func (m *Machine) clusterStart(within time.Duration) bool {
	if m.now.Sub(m.start) >= within {
		return false
	}
	for _, p := range m.peers {
		if m.peerUp(p) && m.now.Sub(p.started) >= within {
			return false
		}
	}
	return true
}
