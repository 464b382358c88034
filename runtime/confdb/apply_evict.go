package confdb

import (
	"slices"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// evictNode begins to take a node out of the membership for good: one that is
// down, or was drained and owns nothing any more. From here on no group comes
// to it; the leader takes what it had as safely as ever, and frees what stays
// down with its node. Then it leaves the agreement and the state (DeleteNode).
func (s *State) evictNode(c Command) Result {
	id := c.EvictNode.Node
	n := s.Nodes[id]
	if n == nil {
		return refuse(CodeNotFound, "no node has id %s", id)
	}
	if _, up := slices.BinarySearch(s.View.Up, id); up {
		if !n.Drained {
			return refuse(CodeInvalid, "node %s is up; drain it first", n.Spec.Name)
		}
		for _, gid := range s.groupIDs() {
			if g := s.Groups[gid]; g.Owner.Node == id {
				return refuse(CodeConflict, "node %s is up and still owns group %s; wait until it has left, or move it", n.Spec.Name, g.Spec.Name)
			}
		}
	}
	for _, gid := range s.groupIDs() {
		g := s.Groups[gid]
		if g.Owner.Node == id && g.Move == nil && g.Spec.Failover.Mode == spec.FailoverManual && g.Want == spec.WantOnline {
			return refuse(CodeConflict, "group %s is node %s's and fails over by hand (failover.mode = \"manual\"); move it first, or take it offline", g.Spec.Name, n.Spec.Name)
		}
	}
	if n.Evicting != nil {
		return Result{}
	}
	n.Evicting = c.intent()
	if n.Paused == nil {
		n.Paused = c.intent()
	}
	n.Drained = true
	s.event(c, s.aboutNode(id, KindNodeEvicting, c.because("node "+n.Spec.Name+" is taken out of the cluster for good")))
	return Result{}
}
