package core

import (
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
)

// peer is what is known of another server.
type peer struct {
	server uint64
	node   string // id

	// Of its newest frame.
	inc      uint64
	echo     uint64 // newest own Seq that this incarnation echoed; 0: none yet, it may be a recording
	seq      uint64
	held     uint64       // the newest of its Seqs that it holds a lease for; 0: this incarnation had none
	at       spec.Instant // receipt
	started  spec.Instant // its agent's start at the latest, on this clock: receipt less UpSince
	term     uint64
	leads    bool // it said that it leads term
	ready    bool
	leaving  bool
	revision uint64
	releases map[string]uint64 // group -> newest epoch, by inc

	jitter jitter           // of its answers, in any term (jitter.go)
	probe  heartbeat.Prober // beats and probes to it, where the timings have them
	asks   bool             // the next frame to it is one
	// A leader beats fast until the peer holds a lease of the settings' length:
	// settled. settleSeq is the peer's Seq that the first such one was granted for.
	settled   bool
	settleSeq uint64

	sent  [64]sentFrame // own frames to it, newest at sentN-1
	sentN uint64

	// As leader, of the current term.
	fresh    spec.Instant // receipt of its newest answer to a frame of this term that it had not answered before
	freshSeq uint64       // that answer's Seq: what a grant answers
	freshAck uint64       // own Seq that it answered
	lost     bool         // it was found silent since
	answered spec.Instant // send time of the newest own frame that it answered
	oldTerm  spec.Instant // no older term's frame was answered after this; with told
	told     bool
	granted  uint64 // incarnation that was granted one
	offered  bool   // its newest frame from here carried a lease
	refused  int    // answers in a row that show a lease offered and not taken
	deaf     bool   // it took none for three rounds
	deafTill spec.Instant
	upSince  spec.Instant
}

type sentFrame struct {
	seq  uint64
	at   spec.Instant
	term uint64 // that this node led when it sent it; 0: none
	held uint64 // the peer's Seq that it carried a lease for; 0: none
	rev  uint64 // the own revision that it told
}

func (p *peer) forgetTerm() {
	p.fresh, p.lost, p.answered, p.oldTerm, p.told = 0, false, 0, 0, false
	p.granted, p.offered, p.refused = 0, false, 0
	p.deaf, p.deafTill, p.upSince = false, 0, 0
	p.settled, p.settleSeq = false, 0
	clear(p.releases) // others may have granted leases since
}

func (m *Machine) peer(server uint64) *peer {
	p := m.peers[server]
	if p == nil {
		p = &peer{server: server, releases: map[string]uint64{}}
		m.peers[server] = p
		i, _ := slices.BinarySearch(m.order, server)
		m.order = slices.Insert(m.order, i, server)
	}
	return p
}

// Frame makes the frame for a server, all but the driver's messages. It counts
// as sent at now: what the lease of a grant in answer to it is counted from.
func (m *Machine) Frame(now spec.Instant, to uint64) heartbeat.Frame {
	m.advance(now)
	p := m.peer(to)
	m.seq++
	f := heartbeat.Frame{
		From: m.cfg.Server, To: to, Incarnation: m.cfg.Incarnation, Seq: m.seq, NodeID: m.cfg.Node,
		Term: m.drv.Term, Unsaved: m.drv.Unsaved, Leader: m.drv.Leader, AckIncarnation: p.inc, AckSeq: p.seq,
		Ready: m.asksForLease(), Leaving: m.closing, Revision: m.state.Revision, UpSince: m.now.Sub(m.start), Held: m.held,
		OldTermAge: m.now.Sub(m.oldTermAnswer(m.drv.Term)), Releases: m.releasesToTell(),
	}
	if p.asks {
		f.Asks, p.asks = true, false
		p.probe.Sent(m.seq)
	}
	s := sentFrame{seq: m.seq, at: m.now, rev: m.state.Revision}
	if m.lead != nil {
		s.term = m.lead.term
		m.noteAnswer(m.lead.term, m.now)
		f.Asks = f.Asks || !m.timings.Probing()
		if g := m.grant(p); g > 0 {
			f.Grant, f.GrantIncarnation, f.GrantSeq = g, p.inc, p.freshSeq
			s.held = p.freshSeq
			if p.settleSeq == 0 && p.revision >= m.state.TimingsRevision {
				p.settleSeq = p.freshSeq
			}
		}
	} else if p.leads && p.term == m.drv.Term {
		m.noteAnswer(p.term, p.at)
	}
	p.sent[p.sentN%uint64(len(p.sent))] = s
	p.sentN++
	return f
}

