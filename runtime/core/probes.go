package core

import (
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/runtime/heartbeat"
)

// Who is silent, and how often a node speaks. Without probes (profile fast) the
// leader's frames and their answers are all there is: who answers none for
// Suspicion is silent. With them (mscs) every node beats to every other, and who
// leaves a beat and all probes unanswered is.

// settlePace is how often a leader beats until those who answer hold leases of
// the settings' length: right after it was elected, or after settings that let
// it speak less often came, leases may still be those of a faster time.
const (
	settlePace = 50 * time.Millisecond
	settleFor  = 2 * time.Second // of silence: then it waits like others
)

// choosePeers works out who gets beats: all other members, once this node is one.
func (m *Machine) choosePeers() {
	was := m.probed
	m.probed = nil
	if n := m.state.Nodes[m.cfg.Node]; m.timings.Probing() && n != nil && n.ServerID == m.cfg.Server {
		for _, n := range m.ix.nodes {
			if n.ServerID != 0 && n.ServerID != m.cfg.Server {
				m.probed = append(m.probed, n.ServerID)
				m.peer(n.ServerID)
			}
		}
		slices.Sort(m.probed)
	}
	for _, id := range was {
		if _, still := slices.BinarySearch(m.probed, id); !still {
			m.peers[id].probe, m.peers[id].asks = heartbeat.Prober{}, false
		}
	}
}

// stepProbes sends the beats and probes that are due.
func (m *Machine) stepProbes() {
	m.probeAt = 0
	for _, id := range m.probed {
		p := m.peers[id]
		was := p.probe.Down()
		if p.probe.Due(m.now, &m.timings, m.pace(p)) {
			p.asks = true
			m.emit(Send{id})
		}
		if !was && p.probe.Down() {
			m.leadDirty()
		}
		earliest(&m.probeAt, p.probe.Next())
	}
}

// silent tells whether a peer that answered in this term has stopped to. Who was
// found silent is so until it answers, whatever patience comes meanwhile: with a
// leader that was held up, or with other timings.
func (m *Machine) silent(p *peer) bool {
	switch {
	case p.lost:
		return true
	case m.timings.Probing():
		return p.probe.Down()
	}
	return m.now >= m.silentAt(p)
}

// pace is the span between two beats to a peer.
func (m *Machine) pace(p *peer) time.Duration {
	d := m.timings.Interval.D()
	if d > settlePace && m.unsettled(p) {
		return settlePace
	}
	return d
}

func (m *Machine) unsettled(p *peer) bool {
	return m.lead != nil && !p.settled && p.fresh != 0 && m.now.Sub(p.fresh) < settleFor && p.ready && !p.leaving && !p.deaf && !m.silent(p)
}

// Pace is the span between two rounds of a leader.
func (m *Machine) Pace() time.Duration {
	d := m.timings.Interval.D()
	if d <= settlePace {
		return d
	}
	for _, id := range m.order {
		if m.unsettled(m.peers[id]) {
			return settlePace
		}
	}
	return d
}
