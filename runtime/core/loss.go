package core

import (
	"slices"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// asideLoss is what a leader proposes of an earlier loss.
const asideLoss = "loss"

// tellLoss has the database told that the cluster was without a quorum before
// this leader, once enough voters have said when they last answered an older
// one. A voter that counts as up in the view and has answered nobody for long
// proves it: any leader in between would have committed a view without it. So
// the quorum was lost when the leases of that voter's last leader ended. A change of
// leader that takes no longer than a lease is none.
//
// One in between that could commit nothing was answered nevertheless: votes and
// heartbeats find their way before the log does, and who commits nothing for long
// hands over. It granted no lease either, so this node's own last one, if it
// counts as up in the view, proves as much.
func (m *Machine) tellLoss() {
	l := m.lead
	if l.lossTold || l.aside[asideLoss] || m.now < l.notBefore {
		return
	}
	if m.drv.ByDevice || l.needed < 2 {
		l.lossTold = true // the device's loss has its own event; a lone voter always has a quorum
		return
	}
	told, oldest := 1, spec.Instant(0)
	for _, v := range l.voters {
		at := m.oldTermAnswer(l.term)
		if v != m.cfg.Server {
			p := m.peers[v]
			if p == nil || !p.told {
				continue
			}
			told, at = told+1, p.oldTerm
		}
		if _, up := slices.BinarySearch(m.state.View.Up, m.nodeOf(v)); up && (oldest == 0 || at < oldest) {
			oldest = at
		}
	}
	if told < l.needed {
		return
	}
	l.lossTold = true
	lost := m.now
	if oldest != 0 {
		lost = oldest.Add(m.timings.Lease.D())
	}
	if _, up := slices.BinarySearch(m.state.View.Up, m.cfg.Node); up && l.lapsed != 0 {
		lost = min(lost, l.lapsed)
	}
	if m.now.Sub(lost) < 2*m.timings.Interval.D() {
		return
	}
	q := &confdb.QuorumLost{For: spec.Duration(m.now.Sub(lost)), Leader: m.cfg.Name}
	for _, id := range m.state.View.Up {
		p := m.peers[m.nodeServer(id)]
		switch name := m.state.NodeName(id); {
		case id == m.cfg.Node && m.start > lost, p != nil && p.fresh != 0 && p.started > lost:
			q.Missing = append(q.Missing, name+" has started again since")
		case id != m.cfg.Node && (p == nil || p.fresh == 0):
			q.Missing = append(q.Missing, name+" does not answer yet")
		}
	}
	m.proposeAside(asideLoss, confdb.Command{QuorumLost: q})
}

// nodeOf is the id of the node that a server is, "": none.
func (m *Machine) nodeOf(server uint64) string {
	for id, n := range m.state.Nodes {
		if n.ServerID == server {
			return id
		}
	}
	return ""
}

// WithoutQuorum is since when no majority stands behind this node; 0: one does.
func (m *Machine) WithoutQuorum() spec.Instant {
	if m.Quorum() {
		return 0
	}
	since := max(m.leaseEnd, m.start)
	if a := m.authority(); m.lead != nil && a != 0 {
		since = max(since, a.Add(m.timings.Lease.D()))
	}
	return since
}
