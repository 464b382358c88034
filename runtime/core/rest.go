package core

import (
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
)

// A leader rests while its rounds and their answers are all that happens: nothing
// is proposed, no group is on its way, every member answered the last round, has
// what it was granted and all that is applied here. Who runs the leader may then
// read answers as late as before the next round, so that they wake nobody.
//
// That is as safe, and makes nothing slower. What a lease is counted from is when
// the leader sent the round, or when the answer came (Heard.At), not when it is read; the
// answers are read before the round that carries the next grants, as ever. Who
// doesn't answer is noticed at the next round, after one interval of the suspicion,
// and from then on nothing is read late. Anything else that a frame could tell
// makes the rest end once it is read, an interval later at most; and whatever has
// to be quick comes by a stream, which wakes: reports of groups, updates, the answers
// to them. A group that is to be released was ordered to stop by an update before.

// Resting tells whether the leader's last round found it so, and nothing has
// happened since but answers to that round.
func (m *Machine) Resting() bool { return m.lead != nil && m.lead.resting }

// seeRest looks at each round, before it leaves.
func (m *Machine) seeRest() {
	if m.lead != nil {
		m.lead.resting = m.atRest()
	}
}

func (m *Machine) atRest() bool {
	l := m.lead
	switch {
	case !l.ready || l.dirty || l.view || m.closing || !m.takesGroups():
	case len(l.inflight) > 0 || len(l.aside) > 0 || len(l.fencings) > 0:
	case m.timings.Probing() || m.timings.Interval.D() > settlePace: // a longer delay spares less
	case m.timings.Suspicion.D() < 3*m.timings.Interval.D(): // before a round's answers are read, the last ones are two intervals old, and a timer may be late
	case l.heldUp != 0 && m.now.Sub(l.heldUp) < m.timings.Lease.D():
	default:
		return m.allAnswer(m.drv.Voters) && m.allAnswer(m.drv.Learners) && m.groupsSettled()
	}
	return false
}

// allAnswer tells whether each of those servers answered the newest frame to it,
// and is as it should be.
func (m *Machine) allAnswer(servers []uint64) bool {
	for _, id := range servers {
		if id == m.cfg.Server {
			continue
		}
		p := m.peers[id]
		if p == nil || p.sentN == 0 || !m.peerUp(p) || p.granted != p.inc || p.revision != m.state.Revision {
			return false
		}
		if s := p.newest(); s.term != m.lead.term || p.answered != s.at {
			return false
		}
	}
	return true
}

func (p *peer) newest() *sentFrame { return &p.sent[(p.sentN-1)%uint64(len(p.sent))] }

// groupsSettled tells whether each group is where it belongs, and so no owner is
// about to tell that it has released one.
func (m *Machine) groupsSettled() bool {
	if m.placed {
		return true
	}
	for i, g := range m.ix.groups {
		on := m.wantAt(i) == wantOnline
		if g.Handover != nil || g.Move != nil || g.Deleting != nil || on != (g.Owner.Node != "") || on && g.State != spec.StateOnline {
			return false
		}
	}
	m.placed = true
	return true
}

// watchRest ends the rest at a frame that is more than an answer to the newest
// round, with nothing new in it.
func (m *Machine) watchRest(f *heartbeat.Frame) {
	if m.lead == nil || !m.lead.resting {
		return
	}
	p := m.peers[f.From]
	m.lead.resting = p != nil && p.sentN > 0 && f.Incarnation == p.inc && f.Seq > p.seq &&
		f.AckIncarnation == m.cfg.Incarnation && f.AckSeq == p.newest().seq &&
		f.Term == m.lead.term && !f.Unsaved && f.Leader == m.cfg.Server && f.Revision == m.state.Revision &&
		f.Ready == p.ready && f.Leaving == p.leaving && !f.Asks && len(f.Releases) == 0
}
