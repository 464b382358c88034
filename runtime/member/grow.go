package member

import (
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// A single node's database becomes a majority's in place, once a committed
// PutCluster says so: from the state, not from a request, so that it is begun
// again after whatever interrupts it. The state that is applied then becomes
// the snapshot of a one-voter log, in one write that leaves nothing of the
// other database. Until it is durable the old driver leads on, and nobody else
// can take part; from then on the new one does, which begins a term of its own.
// This agent, its leases and its epochs go on: to the core it is a new leader's
// term, after one of its own.

// growth is the change under way.
type growth struct {
	next confdb.Driver // what goes on once n is durable
	n    uint64        // of the Persist
}

// grows tells whether the database is becoming a majority's, and begins it
// when it is time: everything handed out so far is applied, and the newest is
// of this leader's own term. What the old driver was proposed and did not hand
// out is dropped with it, as any proposal may be; its sender sends it again.
func (m *Member) grows() bool {
	if m.grow.next != nil {
		return true
	}
	if m.cfg.Majority == nil || m.broken || m.closing || m.state.Cluster.Quorum.Model != spec.MajorityNodeSet {
		return false
	}
	s := m.drv.Status()
	if !s.Single || s.Role != confdb.Leader || !s.Ready || s.Applied != m.index {
		return false
	}
	data, err := confdb.Encode(m.state)
	if err != nil {
		m.cfg.Majority = nil
		m.log("error", "the database can't be written as a snapshot: it stays a single node's", "err", err)
		return false
	}
	next, p, err := m.cfg.Majority(m.now, s.Term, m.index, data)
	if err != nil {
		m.cfg.Majority = nil
		m.log("error", "the database stays a single node's", "err", err)
		return false
	}
	m.persists++
	m.grow = growth{next: next, n: m.persists}
	m.emit(Persist{N: m.persists, What: p})
	return true
}

// grown lets the new driver go on: its database is durable.
func (m *Member) grown() {
	m.drv, m.grow = m.grow.next, growth{}
	m.cfg.Majority = nil
	m.sinceCount, m.sinceBytes = 0, 0
	m.drv.Configure(m.settings)
	m.log("info", "the database is a majority's now: other nodes can join", "revision", m.state.Revision, "index", m.index)
	m.emit(Grown{})
	for _, p := range m.proposals { // what lay in the old driver is proposed anew
		p.term, p.again = 0, m.now
	}
	m.pump() // the core hears that the old term is over, before a new one begins
	if len(m.ids) > 0 {
		m.sooner(m.now)
	}
	m.drv.Tick(m.now)
	m.pump()
}
