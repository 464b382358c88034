package spec

import "fmt"

// QuorumChange says why the quorum of a running cluster can't change from is
// to next, and what to do instead; "": it can, in place, or nothing changes.
//
// A single node's database becomes a majority's where it lies, in one write
// (runtime/confdb/DESIGN.md). No other change is built: it would have to end one
// database on several nodes at once, or on a device, and begin another, with
// no moment at which both could run.
func QuorumChange(is, next Quorum) string {
	const anew = "keep what applications have in the cluster's database elsewhere (GET /v1/kv), then: clusterplan destroy, clusterplan apply"
	switch {
	case is.Model == "" || is == next:
		return ""
	case is.Model == next.Model:
		return fmt.Sprintf("the quorum device of a running cluster can't change from %s to %s: keep it; else %s", is.Device, next.Device, anew)
	case is.Model == SingleNode && next.Model == MajorityNodeSet:
		return ""
	case is.Model == MajorityNodeSet && next.Model == SingleNode:
		return "the quorum model of a running cluster can't change from majority_node_set to single_node: keep majority_node_set and remove the other nodes; with one node left, its own vote is enough"
	case is.Model == SingleNode && next.Model == SingleQuorum:
		return "the quorum model of a running cluster can't change from single_node to single_quorum: use majority_node_set, which the one node's database can become in place; else " + anew
	}
	return fmt.Sprintf("the quorum model of a running cluster can't change from %s to %s: keep %s; else %s", is.Model, next.Model, is.Model, anew)
}