// noteAnswer remembers that a leader of that term may count on this node as of
// a moment: the receipt of the frame that is answered, for the leader counts
// from when it sent that; a leader itself counts from now.
func (m *Machine) noteAnswer(term uint64, at spec.Instant) {
	a := &m.answered
	if term > a.term {
		a.old, a.term = max(a.old, a.at), term
	}
	a.at = max(a.at, at)
}

// oldTermAnswer is when this node last answered in a term older than that one.
func (m *Machine) oldTermAnswer(term uint64) spec.Instant {
	if term > m.answered.term {
		return max(m.answered.old, m.answered.at)
	}
	return m.answered.old
}

// asksForLease tells whether this node wants and takes leases; one that shuts
// down does until its groups are stopped.
func (m *Machine) asksForLease() bool { return m.monitor && !m.owner.stuck }

// takesGroups tells whether groups may come to this node.
func (m *Machine) takesGroups() bool { return m.asksForLease() && !m.closing }

// releasesToTell are the releases that the state does not show yet, at most
// some at a time, in turn.
func (m *Machine) releasesToTell() []heartbeat.Release {
	o := &m.owner
	if len(o.released) == 0 {
		return nil
	}
	const most = 24
	out := make([]heartbeat.Release, 0, min(most, len(o.released)))
	for range min(most, len(o.released)) {
		o.tellNext %= len(o.released)
		r := o.released[o.tellNext]
		o.tellNext++
		out = append(out, heartbeat.Release{Group: r.id, Epoch: r.epoch, Incarnation: m.cfg.Incarnation})
	}
	return out
}

// heard takes a frame.
func (m *Machine) heard(f *heartbeat.Frame) {
	if f.From == 0 || f.From == m.cfg.Server || f.To != 0 && f.To != m.cfg.Server || f.Incarnation == 0 {
		return
	}
	p := m.peer(f.From)
	started := m.now.Add(-spec.ShrinkRho(max(f.UpSince, 0)))
	echo := uint64(0)
	if f.AckIncarnation == m.cfg.Incarnation {
		echo = f.AckSeq
	}
	if f.Incarnation != p.inc {
		// Frames of an earlier incarnation are genuine whenever they come, late
		// or played again. Who lives echoes something newer of this agent's.
		if p.echo != 0 && echo <= p.echo {
			return
		}
		p.inc, p.seq, p.echo = f.Incarnation, 0, 0
		p.started = started
		p.offered, p.refused, p.deaf = false, 0, false
		p.fresh, p.lost, p.settled, p.settleSeq = 0, false, false, 0
		m.leadDirty()
	}
	if f.Seq <= p.seq {
		return // overtaken
	}
	p.seq, p.at, p.node, p.term = f.Seq, m.now, f.NodeID, f.Term
	p.echo, p.held = max(p.echo, echo), f.Held
	p.started = min(p.started, started)
	p.leads = f.Leader == f.From
	p.revision = f.Revision
	if p.ready != f.Ready || p.leaving != f.Leaving {
		p.ready, p.leaving = f.Ready, f.Leaving
		m.leadDirty()
	}
	p.settled = p.settled || p.settleSeq != 0 && f.Held >= p.settleSeq
	if echo != 0 {
		p.probe.Echoed(echo, m.now, m.pace(p))
	}
	m.takeGrant(p, f)
	if m.lead != nil && f.Term == m.lead.term {
		m.takeAnswer(p, f)
	}
}

