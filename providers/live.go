package providers

import (
	"context"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// LiveReader is implemented by the provider that holds the cluster's database
// (confdb). Live is the newest committed copy that can be reached: with quorum
// a fresh one, else what the reachable nodes hold. The error wraps
// ErrUnreachable where no node answers, also before there is a cluster. Nil
// without an error: the nodes answer, and none of them holds a cluster.
type LiveReader interface {
	Live(ctx context.Context) (*Live, error)
	// Forget lets go of what was read: who asks for more of it has it read again.
	Forget()
}

// Live is the cluster's own life: what a plan has to know and never compares.
type Live struct {
	Revision       uint64
	ConfigRevision uint64
	Quorum         bool   // false: a copy that may be behind
	Leader         string // node id; "": unknown
	Cluster        spec.Cluster
	Members        []LiveMember
	Groups         []LiveGroup  // those of others (ManagedBy) as well
	Fences         []spec.Fence // so too; secrets are not in them
}

// LiveMember is a member with what operators ordered.
type LiveMember struct {
	Spec    spec.Node // with its id
	State   string    // joining | learner | voter
	Node    string    // spec.Node*
	Paused  *Order
	Drained bool
}

// LiveGroup is a group with its life.
type LiveGroup struct {
	Spec   spec.Group // with its id
	Owner  string     // node id; "": nobody
	Home   string     // node id: where a failure or a drain took it from; "": it is there, or an operator moved it
	State  string     // spec.State*
	Want   string     // online | offline
	WantBy *Order     // an operator said so
	Move   *Order     // under way
}

// Order is an operator's wish, with who and why; To is a node's name.
type Order struct {
	Author string
	Reason string
	Time   time.Time
	To     string
}
