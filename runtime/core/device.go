package core

import "github.com/clusterplan/clusterplan/lang/spec"

// With a quorum device (single_quorum) the device's owner leads, and nobody
// votes. The driver says since when and until when its authority counts, and
// as of when no older owner had any; the rest (grants, waits, releases) is the
// same as with a majority.

// deviceAuthority is the moment before the issue of the newest renewal of the
// device that was proven to count; 0: none, or it is over.
func (m *Machine) deviceAuthority() spec.Instant {
	if m.now >= m.drv.AuthorityUntil {
		return 0
	}
	return m.drv.Authority
}

// oldDeviceLeases is oldLeases with a quorum device.
func (m *Machine) oldDeviceLeases() spec.Instant {
	if m.drv.OldLeases == 0 {
		return m.lead.since
	}
	return min(m.drv.OldLeases, m.lead.since)
}
