package core

import (
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// retimed is what a node knows of a change of the timings. Leases that were
// granted before settings made them shorter last as long as they were granted
// for. So W counts with the longest that a node may hold (confdb keeps it by
// node and by ownership) until that node confirms a shorter one, and it does so
// here: once it holds a lease by a leader that knew the shorter settings, and
// because it takes none by a leader that doesn't (takeGrant): nor will it after a
// restart, as its term is on disk. Its last
// incarnation's leases are over or released by then: else it had got none.
type retimed struct {
	open       bool         // the state counts with a longer lease of this node's than the settings'
	leaseOf    uint64       // ShorterRevision as the own lease was renewed
	confirming string       // id of the command under way
	since      spec.Instant // the last change of the timings, as it was applied here
	revision   uint64       // its State.TimingsRevision
}

// retime takes over the settings of the state.
func (m *Machine) retime(t spec.Timings) {
	if r := m.state.TimingsRevision; r != m.retimed.revision {
		m.retimed.revision, m.retimed.since = r, m.now
		for _, p := range m.peers {
			p.settled, p.settleSeq = false, 0
		}
	}
	m.timings, m.limit = t, t.SuspicionLimit()
	n := m.state.Nodes[m.cfg.Node]
	m.retimed.open = n != nil && n.ServerID == m.cfg.Server && n.Lease > t.Lease
}

// confirmTimings tells that this node's leases are as short as the settings say.
func (m *Machine) confirmTimings() {
	r := &m.retimed
	if !r.open || r.confirming != "" || !m.hasLease() || r.leaseOf != m.state.ShorterRevision || m.drv.Unsaved {
		return // also after its lease's end: its groups may take S and K from then on
	}
	// What this host's last incarnation held began before this one's start.
	long := m.timings
	long.Lease = m.state.Nodes[m.cfg.Node].Lease
	if m.now.Sub(m.start) < m.maxStop(long) {
		return
	}
	c := m.command(confdb.Command{ConfirmTimings: &confdb.ConfirmTimings{Node: m.cfg.Node, Of: m.state.TimingsRevision, Lease: m.timings.Lease}})
	r.confirming = c.ID
	m.emit(Propose{Command: c})
}

// confirmed learns what became of the confirmation; one that came too late is
// followed by another.
func (m *Machine) confirmed(ev Proposed) {
	if ev.ID == m.retimed.confirming {
		m.retimed.confirming = ""
	}
}

// maxStop is the takeover wait under those timings for the group of this node
// that takes longest to stop.
func (m *Machine) maxStop(t spec.Timings) time.Duration {
	w := t.TakeoverWait(0)
	for _, g := range m.ix.groups {
		if g.Owner.Node == m.cfg.Node {
			w = max(w, t.TakeoverWait(g.Owner.StopWithin))
		}
	}
	return w
}
