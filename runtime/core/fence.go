package core

import (
	"fmt"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// fencing is one node on its way to being proven off, in this leader's term.
// While it lasts (beingFenced) the node gets no lease: so what the proof says
// of the life that it ended stays true of the next, which never had one.
// DESIGN.md, "Why a fence is enough".
type fencing struct {
	node      string
	id        uint64            // of the StartFence that is out; 0: none
	cancelled bool              // CancelFence was sent after it
	groups    map[string]uint64 // what the node owned when it began, by epoch
	order     uint64            // event of the person's order that it carries out
	person    bool              // the proof is a person's word
	proof     *FenceDone        // verified, and not in the database yet
	recording bool              // the command for that is under way

	tries   int // that failed
	retryAt spec.Instant
}

const (
	fenceRetry     = time.Second // after the first failure, then twice as long each time
	fenceRetryMost = time.Minute
)

// beingFenced tells whether a node is being turned off by this leader, or was
// and the database doesn't say so yet.
func (m *Machine) beingFenced(node string) bool {
	if m.lead == nil || len(m.lead.fencings) == 0 {
		return false
	}
	f := m.lead.fencings[node]
	return f != nil && (f.id != 0 || f.proof != nil)
}

// FenceCovers tells whether others may wait for this node's being turned off, as the
// state says, and whether that is known, or the state may be an old one.
func (m *Machine) FenceCovers() (covers, known bool) {
	return len(m.state.Covering(m.cfg.Node)) > 0, m.current()
}

// current tells whether the state is as new as its leader's, and no old one that this
// node has begun with, nor none: a quorum device's is there once it was read.
func (m *Machine) current() bool {
	if m.lead != nil {
		return m.lead.ready
	}
	p := m.peers[m.drv.Leader]
	return p != nil && p.leads && p.term == m.drv.Term && p.echo != 0 && m.state.Cluster.ID != "" && m.state.Revision >= p.revision
}

// isOpen tells whether waiting doesn't free the group from its owner: it goes on
// without a lease; or something of it may outlive one, and there is a fence that
// can tell.
func (m *Machine) isOpen(g *confdb.Group) bool {
	if !g.Owner.Open && !g.Spec.OutlivesLease() {
		return false
	}
	return g.Freezes() || len(m.state.Covering(g.Owner.Node)) > 0
}

// wantFence notes that a group waits for a lost node that a fence could free
// it from: always where only a fence can, else if a fence is to be faster.
func (m *Machine) wantFence(g *confdb.Group, open bool) {
	node := g.Owner.Node
	if len(m.state.Fences) == 0 || m.lead.fenceWanted[node] {
		return
	}
	for _, level := range m.state.Covering(node) {
		for _, f := range level {
			if open || f.When == spec.FenceAlways && node != m.cfg.Node {
				m.lead.fenceWanted[node] = true
			}
		}
	}
}

// stepFences starts, ends and records fencings, after manage has found which
// nodes stand in a group's way.
func (m *Machine) stepFences() {
	l := m.lead
	for _, node := range m.ix.nodeIDs {
		n, f := m.state.Nodes[node], l.fencings[node]
		order := n.FenceOrder
		if f != nil && order != nil && f.order == order.Event && f.proof == nil && f.id == 0 {
			order = nil // told to the database already, which doesn't show it yet
		}
		switch {
		case f != nil && f.proof != nil:
			m.recordFence(f)
		case order != nil && order.ConfirmedOff:
			m.takeWord(node, order)
		case f != nil && f.id != 0:
			if order != nil {
				f.order = order.Event // done with this one
			}
			if !f.cancelled && f.order == 0 && m.answers(node) {
				f.cancelled = true
				m.emit(CancelFence{ID: f.id})
			}
		case order != nil:
			m.startFence(node, order)
		case l.fenceWanted[node]:
			m.startFence(node, nil)
		case f != nil && m.answers(node):
			delete(l.fencings, node) // it is back: the next loss starts anew
		}
	}
	m.handLead()
	clear(l.fenceWanted)
	l.causes = causes{}
}

// handLead hands leadership over where only a fence of this leader's own node frees a
// group, once that has lasted, and if the others can do without this node.
func (m *Machine) handLead() {
	l, want := m.lead, m.lead.fenceWanted[m.cfg.Node]
	for _, r := range m.owner.runs {
		want = want || r.unfenced && r.phase == phaseEnding && len(m.state.Covering(m.cfg.Node)) > 0
	}
	switch {
	case !want || m.closing || m.answering(m.cfg.Server) < m.drv.Needed && !m.drv.ByDevice:
		l.handAt = 0
		return
	case l.handAt != 0 && m.now >= l.handAt:
		m.say("warn", "a group waits until this node is fenced, which only another leader does: leadership is handed over")
		m.emit(HandLead{})
		l.handAt = 0
	}
	if l.handAt == 0 {
		l.handAt = m.now.Add(heldAgain)
	}
	earliest(&l.manageAt, l.handAt)
}

// answers tells whether a node is heard and would be up, fenced or not.
func (m *Machine) answers(node string) bool {
	p := m.peers[m.nodeServer(node)]
	return p != nil && p.node == node && m.peerUp(p)
}

// ownedBy is what a node owns now, by epoch.
func (m *Machine) ownedBy(node string) map[string]uint64 {
	owned := map[string]uint64{}
	for i, g := range m.ix.groups {
		if g.Owner.Node == node {
			owned[m.ix.groupIDs[i]] = g.Owner.Epoch
		}
	}
	return owned
}

// noOldLease tells whether no lease that began by then can be valid still on a
// node; else when it will be so is a deadline. A node that was turned off and is
// back at once could otherwise hold one of an older leader's in its new life.
func (m *Machine) noOldLease(node string, since spec.Instant) bool {
	lease := max(m.timings.Lease, m.state.Nodes[node].Lease)
	for _, g := range m.ix.groups {
		if g.Owner.Node == node {
			lease = max(lease, g.Owner.Lease)
		}
	}
	free := since.Add(spec.StretchRho(lease.D()))
	if m.now >= free {
		return true
	}
	earliest(&m.lead.manageAt, free)
	return false
}

// majorityWithout tells whether enough voters answer now beside a node. Else to
// turn it off would free nothing: the proof could not be committed, and the
// cluster, which the node may be about to come back to, would stay without quorum.
func (m *Machine) majorityWithout(node string) bool {
	if m.drv.ByDevice {
		return true
	}
	return m.answering(m.nodeServer(node)) >= m.drv.Needed
}

// answering is how many voters answer now, this one among them, beside a server.
func (m *Machine) answering(beside uint64) int {
	n := 0
	for _, v := range m.drv.Voters {
		if p := m.peers[v]; v != beside && (v == m.cfg.Server || p != nil && p.fresh != 0 && !m.silent(p)) {
			n++
		}
	}
	return n
}

// startFence has a node turned off, if this leader may: a majority stands
// behind it, and no older leader's lease counts any more.
func (m *Machine) startFence(node string, order *confdb.FenceOrder) {
	l := m.lead
	f := l.fencings[node]
	if f == nil {
		f = &fencing{node: node}
	}
	levels := m.state.Covering(node)
	if order != nil {
		why := ""
		switch {
		case node == m.cfg.Node:
			why = "it leads the cluster, and a node never fences itself; stop its agent, so that another leads, and try again"
		case len(levels) == 0:
			why = "no fence covers it any more"
		}
		if why != "" {
			f.order = order.Event
			l.fencings[node] = f
			m.fenceFailed(f, FenceDone{Err: why})
			return
		}
	} else if f.retryAt != 0 && m.now < f.retryAt {
		earliest(&l.manageAt, f.retryAt)
		return
	}
	if node == m.cfg.Node || len(levels) == 0 || !m.noOldLease(node, m.oldLeases()) {
		return
	}
	if !m.Quorum() || order == nil && !m.majorityWithout(node) {
		earliest(&l.manageAt, m.now.Add(m.timings.Interval.D()))
		return
	}
	m.serial++
	f.id, f.cancelled, f.groups, f.order, f.person = m.serial, false, m.ownedBy(node), 0, false
	cause := m.causes().down[m.state.NodeName(node)]
	if order != nil {
		f.order, cause = order.Event, order.Event
	}
	l.fencings[node] = f
	name := m.state.NodeName(node)
	start := StartFence{ID: f.id, Node: node, Name: name}
	for _, level := range levels {
		devices := make([]spec.Fence, 0, len(level))
		for _, d := range level {
			devices = append(devices, *d)
		}
		start.Levels = append(start.Levels, devices)
	}
	m.emit(start)
	m.say("warn", "a node is fenced", "node", name, "levels", len(levels))
	c := m.command(confdb.Command{Cause: cause, Event: &confdb.Event{
		Node: name, Object: m.state.Nodes[node].Spec.Addr.String(), Kind: KindFenceStarted, Text: fmt.Sprintf("node %s is being fenced by node %s", name, m.cfg.Name),
	}})
	m.emit(Propose{Command: c, Term: l.term})
	l.dirty = true // it is not up any more
	earliest(&l.manageAt, m.now)
}

// takeWord takes a person's word that a node is off, once no lease of it can
// be valid: a word against what the leader hears doesn't count.
func (m *Machine) takeWord(node string, order *confdb.FenceOrder) {
	l := m.lead
	f := l.fencings[node]
	if f == nil {
		f = &fencing{node: node}
		l.fencings[node] = f
	}
	if f.id != 0 && !f.cancelled { // the device is not needed any more
		f.cancelled = true
		m.emit(CancelFence{ID: f.id})
	}
	switch {
	case node == m.cfg.Node || m.answers(node):
		f.order = order.Event
		m.fenceFailed(f, FenceDone{Err: "it is up: it answers its leader, so it is not off"})
	case m.noOldLease(node, max(m.oldLeases(), l.nodeLeases[node])):
		f.id, f.groups, f.order, f.person = 0, m.ownedBy(node), order.Event, true
		f.proof = &FenceDone{OK: true, By: order.Intent.Author}
		m.recordFence(f)
	}
}

// fenceDone takes a StartFence's end.
func (m *Machine) fenceDone(ev FenceDone) {
	if m.lead == nil {
		return
	}
	for _, f := range m.lead.fencings {
		if f.id != ev.ID {
			continue
		}
		f.id = 0
		switch {
		case ev.OK:
			f.proof = &ev
			if p := m.peers[m.nodeServer(f.node)]; p != nil {
				p.fresh = 0 // what it said last, it said before
			}
			m.recordFence(f)
		case ev.Cancelled:
			m.say("info", "a node is not fenced: it is back, or there is no need any more", "node", m.state.NodeName(f.node))
		default:
			m.fenceFailed(f, ev)
		}
		m.leadDirty()
		return
	}
}

// recordFence has the proof committed. It holds in this term alone: a later
// leader may have granted the node a lease meanwhile, and one that hasn't finds
// the entry in its log before it grants any.
func (m *Machine) recordFence(f *fencing) {
	if f.recording {
		return
	}
	f.recording = true
	m.propose(confdb.Command{Cause: m.fenceCause(f), NodeFenced: &confdb.NodeFenced{
		Node: f.node, OK: true, Groups: f.groups, Uses: f.proof.Uses, By: f.proof.By, Person: f.person, Order: f.order,
	}}, proposal{taken: f.node, fence: f})
}

// fenceRecorded learns what became of that, or of the word that it failed.
func (m *Machine) fenceRecorded(p proposal, r confdb.Result) {
	f := p.fence
	switch lost := r.Code == CodeLost; {
	case p.failed && lost:
		f.order = 0 // the order still stands
	case p.failed:
	case lost:
		f.recording = false // again, while this term lasts: the node has got no lease since
	case m.lead.fencings[f.node] == f:
		delete(m.lead.fencings, f.node)
	}
}

// fenceFailed tells of a fencing that failed, and sets when it is tried again.
func (m *Machine) fenceFailed(f *fencing, ev FenceDone) {
	wait := fenceRetry << min(f.tries, 6)
	f.tries++
	f.retryAt = m.now.Add(min(wait, fenceRetryMost))
	m.say("error", "a node could not be fenced", "node", m.state.NodeName(f.node), "why", ev.Err)
	m.propose(confdb.Command{Cause: m.fenceCause(f), NodeFenced: &confdb.NodeFenced{
		Node: f.node, Uses: ev.Uses, Error: ev.Err, Order: f.order,
	}}, proposal{fence: f, failed: true})
}

func (m *Machine) fenceCause(f *fencing) uint64 {
	name := m.state.NodeName(f.node)
	return m.newestEvent(func(e *confdb.Event) bool {
		return (e.Kind == KindFenceStarted || e.Kind == confdb.KindFenceOrdered) && e.Node == name
	})
}

// cancelFences gives up what a leader that is none any more has begun.
func (m *Machine) cancelFences() {
	for _, node := range m.ix.nodeIDs {
		if f := m.lead.fencings[node]; f != nil && f.id != 0 && !f.cancelled {
			m.emit(CancelFence{ID: f.id})
		}
	}
}
