package core

import "github.com/clusterplan/clusterplan/lang/spec"

// A group with no_quorum = "freeze" runs in a monitor of its own kind, the
// freezer, which has no dead man and doesn't look at the lease's end: the node's
// monitor may die beside it. Without a lease the group is left as it is, until
// there is one, or the state says that it is no longer this node's to run.
// DESIGN.md, "Frozen groups".

// freezer is the monitor for groups that freeze, as the core knows it.
type freezer struct {
	up    bool
	clean bool // it was up: nothing of an earlier agent's is left
	early bool // the node's monitor was up before it, and doesn't count yet
	asked bool // StartFreezer was emitted
	want  bool
}

// askFreezer asks for the freezer once a group may need it.
func (m *Machine) askFreezer() {
	if m.freezer.want && !m.freezer.asked && !m.cfg.Freezer {
		m.freezer.asked = true
		m.emit(StartFreezer{})
	}
}

// hosted tells whether the monitor that a run belongs to is up.
func (m *Machine) hosted(r *run) bool {
	if r.freezes {
		return m.freezer.up
	}
	return m.monitor
}

// frozen tells whether a run is left as it is for want of a lease.
func (m *Machine) frozen(r *run) bool {
	return r.freezes && r.phase == phaseUp && r.wanted && m.freezer.up && !m.closing && !m.hasLease()
}

// lateFailures applies the restart policy to what failed while the group was frozen.
func (m *Machine) lateFailures(r *run) {
	for i := range r.resources {
		x := &r.resources[i]
		if why := x.late; why != "" && r.phase == phaseUp {
			x.late = ""
			if isDown(x.state) {
				x.set(spec.StateOnline, "") // as it was
				m.failed(r, x, why, false)
			}
		}
	}
}
