package core

import (
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// turnKeys takes the next step of a rotation of the frame key once every member
// that answers has applied the last one. Frames tell what a node has applied, and
// it takes a key before it tells so. A node that is away gets the keys over TLS
// when it comes back (runtime/agent).
func (m *Machine) turnKeys() {
	k := m.state.Keys
	if !k.Turning() || m.now < m.lead.since.Add(m.timings.Suspicion.D()) {
		return
	}
	for _, n := range m.ix.nodes {
		p := m.peers[n.ServerID]
		if n.ServerID == m.cfg.Server || p == nil || p.fresh == 0 || m.silent(p) {
			continue
		}
		if p.revision < k.Since {
			return
		}
	}
	m.proposeAside("keys", confdb.Command{KeyPhase: &confdb.KeyPhase{Since: k.Since}})
}
