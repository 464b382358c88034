package core

import (
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// causes finds the events that changes of owner follow from. It is filled in
// one pass over the log when the failover manager first asks, and dropped when
// it is done: a dead node's hundred groups don't read the log a hundred times.
type causes struct {
	filled  bool
	down    map[string]uint64 // by node name: the newest node_down, or node_fenced
	up      map[string]uint64
	drained map[string]uint64
	moved   map[string]uint64 // by object: the newest group_move
	changed map[string]uint64 // by object: the newest group_changed
	any     map[string]uint64 // by object: the newest that a change of owner may follow from
}

func (m *Machine) causes() *causes {
	c := &m.lead.causes
	if c.filled {
		return c
	}
	*c = causes{filled: true, down: map[string]uint64{}, up: map[string]uint64{}, drained: map[string]uint64{},
		moved: map[string]uint64{}, changed: map[string]uint64{}, any: map[string]uint64{}}
	for i := range m.state.Events { // oldest first: the newest stays
		e := &m.state.Events[i]
		switch e.Kind {
		case confdb.KindNodeDown, confdb.KindNodeFenced: // what a change of owner follows from, the newest of them
			c.down[e.Node] = e.ID
		case confdb.KindNodeUp:
			c.up[e.Node] = e.ID
		case confdb.KindNodeDrained:
			c.drained[e.Node] = e.ID
		case confdb.KindGroupMove:
			c.moved[e.Object], c.any[e.Object] = e.ID, e.ID
		case confdb.KindGroupChanged:
			c.changed[e.Object], c.any[e.Object] = e.ID, e.ID
		case KindGroupFailed, confdb.KindGroupHandover, confdb.KindGroupWanted, confdb.KindGroupAdded, confdb.KindGroupDeleting:
			c.any[e.Object] = e.ID
		}
	}
	return c
}

// causeOf finds the event that an Assign follows from: the owner's node is
// down, the group failed there, or it was ordered.
func (m *Machine) causeOf(g *confdb.Group) uint64 {
	c := m.causes()
	if g.Owner.Node != "" && !m.isUp(g.Owner.Node) {
		if id := c.down[m.state.NodeName(g.Owner.Node)]; id != 0 {
			return id
		}
	}
	return c.any[g.Spec.Addr.String()]
}

// orderEvent finds the event that a handover follows from. to is the name of the
// node that the group goes to.
func (m *Machine) orderEvent(g *confdb.Group, why, to string) uint64 {
	c, object := m.causes(), g.Spec.Addr.String()
	switch why {
	case WhyDrain:
		return c.drained[m.state.NodeName(g.Owner.Node)]
	case WhyMove:
		return c.moved[object]
	case WhyFailback:
		return c.up[to] // which need not be the home that it was taken from
	}
	return c.changed[object]
}

// reportCause finds what an owner's report follows from: its becoming the owner,
// an order, or a failure before; or that its node, the quorum or its device came
// back and it goes on with what it owned.
func (m *Machine) reportCause(r *run) uint64 {
	return m.newestEvent(func(e *confdb.Event) bool {
		if e.Kind == confdb.KindNodeUp && e.Node == m.cfg.Name || e.Kind == confdb.KindDeviceBack || e.Kind == confdb.KindQuorumReturned {
			return true
		}
		if e.Object != r.object {
			return false
		}
		switch e.Kind {
		case confdb.KindGroupAssigned, confdb.KindGroupFailover, confdb.KindGroupHandover, confdb.KindGroupWanted, confdb.KindGroupDeleting,
			KindResourceFailed, KindGroupFailed:
			return true
		}
		return false
	})
}
