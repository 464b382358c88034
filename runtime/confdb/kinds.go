package confdb

// Kinds of the events that Apply writes itself. What the leader proposes with
// words of its own (Assign, Report, Event) has core's kinds.
const (
	KindClusterChanged = "cluster_changed"
	KindNodeAdded      = "node_added"
	KindNodeChanged    = "node_changed"
	KindNodeRemoved    = "node_removed"
	KindNodeJoined     = "node_joined" // caught up: it may own groups now
	KindNodePaused     = "node_paused"
	KindNodeDrained    = "node_drained"
	KindNodeResumed    = "node_resumed"
	KindNodeEvicting   = "node_evicting" // it is to go for good
	KindLinkLost       = "link_lost"     // a node hears others on one link only on another, or lost its address
	KindLinkBack       = "link_back"
	KindCertEnding     = "certificate_ending"   // less than a third of its life is left: an apply renews it
	KindCertExpired    = "certificate_expired"  // the node's API takes no calls over the network
	KindCertRenewed    = "certificate_renewed"  // after one of these
	KindChangeTaken    = "change_taken_over"    // the change lease, from a holder that is gone
	KindChangeBroken   = "change_broken"        // the change lease, by a person
	KindKeyRotation    = "key_rotation"         // a phase of a change of the frame key
	KindQuarantined    = "node_quarantined"     // it was lost too often: no group comes to it for a while
	KindQuarantineOver = "node_quarantine_over" // groups may come to it again
	KindNodeUp         = "node_up"              // in the view
	KindNodeDown       = "node_down"            // out of the view
	KindFenceAdded     = "fence_added"
	KindFenceChanged   = "fence_changed"
	KindFenceRemoved   = "fence_removed"
	KindFenceOrdered   = "fence_ordered" // by a person: turn it off, or: it is off
	KindNodeFenced     = "node_fenced"   // verified: it is off, and nothing of before runs there
	KindFenceProblem   = "fence_problem" // its agent, on that node, says that it will not work
	KindFenceFailed    = "fence_failed"  // whether the node is off is not known
	KindGroupAdded     = "group_added"
	KindGroupChanged   = "group_changed"
	KindGroupDeleting  = "group_deleting" // its owner is to stop it first
	KindGroupRemoved   = "group_removed"
	KindGroupWanted    = "group_wanted"   // an operator's online or offline
	KindGroupMove      = "group_move"     // an operator's move, ordered
	KindGroupHandover  = "group_handover" // its owner is to stop it: it goes elsewhere
	KindGroupAssigned  = "group_assigned" // a new owner
	KindGroupFailover  = "group_failover" // a new owner: the last one's node is lost, or the group failed there
	KindGroupReleased  = "group_released" // nobody owns it now
	KindGroupLeft      = "group_left_failed"
	KindDeviceBack     = "quorum_device_back" // after it was lost
	KindQuorumLost     = "quorum_lost"        // no majority could talk to each other: told when one can again
	KindQuorumReturned = "quorum_returned"
	KindGroupState     = "group_state" // a report, where it is worth a line

	KindCheckpointFailed = "checkpoint_failed" // what a resource changed is not kept, and why
)
