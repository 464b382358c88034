package core

import (
	"slices"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/placement"
)

// index is the state in sorted order and by name. Which nodes and groups there
// are, and what they are called, changes with the definition alone (or when a
// deleted group is gone), so that the many small changes of what runs cost
// nothing here. The records themselves are the state's.
type index struct {
	state  *confdb.State
	config uint64

	nodeIDs  []string // sorted
	nodes    []*confdb.Node
	groupIDs []string // sorted
	groups   []*confdb.Group
	nodeOf   map[string]string // node id by name
	groupOf  map[string]int    // place in groups by name

	wants []byte // effective wants of groups, for the state as it is; 0: not worked out yet

	board *placement.Board // of the definition, made when it is first asked for
}

const (
	wantUnknown byte = iota
	wantOnline
	wantOffline
)

// reindex takes over a new state, or the same one changed.
func (m *Machine) reindex() {
	ix, s := &m.ix, m.state
	if ix.state == s && ix.config == s.ConfigRevision && len(ix.groups) == len(s.Groups) && len(ix.nodes) == len(s.Nodes) {
		clear(ix.wants)
		return
	}
	*ix = index{
		state: s, config: s.ConfigRevision,
		nodeIDs: make([]string, 0, len(s.Nodes)), nodes: make([]*confdb.Node, 0, len(s.Nodes)), nodeOf: make(map[string]string, len(s.Nodes)),
		groupIDs: make([]string, 0, len(s.Groups)), groups: make([]*confdb.Group, 0, len(s.Groups)), groupOf: make(map[string]int, len(s.Groups)),
		wants: make([]byte, len(s.Groups)),
	}
	for id := range s.Nodes {
		ix.nodeIDs = append(ix.nodeIDs, id)
	}
	for id := range s.Groups {
		ix.groupIDs = append(ix.groupIDs, id)
	}
	slices.Sort(ix.nodeIDs)
	slices.Sort(ix.groupIDs)
	for _, id := range ix.nodeIDs {
		n := s.Nodes[id]
		ix.nodes = append(ix.nodes, n)
		ix.nodeOf[n.Spec.Name] = id
	}
	for i, id := range ix.groupIDs {
		g := s.Groups[id]
		ix.groups = append(ix.groups, g)
		ix.groupOf[g.Spec.Name] = i
	}
}

// nodeID is the id of the node with that name, "" if there is none.
func (m *Machine) nodeID(name string) string { return m.ix.nodeOf[name] }

func (m *Machine) groupNamed(name string) *confdb.Group {
	if i, ok := m.ix.groupOf[name]; ok {
		return m.ix.groups[i]
	}
	return nil
}

// effectiveWant is offline for a group that is being deleted, or whose
// dependencies are not wanted online.
func (m *Machine) effectiveWant(g *confdb.Group) string {
	if m.wantAt(m.ix.groupOf[g.Spec.Name]) == wantOffline {
		return spec.WantOffline
	}
	return spec.WantOnline
}

func (m *Machine) wantAt(i int) byte {
	ix := &m.ix
	if ix.wants[i] != wantUnknown {
		return ix.wants[i]
	}
	g := ix.groups[i]
	ix.wants[i] = wantOffline // for a cycle, which validate refuses, and which nothing could start
	if g.Deleting != nil || g.Want == spec.WantOffline {
		return wantOffline
	}
	for _, name := range g.Spec.DependsOn {
		if d, ok := ix.groupOf[name]; ok && m.wantAt(d) == wantOffline {
			return wantOffline
		}
	}
	ix.wants[i] = wantOnline
	return wantOnline
}

// board is placement's, with what is known of the nodes and groups now.
func (m *Machine) board() *placement.Board {
	ix := &m.ix
	if ix.board == nil {
		in := placement.Input{Nodes: make([]placement.Node, len(ix.nodes)), Groups: make([]placement.Group, len(ix.groups))}
		for i, n := range ix.nodes {
			in.Nodes[i].Spec = n.Spec
		}
		for i, g := range ix.groups {
			in.Groups[i].Spec = g.Spec
		}
		ix.board = placement.Compile(in)
	}
	for i, id := range ix.nodeIDs {
		n, at := ix.nodes[i], ix.board.Node(i)
		at.Up, at.Paused, at.Drained, at.Quarantined = m.isUp(id), n.Paused != nil, n.Drained, n.Quarantine != nil
	}
	for i, g := range ix.groups {
		m.placementGroup(g, m.wantAt(i), ix.board.Group(i))
	}
	return ix.board
}