// takeGrant takes a lease: it ends Grant after this node sent the frame that
// the grant answers, on this node's own clock.
func (m *Machine) takeGrant(p *peer, f *heartbeat.Frame) {
	if f.Grant <= 0 || f.GrantIncarnation != m.cfg.Incarnation || f.Term != m.drv.Term || !p.leads || !m.asksForLease() {
		return
	}
	s := p.sentAs(f.GrantSeq)
	if s == nil || f.Revision < m.state.ShorterRevision {
		return // too long ago to matter; or of a leader that grants longer leases than it may by now
	}
	m.held = max(m.held, f.GrantSeq)
	m.renew(s.at.Add(f.Grant))
}

func (p *peer) sentAs(seq uint64) *sentFrame {
	n := uint64(len(p.sent))
	for i := p.sentN; i > 0 && i+n > p.sentN; i-- {
		if s := &p.sent[(i-1)%n]; s.seq == seq {
			return s
		}
	}
	return nil
}

// renewStep is the least that a lease has to grow: a leader's own grows a little
// with every answer. The monitor gets each lease that counts here, so that both
// mean the same moment by its end.
const renewStep = 15 * time.Millisecond

// renew makes the own lease end later; never earlier.
func (m *Machine) renew(end spec.Instant) {
	if end <= m.leaseEnd || end <= m.now || m.hasLease() && end.Sub(m.leaseEnd) < renewStep {
		return
	}
	was := m.leaseEnd
	m.leaseEnd, m.retimed.leaseOf = end, m.state.ShorterRevision
	m.emit(Renew{End: end})
	if was <= m.now {
		m.wakeGroups()
	}
}

// hasLease tells whether this node may run groups now.
func (m *Machine) hasLease() bool { return m.leaseEnd > m.now }

// checkLease notices the end of the lease.
func (m *Machine) checkLease() {
	if had := m.owner.leased; had != m.hasLease() {
		m.owner.leased = !had
		if had {
			m.say("warn", "the lease is over: groups stop", "lease_end", int64(m.leaseEnd))
		}
		m.wakeGroups()
	}
}

func (m *Machine) leaseDeadline() spec.Instant {
	if m.owner.leased {
		return m.leaseEnd
	}
	return 0
}

// takeAnswer counts a peer's answer to one of the leader's frames of this term.
func (m *Machine) takeAnswer(p *peer, f *heartbeat.Frame) {
	if f.AckIncarnation != m.cfg.Incarnation {
		return
	}
	s := p.sentAs(f.AckSeq)
	if s == nil || s.term != m.lead.term {
		return
	}
	// Late answers to old frames are no sign of life now, nor is an answer given
	// before: a node that hears nothing any more repeats its last one.
	if f.AckSeq > p.freshAck && m.now.Sub(s.at) < m.suspicion(p) {
		if p.fresh == 0 || m.silent(p) {
			m.leadDirty()
		}
		if p.fresh != 0 {
			p.jitter.note(m.now, m.now.Sub(p.fresh))
		}
		p.fresh, p.freshSeq, p.freshAck, p.lost = m.now, f.Seq, f.AckSeq, false
	}
	if !p.told && !f.Unsaved {
		// Receipt less the age, as short as this clock may have seen it: late is safe.
		p.told, p.oldTerm = true, m.now.Add(-spec.ShrinkRho(max(f.OldTermAge, 0)))
		m.leadDirty()
	}
	m.watchHeld(p, s, f)
	if len(f.Releases) > 0 && !f.Unsaved && (p.granted == f.Incarnation || p.granted == 0 && m.oldIncarnationGone(p)) {
		for _, r := range f.Releases {
			// Of the incarnation that speaks, and that was the last to get a lease.
			if r.Incarnation == f.Incarnation && r.Epoch > p.releases[r.Group] {
				p.releases[r.Group] = r.Epoch
				m.leadDirty()
			}
		}
	}
	if s.at > p.answered {
		p.answered = s.at
		m.renewSelf()
	}
	if a := m.authority(); !p.offered && a != 0 && m.now.Sub(a) < m.timings.Suspicion.D() && m.mayGrant(p) {
		m.emit(Send{p.server}) // a first lease need not wait for the next frame
	}
}

