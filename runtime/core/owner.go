package core

import (
	"slices"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// ownership is this node's side: the groups that the applied state gives it.
type ownership struct {
	runs     map[string]*run // by group id
	ids      []string        // sorted
	released []*run          // those whose release the state does not show yet
	tellNext int
	leased   bool // as last looked at
	dirty    bool // some run may have a next step
	deadline spec.Instant
	stuck    bool            // a stop never came to its end: no leases until it does
	reports  map[string]*run // under way, by command id
}

// stuckAfter is how long after the kill a stop may go unproven before the node
// lets its lease run out, which has the kernel kill the monitor.
const stuckAfter = 10

// wakeGroups has every group look at its next step.
func (m *Machine) wakeGroups() {
	m.owner.dirty = true
	for _, r := range m.owner.runs {
		r.dirty = true
	}
}

// owns tells whether the state gives this server the group: a node that joined
// anew is another server, and what the node owns is that one's.
func (m *Machine) owns(g *confdb.Group) bool {
	n := m.state.Nodes[m.cfg.Node]
	return g.Owner.Node == m.cfg.Node && (n == nil || n.ServerID == m.cfg.Server)
}

// reconcile compares the state with what this node runs.
func (m *Machine) reconcile() {
	o := &m.owner
	for id, g := range m.state.Groups {
		r := o.runs[id]
		if g.Spec.NoQuorum == spec.NoQuorumFreeze && !m.freezer.want {
			n := m.state.Nodes[m.cfg.Node]
			m.freezer.want = n != nil && g.Spec.MayOwn(n.Spec)
		}
		switch {
		case !m.owns(g):
			if r != nil && !r.gone {
				r.gone, r.dirty, o.dirty = true, true, true
			}
		case r == nil:
			r = newRun(id, g)
			o.runs[id] = r
			i, _ := slices.BinarySearch(o.ids, id)
			o.ids = slices.Insert(o.ids, i, id)
			r.dirty, o.dirty = true, true
		case r.epoch != g.Owner.Epoch:
			r.gone, r.dirty, o.dirty = true, true, true // a newer one follows when this is down
		default:
			r.gone = false
			if m.updateRun(r, g) {
				r.dirty, o.dirty = true, true
			}
		}
	}
	for id, r := range o.runs {
		if m.state.Groups[id] == nil && !r.gone {
			r.gone, r.dirty, o.dirty = true, true, true
		}
	}
}

// updateRun takes over what the state says of a group that is run already,
// and tells whether there may be something to do.
func (m *Machine) updateRun(r *run, g *confdb.Group) bool {
	wanted := m.toRun(r, g)
	changed := wanted != r.wanted
	if r.revision != m.state.ConfigRevision {
		r.revision = m.state.ConfigRevision
		changed = r.define(g) || changed
	}
	return changed
}

// toRun tells whether the state has this node run the group now. One that is
// wanted offline waits for those that depend on it to stop first.
func (m *Machine) toRun(r *run, g *confdb.Group) bool {
	if n := m.state.Nodes[m.cfg.Node]; n != nil && n.Fenced.Covers(r.id, r.epoch) {
		return false // this node was off since: others may have it
	}
	if !m.owns(g) || g.Owner.Epoch != r.epoch || r.released || r.gaveUp || g.GaveUp || g.LeftFailed != "" || g.Handover != nil {
		return false
	}
	if m.effectiveWant(g) == spec.WantOnline {
		return true
	}
	if r.phase != phaseUp {
		return false
	}
	for _, d := range m.state.Groups {
		if d.Owner.Node != "" && slices.Contains(d.Spec.DependsOn, g.Spec.Name) && d.State != spec.StateOffline && d.State != spec.StateFailed {
			return true
		}
	}
	return false
}

// stepGroups lets every group that may have something to do take its steps,
// and finds the next deadline. Without a cause it costs a comparison.
func (m *Machine) stepGroups() {
	o := &m.owner
	if !o.dirty && (o.deadline == 0 || m.now < o.deadline) {
		return
	}
	o.dirty, o.deadline, o.stuck = false, 0, false
	ids := o.ids
	for i := 0; i < len(ids); i++ {
		r := o.runs[ids[i]]
		if r.dirty || r.deadline != 0 && m.now >= r.deadline {
			r.dirty, r.deadline = false, 0
			m.stepRun(r)
		}
		if r.gone && r.phase == phaseDown && m.monitor {
			m.dropRun(r)
			ids = o.ids
			i--
			continue
		}
		o.stuck = o.stuck || r.stuck
		earliest(&o.deadline, r.deadline)
	}
}

// dropRun forgets a group that is down and belongs to others, or to this node
// under a newer epoch: then it starts from there.
func (m *Machine) dropRun(r *run) {
	o := &m.owner
	delete(o.runs, r.id)
	if i, ok := slices.BinarySearch(o.ids, r.id); ok {
		o.ids = slices.Delete(o.ids, i, i+1)
	}
	if i := slices.Index(o.released, r); i >= 0 {
		o.released = slices.Delete(o.released, i, i+1)
	}
	if g := m.state.Groups[r.id]; g != nil && m.owns(g) {
		m.reconcile()
	}
}

// monitorUp: a monitor holds its lock and has cleaned up. The first of this agent
// counts once a freezer that an earlier one may have had is replaced as well.
func (m *Machine) monitorUp(freezer bool) {
	if freezer {
		m.freezer.up, m.freezer.clean = true, true
		if m.freezer.early {
			m.freezer.early = false
			m.monitorUp(false)
		}
	} else {
		if m.cfg.Freezer && !m.freezer.clean {
			m.freezer.early = true
			return
		}
		m.monitor = true
	}
	for _, id := range m.owner.ids {
		if r := m.owner.runs[id]; r.freezes == freezer {
			r.allDown("")
		}
	}
	m.wakeGroups()
	m.leadDirty()
	if m.hasLease() {
		m.emit(Renew{End: m.leaseEnd})
	}
	if m.lead != nil {
		m.renewSelf()
	}
}

func (m *Machine) monitorDown(freezer bool) {
	if freezer {
		m.freezer.up = false
	} else {
		m.monitor, m.freezer.early = false, false
	}
	for _, id := range m.owner.ids {
		r := m.owner.runs[id]
		if r.freezes != freezer {
			continue
		}
		if r.phase != phaseDown {
			r.phase = phaseEnding // until the next monitor has cleaned up
			r.endAt = 0
			if freezer {
				r.endAt = m.now.Add(max(r.stopBound, heldAgain)) // the node is up without it: see watchEnd
				m.watchEnd(r)
			}
		}
		for i := range r.resources {
			r.resources[i].set(spec.StateOffline, "the monitor process died")
			r.resources[i].retryAt, r.resources[i].late = 0, ""
		}
	}
	m.wakeGroups()
	m.leadDirty()
}
