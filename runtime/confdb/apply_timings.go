package confdb

import (
	"github.com/clusterplan/clusterplan/lang/spec"
)

// A change of the timings takes two steps, so that W is never counted with a
// lease shorter than one that some node still holds:
//
//   - A longer lease binds every node and every ownership from the update on that
//     sets it: nobody grants one before that is applied.
//   - A shorter one is granted at once, but counts only when the node has said,
//     in a ConfirmTimings of that very change, that the lease which it holds is a
//     shorter one and that it takes no longer ones.
//
// Kill is an assumption about the kernel, which nobody confirms: an ownership
// keeps the longest that was set while it lasts. StopWithin is what its monitor
// was started with: it changes with the next owner.

// ConfirmTimings is a node's word that it works by the timings which the state
// took over at revision Of.
type ConfirmTimings struct {
	Node  string        `json:"node"` // id
	Of    uint64        `json:"of"`   // State.TimingsRevision
	Lease spec.Duration `json:"lease"`
}

// retime takes the leases of new settings over, where they are longer.
func (s *State) retime(next spec.Cluster) {
	was, now := s.Cluster.Heartbeat.WithDefaults(), next.Heartbeat.WithDefaults()
	if s.Cluster.ID == "" || !same(was, now) {
		s.TimingsRevision = s.Revision
	}
	if now.Lease < was.Lease {
		s.ShorterRevision = s.Revision
	}
	for _, n := range s.Nodes {
		if n.Lease == 0 {
			n.Lease = was.Lease
		}
		n.Lease = max(n.Lease, now.Lease)
	}
	for _, g := range s.Groups {
		if g.Owner.Node != "" {
			g.Owner.Lease, g.Owner.Kill = max(g.Owner.Lease, now.Lease), max(g.Owner.Kill, now.Kill)
		}
	}
}

// leaseOf is the longest lease that a node may hold; nil: nobody's.
func (s *State) leaseOf(n *Node) spec.Duration {
	if n == nil {
		return 0
	}
	return max(n.Lease, s.Cluster.Heartbeat.WithDefaults().Lease)
}

// confirmTimings counts the shorter leases that a node works by.
func (s *State) confirmTimings(c Command) Result {
	t := c.ConfirmTimings
	n := s.Nodes[t.Node]
	lease := s.Cluster.Heartbeat.WithDefaults().Lease
	switch {
	case n == nil:
		return refuse(CodeNotFound, "no node has id %s", t.Node)
	case t.Of != s.TimingsRevision || t.Lease != lease:
		return refuse(CodeConflict, "the timings are those of revision %d now, not of %d", s.TimingsRevision, t.Of)
	}
	n.Lease = lease
	for _, g := range s.Groups {
		if g.Owner.Node == t.Node {
			g.Owner.Lease = lease
		}
	}
	return Result{}
}
