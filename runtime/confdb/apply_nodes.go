package confdb

import "slices"

func (s *State) putNode(c Command) Result {
	p := c.PutNode
	id := p.Spec.ID
	if id == "" || p.Spec.Name == "" {
		return refuse(CodeInvalid, "a node needs an id and a name")
	}
	n := s.Nodes[id]
	if n == nil && p.ServerID == 0 {
		return refuse(CodeInvalid, "node %s is new and needs its server id", p.Spec.Name)
	}
	// The answer may name one of several: always the one with the lowest id.
	for _, other := range s.nodeIDs() {
		o := s.Nodes[other]
		switch {
		case other == id:
		case o.Spec.Name == p.Spec.Name:
			return refuse(CodeInvalid, "a node %s is there already (id %s); names are unique", p.Spec.Name, other)
		case p.Endpoint != "" && o.Endpoint == p.Endpoint:
			return refuse(CodeInvalid, "node %s listens on %s already; give node %s another address", o.Spec.Name, p.Endpoint, p.Spec.Name)
		case p.ServerID != 0 && o.ServerID == p.ServerID:
			return refuse(CodeInvalid, "node %s has server id %d already: data directories are not copied from node to node", o.Spec.Name, p.ServerID)
		}
	}
	if n == nil {
		s.Nodes[id] = &Node{Spec: p.Spec, ServerID: p.ServerID, Endpoint: p.Endpoint, Version: p.Version}
		s.configured()
		s.event(c, s.aboutNode(id, KindNodeAdded, c.because("node "+p.Spec.Name+" was added")))
		return Result{}
	}
	if p.ServerID != 0 && p.ServerID != n.ServerID {
		// What goes on without a lease may do so over the old data directory, whose
		// lock the new one's agent doesn't see.
		for _, gid := range s.groupIDs() {
			if g := s.Groups[gid]; g.Owner.Node == id && g.Freezes() && !n.Fenced.Covers(gid, g.Owner.Epoch) {
				return refuse(CodeConflict, "node %s had another data directory, over which group %s may run still: no_quorum is freeze, so that only a fence ends it; run clusterplan fence %s", n.Spec.Name, g.Spec.Name, n.Spec.Name)
			}
		}
	}
	if p.ServerID != 0 && p.ServerID != n.ServerID {
		for _, gid := range s.groupIDs() { // another server proves nothing of what this one may still run
			if g := s.Groups[gid]; g.Owner.Node == id && g.Freezes() && !n.Fenced.Covers(gid, g.Owner.Epoch) {
				return refuse(CodeConflict, "node %s owns group %s, which goes on without a lease and may still run where the node was; fence the node, or say that it is off (clusterplan fence --confirmed-off), then join it again", n.Spec.Name, g.Spec.Name)
			}
		}
	}
	if !same(n.Spec, p.Spec) {
		if n.Spec.Name != p.Spec.Name {
			s.renameNode(n.Spec.Name, p.Spec.Name)
		}
		n.Spec = p.Spec
		for _, g := range s.Groups {
			if g.Owner.Node == id {
				s.relyOnWatchdog(g)
			}
		}
		s.configured()
		s.event(c, s.aboutNode(id, KindNodeChanged, c.because("node "+p.Spec.Name+" changed")))
	}
	if p.ServerID != 0 && p.ServerID != n.ServerID {
		n.ServerID, n.Joined = p.ServerID, false // another data directory has to catch up first
		s.event(c, s.aboutNode(id, KindNodeChanged, "node "+p.Spec.Name+" has a new data directory and joins again"))
	}
	if p.Endpoint != "" {
		n.Endpoint = p.Endpoint
	}
	if p.Version != "" {
		n.Version = p.Version
	}
	return Result{}
}

// deleteNode refuses a node that owns groups: their takeover needs its record.
func (s *State) deleteNode(c Command) Result {
	id := c.DeleteNode.Node
	n := s.Nodes[id]
	if n == nil {
		return refuse(CodeNotFound, "no node has id %s", id)
	}
	for _, gid := range s.groupIDs() {
		if g := s.Groups[gid]; g.Owner.Node == id {
			return refuse(CodeConflict, "node %s still owns group %s; drain it first", n.Spec.Name, g.Spec.Name)
		}
	}
	e := s.aboutNode(id, KindNodeRemoved, c.because("node "+n.Spec.Name+" was removed"))
	delete(s.Nodes, id)
	if i, ok := slices.BinarySearch(s.View.Up, id); ok {
		s.View = View{Epoch: s.View.Epoch + 1, Up: slices.Concat(s.View.Up[:i], s.View.Up[i+1:])}
	}
	for _, g := range s.Groups {
		if g.Move != nil && g.Move.To == id {
			g.Move = nil
		}
		// With preferred owners home is one of those, by name: also a node that joins
		// under the name of this one.
		if g.HomeFrom == id && len(g.Spec.PreferredOwners) == 0 {
			g.HomeFrom = ""
		}
		g.forgive(id)
	}
	s.configured()
	s.event(c, e)
	return Result{}
}

func (s *State) nodeJoined(c Command) Result {
	id := c.NodeJoined.Node
	n := s.Nodes[id]
	if n == nil {
		return refuse(CodeNotFound, "no node has id %s", id)
	}
	if !n.Joined {
		n.Joined = true
		s.event(c, s.aboutNode(id, KindNodeJoined, "node "+n.Spec.Name+" has caught up and takes part"))
	}
	return Result{}
}

func (s *State) pauseNode(c Command) Result {
	id := c.PauseNode.Node
	n := s.Nodes[id]
	if n == nil {
		return refuse(CodeNotFound, "no node has id %s", id)
	}
	drain := c.PauseNode.Drain
	if n.Paused != nil && n.Drained == drain {
		return Result{}
	}
	n.Paused, n.Drained = c.intent(), drain
	if drain {
		s.event(c, s.aboutNode(id, KindNodeDrained, c.because("node "+n.Spec.Name+" is drained: its groups leave, none come")))
	} else {
		s.event(c, s.aboutNode(id, KindNodePaused, c.because("node "+n.Spec.Name+" is paused: no group comes to it")))
	}
	return Result{}
}

func (s *State) resumeNode(c Command) Result {
	id := c.ResumeNode.Node
	n := s.Nodes[id]
	if n == nil {
		return refuse(CodeNotFound, "no node has id %s", id)
	}
	if n.Paused != nil || n.Quarantine != nil {
		n.Paused, n.Drained, n.Evicting = nil, false, nil
		n.Quarantine, n.Leaves = nil, nil
		s.event(c, s.aboutNode(id, KindNodeResumed, c.because("node "+n.Spec.Name+" takes groups again")))
	}
	return Result{}
}

// aboutNode is an event of a node that is in the state.
func (s *State) aboutNode(id, kind, text string) Event {
	n := s.Nodes[id]
	return Event{Node: n.Spec.Name, Object: n.Spec.Addr.String(), Kind: kind, Text: text}
}

func (s *State) nodeIDs() []string { return sortedKeys(s.Nodes) }

func (s *State) groupIDs() []string { return sortedKeys(s.Groups) }

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
