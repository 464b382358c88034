package confdb

import (
	"fmt"
	"slices"
	"time"
)

// A node that is lost again and again is kept out for a while: each return
// would only bring its groups home to be lost once more.
const (
	quarantineLeaves = 3             // ungraceful leaves ...
	quarantineWithin = time.Hour     // ... within this
	quarantineFor    = 2 * time.Hour // keep groups away for this long
	quarantineShare  = 4             // never more than one node in so many; so none where there are fewer
)

// Quarantine keeps groups from coming to a node, until an operator resumes it
// or Until has come.
type Quarantine struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	Why   string    `json:"why"` // for a person
}

// lostNode counts a leave that the node did not announce.
func (s *State) lostNode(c Command, n *Node) {
	n.Leaves = append(slices.Clone(trim(n.Leaves, c.Time, quarantineWithin)), c.Time)
	if n.Quarantine != nil || len(n.Leaves) < quarantineLeaves {
		return
	}
	kept := 1
	for _, other := range s.Nodes {
		if other.Quarantine != nil {
			kept++
		}
	}
	if kept > len(s.Nodes)/quarantineShare {
		return
	}
	why := fmt.Sprintf("it was lost %d times within %s", len(n.Leaves), "1h")
	n.Quarantine = &Quarantine{Since: c.Time, Until: plain(c.Time.Add(quarantineFor)), Why: why}
	e := s.aboutNode(n.Spec.ID, KindQuarantined, "node "+n.Spec.Name+" is quarantined for 2h: "+why+"; no group comes to it until then, or until it is resumed")
	e.Cause = s.LastEvent()
	s.event(c, e)
}

// endQuarantine is the leader's, once the time is over by its clock.
func (s *State) endQuarantine(c Command) Result {
	id := c.EndQuarantine.Node
	n := s.Nodes[id]
	switch {
	case n == nil:
		return refuse(CodeNotFound, "no node has id %s", id)
	case n.Quarantine == nil:
		return Result{}
	case c.Time.Before(n.Quarantine.Until):
		return refuse(CodeConflict, "node %s is quarantined until %s", n.Spec.Name, n.Quarantine.Until.Format(time.RFC3339))
	}
	n.Quarantine, n.Leaves = nil, nil
	s.event(c, s.aboutNode(id, KindQuarantineOver, "node "+n.Spec.Name+" is out of quarantine: groups may come to it again"))
	return Result{}
}
