package core

import "github.com/clusterplan/clusterplan/runtime/placement"

// Why a group changes owner: the closed list of Assign.Why and Handover.Why.
const (
	WhyFirstStart  = placement.WhyFirstStart
	WhyFailover    = placement.WhyFailover // its node is lost
	WhyFailback    = placement.WhyFailback
	WhyDrain       = placement.WhyDrain
	WhyMove        = placement.WhyMove
	WhyNotPossible = placement.WhyNotPossible
	WhyShed        = placement.WhyShed
	WhyGaveUp      = "gave_up"     // the group failed past its restarts
	WhyLeftFailed  = "left_failed" // past its failover threshold
	WhyOffline     = "offline"     // not wanted online, or being deleted
	WhyEvicted     = "evicted"     // its node is taken out for good
	WhyRetry       = "retry"       // where it was, under a new epoch
)

// Kinds of the events that the core's commands write, beside confdb's own.
const (
	KindGroupOnline     = "group_online"     // the owner reports all resources online
	KindGroupOffline    = "group_offline"    // the owner stopped it
	KindGroupFailed     = "group_failed"     // the owner gave up
	KindResourceFailed  = "resource_failed"  // and what is done about it
	KindResourceRestart = "resource_restart" // online again after a failure
	KindFenceStarted    = "fence_started"    // a node is being turned off
	KindGroupWaits      = "group_waits"      // can't run now, and why
)
