package member

import (
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/core"
)

// deviceOps starts what the driver wants done on its quorum device.
func (m *Member) deviceOps() {
	d, ok := m.drv.(confdb.DeviceDriver)
	if !ok {
		return
	}
	for _, op := range d.DeviceOps() {
		m.emit(DeviceIO{Op: op})
	}
}

func (m *Member) deviceDone(r confdb.DeviceResult) {
	if d, ok := m.drv.(confdb.DeviceDriver); ok {
		d.DeviceDone(m.now, r)
		m.pump()
	}
}

// deviceTold says in the agent's log that the quorum device is lost or back,
// and has the leader that comes up afterwards say so in the cluster's.
func (m *Member) deviceTold(was, is confdb.Status) {
	switch {
	case is.DeviceProblem != "" && was.DeviceProblem == "":
		m.deviceLostAt = m.now
		m.log("error", "the quorum device is lost: without it the groups stop when their leases end", "why", is.DeviceProblem)
	case is.DeviceProblem != "" && is.DeviceProblem != was.DeviceProblem:
		m.log("error", "the quorum device is still lost", "why", is.DeviceProblem)
	case is.DeviceProblem == "" && was.DeviceProblem != "":
		m.deviceLost = m.now.Sub(m.deviceLostAt)
		m.log("info", "the quorum device is back", "after", m.deviceLost)
	}
	if is.Role != confdb.Leader || !is.Ready || m.deviceLost == 0 {
		return
	}
	lost := m.deviceLost.Round(10 * time.Millisecond)
	m.deviceLost = 0
	m.proposeForCore(core.Propose{Command: confdb.Command{
		ID: m.commandID(), Time: m.core.WallNow(),
		Event: &confdb.Event{Kind: confdb.KindDeviceBack, Object: "cluster", Node: m.cfg.NodeName,
			Text: "the quorum device is back; " + m.cfg.NodeName + " could not use it for " + spec.Duration(lost).String()},
	}})
	m.pump()
}