// watchHeld notices a peer that hears and answers, yet takes no lease.
func (m *Machine) watchHeld(p *peer, s *sentFrame, f *heartbeat.Frame) {
	if s.held == 0 || s.at <= p.answered {
		return
	}
	if f.Held >= s.held {
		p.refused = 0
		return
	}
	if f.Revision > m.state.Revision || s.rev < m.state.ShorterRevision {
		return // it knows of shorter leases than it was offered, and rightly takes none (takeGrant)
	}
	if p.refused++; p.refused >= 3 && !p.deaf {
		// No more leases until what it has may be taken.
		p.deaf, p.deafTill, p.offered = true, m.now.Add(m.maxWait()), false
		m.say("warn", "a node is offered leases and takes none: it counts as down", "node", m.state.NodeName(p.node))
		m.leadDirty()
	}
}

// authority is the q-th newest send time among the voters' answered frames of
// this term, self being now; 0: none yet. What this leader grants rests on it.
func (m *Machine) authority() spec.Instant {
	l := m.lead
	if l == nil || m.drv.Needed <= 0 {
		return 0
	}
	if m.drv.ByDevice {
		return m.deviceAuthority()
	}
	l.scratch = l.scratch[:0]
	for _, v := range m.drv.Voters {
		var t spec.Instant
		if v == m.cfg.Server {
			t = m.now
		} else if p := m.peers[v]; p != nil {
			t = p.answered
		}
		if t != 0 {
			l.scratch = append(l.scratch, t)
		}
	}
	if len(l.scratch) < m.drv.Needed {
		return 0
	}
	slices.Sort(l.scratch)
	return l.scratch[len(l.scratch)-m.drv.Needed]
}

// oldLeases is the moment after which no lease of an older term began: the
// newest answer in an older term among a majority of voters; until they have
// told, when this term began here. The voters are those of the term's start:
// one that joined since has heard nothing of older leaders.
func (m *Machine) oldLeases() spec.Instant {
	l := m.lead
	if m.drv.ByDevice {
		return m.oldDeviceLeases()
	}
	l.scratch = l.scratch[:0]
	for _, v := range l.voters {
		if v == m.cfg.Server {
			l.scratch = append(l.scratch, m.oldTermAnswer(l.term))
		} else if p := m.peers[v]; p != nil && p.told {
			l.scratch = append(l.scratch, p.oldTerm)
		}
	}
	if l.needed <= 0 || len(l.scratch) < l.needed {
		return l.since
	}
	slices.Sort(l.scratch)
	return min(l.scratch[l.needed-1], l.since)
}

// mayGrant tells whether a peer may get a lease from this leader now.
func (m *Machine) mayGrant(p *peer) bool {
	return m.lead.ready && p.ready && !p.deaf && m.lead.taking[p.node] == 0 && !m.beingFenced(p.node) && p.inc != 0 && p.node != "" &&
		p.fresh != 0 && !m.silent(p) &&
		p.revision >= max(m.lead.needRev[p.node], m.lead.revision) && m.nodeServer(p.node) == p.server &&
		m.oldIncarnationGone(p)
}

