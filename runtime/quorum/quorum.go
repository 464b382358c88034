// Package quorum says who may run the cluster: how many votes each model
// needs, whether a set of nodes has them, and which faults the failure matrix
// looks at. It is pure and asked by the agents and by the planner alike.
package quorum

import (
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Node is a node as quorum sees it.
type Node struct {
	Spec spec.Node
	Up   bool
}

// Needed is how many of the given votes must be up: more than half of them for
// a majority node set (floor(n/2)+1), one for the other models.
func Needed(model spec.QuorumModel, votes int) int {
	if model == spec.MajorityNodeSet {
		return votes/2 + 1
	}
	return 1
}

// Votes counts the votes of the nodes, all and those of the nodes that are up.
func Votes(nodes []Node) (votes, up int) {
	for _, n := range nodes {
		votes += n.Spec.Votes
		if n.Up {
			up += n.Spec.Votes
		}
	}
	return votes, up
}

// Have tells whether the nodes that are up may run the cluster. deviceUp is
// about the quorum device and matters to single_quorum only.
func Have(model spec.QuorumModel, nodes []Node, deviceUp bool) bool {
	votes, up := Votes(nodes)
	if model == spec.SingleQuorum && !deviceUp {
		return false
	}
	return up >= Needed(model, votes)
}

// Spare is how many more votes may be lost before the cluster stops; negative
// when it has stopped already.
func Spare(model spec.QuorumModel, nodes []Node) int {
	votes, up := Votes(nodes)
	return up - Needed(model, votes)
}

// Fault is one row of the failure matrix: nodes that are lost at once, or the
// quorum device.
type Fault struct {
	Name   string   // for people: `n1`, `n1 and n2`, `zone east`, `quorum device`
	Nodes  []string // node names, sorted
	Zone   string   // of a zone's fault
	Device bool     // the quorum device is lost
}

// Faults lists the rows: every node, every pair (if asked for), every zone of
// more than one node, and the quorum device, each once, in that order; names
// are sorted within. A zone of one node is that node's row and not listed again.
// One of two nodes is listed besides their pair: people ask for it by its name.
func Faults(model spec.QuorumModel, nodes []spec.Node, pairs bool) []Fault {
	names := make([]string, len(nodes))
	zones := map[string][]string{}
	for i, n := range nodes {
		names[i] = n.Name
		if n.Zone != "" {
			zones[n.Zone] = append(zones[n.Zone], n.Name)
		}
	}
	slices.Sort(names)
	var out []Fault
	for _, n := range names {
		out = append(out, Fault{Name: n, Nodes: []string{n}})
	}
	if pairs {
		for i, a := range names {
			for _, b := range names[i+1:] {
				out = append(out, Fault{Name: a + " and " + b, Nodes: []string{a, b}})
			}
		}
	}
	var zoneNames []string
	for z, members := range zones {
		if len(members) > 1 {
			zoneNames = append(zoneNames, z)
		}
	}
	slices.SortFunc(zoneNames, strings.Compare)
	for _, z := range zoneNames {
		slices.Sort(zones[z])
		out = append(out, Fault{Name: "zone " + z, Nodes: zones[z], Zone: z})
	}
	if model == spec.SingleQuorum {
		out = append(out, Fault{Name: "quorum device", Device: true})
	}
	return out
}
