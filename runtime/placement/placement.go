// Package placement says which node should own each group: now, after a fault,
// and when an operator asks. The agents' leader acts on it and the planner's
// failure matrix shows it, so that what a plan shows is what the cluster does.
//
// It is pure: the same input gives the same answer; nothing depends on the
// order of maps. Start at Settle; Choose answers for a single group; choose.go
// holds the order of candidates (Microsoft KB 299631).
//
// What it takes for granted: Settle says where things come to rest, not
// whether there is quorum (runtime/quorum) nor how long anything takes.
package placement

import (
	"github.com/clusterplan/clusterplan/lang/spec"
)

// Node is a node as placement sees it.
type Node struct {
	Spec    spec.Node
	Up      bool
	Paused  bool // no group comes here; those that are here stay
	Drained bool // and those that are here leave, where they can
	// Quarantined: it was lost too often lately. No group comes here; those that
	// are here stay.
	Quarantined bool
}

// Group is a group with what is known of it now.
type Group struct {
	Spec       spec.Group
	Owner      string   // node name now, "": nobody
	Want       string   // spec.WantOnline | spec.WantOffline; "": as the definition's persistent_state
	Last       string   // node name of the last owner, where Owner is "": what failure counts on from; "": a first start
	Home       string   // node name that failure took it from: where a group without preferred owners fails back to
	Asked      bool     // an operator ordered it online: priority 0 doesn't hold it back
	Failed     bool     // failed at Owner past its restarts: fail over
	LeftFailed bool     // past its failover threshold: stays failed until someone acts
	Move       bool     // an operator ordered a move, to MoveTo
	MoveTo     string   // node name; "": any other node
	Failback   bool     // its failback policy allows a failback now
	NoHome     []string // node names that it may not fail back to: it failed there, or they are not up for long enough
}

// Forget leaves nothing of what is known of g but its Spec, which is large and
// which it doesn't touch.
func (g *Group) Forget() {
	g.Owner, g.Want, g.Last, g.Home, g.MoveTo, g.NoHome = "", "", "", "", "", nil
	g.Asked, g.Failed, g.LeftFailed, g.Move, g.Failback = false, false, false, false, false
}

// Input is the cluster as placement sees it, in any order: node order ("the
// other possible owners in node order") is the order of addresses, then names.
type Input struct {
	Nodes  []Node
	Groups []Group
}

// Outcome is where one group comes to rest.
type Outcome struct {
	Group string // name
	From  string // node name of the owner before, "": nobody
	To    string // node name of the owner after, "": nobody
	State string // spec.StateOnline, spec.StateOffline or spec.StateFailed
	Why   string // one of the Why constants
}

// Why a group rests where it does: the closed list. The first part says why
// its owner is what it is, the second why it has none or stays failed.
const (
	WhyStays       = "stays"        // nothing is to change
	WhyFirstStart  = "first_start"  // it had no owner and is wanted online
	WhyFailover    = "failover"     // its owner is lost, or it failed there
	WhyFailback    = "failback"     // it goes home
	WhyDrain       = "drain"        // its node is drained
	WhyMove        = "move"         // an operator ordered it
	WhyNotPossible = "not_possible" // its owner is no possible owner any more
	WhyShed        = "shed"         // it made room for a group of higher priority

	WhyOffline      = "offline"       // it is not wanted online
	WhyPriorityZero = "priority_zero" // priority 0 is not started by itself
	WhyNoNode       = "no_node"       // no possible owner is up and unpaused
	WhyNoRoom       = "no_room"       // those that are have no room for its demand
	WhyApart        = "kept_apart"    // those that have room hold a group that it is kept apart from
	WhyManual       = "manual"        // failover.mode manual: waits for an operator
	WhyNoFailover   = "no_failover"   // failover.mode none: waits for its node
	WhyDependency   = "dependency"    // a group that it depends on is not online
	WhyLeftFailed   = "left_failed"   // past its failover threshold
)

// Settle says where every group comes to rest, in the input's order. Groups
// that keep their owner stay; the others are placed from the highest priority
// down (a group counts at least as much as those that depend on it), each by
// Choose's order. One that fits nowhere sheds groups of lower priority, from
// the lowest; those look for a place in the same way, and shed in turn.
func Settle(in Input) []Outcome { return Compile(in).Settle() }