// oldIncarnationGone tells whether nothing can run by a lease of an earlier
// incarnation of that node, or of another server that the node was: it has none
// of the groups; or had released them; or their last lease is over. That began
// before this incarnation's agent did (but another server's may have begun since, by an
// older leader, where this incarnation never had a lease); and no later than this leader
// last granted the node one, or an older one anybody.
func (m *Machine) oldIncarnationGone(p *peer) bool {
	if p.granted == p.inc {
		return true
	}
	wait := m.longestWait(p.node)
	if wait == 0 {
		return true
	}
	since := max(p.started, m.lead.nodeLeases[p.node])
	if p.held == 0 {
		since = max(since, m.oldLeases())
	}
	since = min(since, max(m.lead.nodeLeases[p.node], m.oldLeases()))
	if m.now.Sub(since) >= wait {
		return true
	}
	earliest(&m.lead.retryGrants, since.Add(wait))
	return false
}

// longestWait is the longest takeover wait among a node's groups that it has
// not released; 0: there are none.
func (m *Machine) longestWait(node string) time.Duration {
	var w time.Duration
	for i, g := range m.ix.groups {
		if g.Owner.Node == node && !m.isReleased(m.ix.groupIDs[i], g) {
			w = max(w, m.takeoverWait(g.Owner))
		}
	}
	return w
}

// grant is the lease for a peer in a frame that leaves now: it ends L after
// the older of the peer's newest answer and the authority. The peer counts from
// when it sent that answer, which was before its receipt here. Frames that
// answer nothing new are granted nothing: who is deaf gets no lease by speaking.
func (m *Machine) grant(p *peer) time.Duration {
	p.offered = false
	a := m.authority()
	if a == 0 || !m.mayGrant(p) {
		return 0
	}
	d := m.leaseFor(p.node) - max(p.fresh.Sub(a), 0)
	if d <= 0 {
		return 0
	}
	p.offered = true
	if p.granted != p.inc {
		p.granted = p.inc
		clear(p.releases) // of the incarnation before
	}
	m.lead.nodeLeases[p.node] = max(m.lead.nodeLeases[p.node], min(a, p.fresh))
	return d
}

// leaseFor is L for a node: never longer than the takeover of one of its
// groups counts with.
func (m *Machine) leaseFor(node string) time.Duration {
	l := m.lead
	if l.leases == nil {
		l.leases = make(map[string]time.Duration, len(m.ix.nodes))
		for _, g := range m.ix.groups {
			o := &g.Owner
			if o.Node == "" || o.Lease <= 0 {
				continue
			}
			if d, ok := l.leases[o.Node]; !ok || o.Lease.D() < d {
				l.leases[o.Node] = o.Lease.D()
			}
		}
	}
	d := m.timings.Lease.D()
	if least, ok := l.leases[node]; ok {
		d = min(d, least)
	}
	return d
}

// renewSelf gives the leader's own groups a lease, by the same rules.
func (m *Machine) renewSelf() {
	l := m.lead
	if l == nil || !l.ready || !m.asksForLease() || l.taking[m.cfg.Node] > 0 || m.nodeServer(m.cfg.Node) != m.cfg.Server {
		return
	}
	if !l.selfGone {
		wait, since := m.longestWait(m.cfg.Node), max(m.start, m.oldLeases())
		if m.leaseEnd != 0 || m.now.Sub(since) >= wait {
			l.selfGone = true // had a lease under this incarnation, or nothing earlier can be left
		} else {
			earliest(&l.retryGrants, since.Add(wait))
			return
		}
	}
	if a := m.authority(); a != 0 {
		m.noteAnswer(l.term, a) // a lone voter's is now, without a frame
		m.held = max(m.held, m.seq, 1)
		l.nodeLeases[m.cfg.Node] = max(l.nodeLeases[m.cfg.Node], a)
		m.renew(a.Add(m.leaseFor(m.cfg.Node)))
	}
}

// Beaten tells the core that a round of frames goes out: a lone leader's
// authority is itself.
func (m *Machine) Beaten(now spec.Instant) []Effect {
	m.advance(now)
	if m.lead != nil {
		m.lead.beaten = m.now
	}
	m.effects = m.effects[:0]
	m.renewSelf()
	m.settle()
	return m.effects
}
