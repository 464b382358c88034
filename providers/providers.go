// Package providers is how the planner reaches the world: the Provider
// interface, what is asked and answered, and the registry. providers/local,
// ssh and libvirt are places to put nodes and machines; providers/confdb
// holds cluster, groups and resources through the agents' API.
//
// Nodes is the node lifecycle: one provider of nodes over a small Host
// interface (host.go), which local and ssh implement. Start reading at Nodes (node.go:
// where a node lies), then node_plan.go (which phases), node_read.go (drift),
// node_apply.go, node_install.go and node_start.go (what a phase does).
//
// A provider's Plan is pure; everything with effects takes a context. Values
// are cty objects of the types that schema.Type makes from the provider's
// schemas; unknown where they come from objects that are not applied yet.
package providers

import (
	"context"
	"errors"
	"log/slog"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// Provider brings objects about. Errors carry what, where and what to do;
// one that wraps ErrRetry may pass when tried again, ErrUnreachable says that
// the object's host or the cluster can't be seen, ErrNoQuorum that it can be
// seen but can't commit. An error that concerns an attribute is a cty.PathError.
type Provider interface {
	// Schema: of the provider's own block, and of the object types it holds, by type.
	Schema() Schema
	// Configure is called once before everything but Schema. No effects.
	Configure(config cty.Value, env Env) error
	// Plan works out what an apply would leave. Pure.
	Plan(PlanRequest) (PlanResponse, error)
	// Apply does one phase of a planned change. Idempotent: after a crash it
	// is called again with the same request and finishes what was begun.
	Apply(context.Context, ApplyRequest) (ApplyResponse, error)
	// Read says what is there now. No effects.
	Read(context.Context, ReadRequest) (ReadResponse, error)
	// Import finds what is there and no state knows. No effects.
	Import(context.Context, ImportRequest) (ImportResponse, error)
	Close() error
}

// Errors, to be wrapped.
var (
	ErrRetry       = errors.New("may pass when tried again")
	ErrUnreachable = errors.New("unreachable")
	ErrNoQuorum    = errors.New("no quorum")
)

// Schema is a provider's shapes.
type Schema struct {
	Config spec.Schema
	// Objects, by type: node, cluster, group, fence, machine, network, volume.
	// Of the last three, spec.Schema.WithIdentity gives the attributes that all
	// have (name, provider), whatever the provider; see Machinery below.
	Objects map[string]spec.Schema
	// Resources are the resource types, by name (confdb only): the attributes of each type's own.
	Resources map[string]spec.Schema
}

// Env is what a run gives to its providers.
type Env struct {
	DataDir string // the definition's .clusterplan directory, absolute
	Program string // this program's file, to be installed on nodes
	Version string
	// Identity of the cluster; nil before the first apply has made it.
	Identity func() *pki.Identity
	// Cluster is what the node lifecycle asks of the running cluster.
	Cluster Cluster
	// Order are the definition's nodes, in its order; empty without a definition.
	Order []addr.Address
	// Defined are the definition's values of its nodes, which may be unknown in
	// part; empty without a definition.
	Defined map[addr.Address]cty.Value
	// Links are the networks of the definition's cluster; nil without a definition.
	Links []spec.Link
	// Nodes is where the run's nodes can be reached. Whoever makes the Env fills
	// it from the state's nodes (AddStored); never nil.
	Nodes *Directory
	Log   *slog.Logger
}

// Phases of a node's action. A create is install, start, join, promote; a
// delete is drain, leave, stop, remove; a restart is drain, stop, install,
// start, resume; drift "agent not running" is start.
const (
	PhaseInstall = "install" // directory, program, certificates, configuration
	PhaseStart   = "start"   // the agent runs and its API answers
	PhaseJoin    = "join"    // known to the cluster, as a learner
	PhasePromote = "promote" // caught up, votes (where votes is 1)
	PhaseDemote  = "demote"
	PhaseDrain   = "drain"  // owns no group
	PhaseResume  = "resume" // may own groups again
	PhaseLeave   = "leave"  // no member any more
	PhaseStop    = "stop"   // no process is left
	PhaseRemove  = "remove" // no file is left
	PhaseUpdate  = "update" // settings in the cluster's database
	// Of the cluster: PhaseBootstrap at create, PhaseUpdate for settings.
	PhaseBootstrap = "bootstrap"
)

// Machinery: machines, networks and volumes (addr.Machinery), which nodes stand on.
//
// Their schemas say all that the language and the planner have to know. An
// attribute of type spec.TypeNetworkRef, TypeVolumeRef or a list of them takes
// network.lab and gives the provider its name; what it refers to is made first,
// goes last, and takes along what refers to it when it is made anew. Impact of an
// attribute is what its change does to what runs: ImpactReplace makes the object
// anew (so do the paths in PlanResponse.Replace), ImpactReboot has the nodes on
// the machine drained and stopped first and started again after it, ImpactNone
// touches nothing. The strongest of the attributes that differ and of
// PlanResponse.Impact counts. Computed attributes (address, mac) are unknown in
// Planned until they are known, and null if there never will be any; in a change
// in place that keeps them they are Prior's.
//
// Phases: a create is PhaseCreate, which returns once all computed attributes are
// known; a change in place or the mending of drift PhaseUpdate (a machine that is
// off: Drift, PhaseUpdate and ImpactReboot, so that its node comes back after it),
// a delete PhaseDelete. Each is idempotent: after a
// crash it is called again with the same ID. A create that was begun is read back
// by its ID first (Prior without a Value), and then created once more to finish it.
const (
	PhaseCreate = "create"
	PhaseDelete = "delete"
)

// Cluster is what the node lifecycle asks of the running cluster. Each is
// idempotent, waits until it is so or ctx ends, and returns ErrUnreachable or
// ErrNoQuorum wrapped.
type Cluster interface {
	Join(ctx context.Context, m Member) error
	Promote(ctx context.Context, nodeID string) error
	Drain(ctx context.Context, nodeID, reason string) error
	Resume(ctx context.Context, nodeID string) error
	Leave(ctx context.Context, nodeID string) error
	Update(ctx context.Context, m Member) error // settings: zone, capacity, labels, spare, votes, role
	// MemberState is what the cluster knows of the node.
	MemberState(ctx context.Context, nodeID string) (MemberState, error)
}

// States of members.
const (
	MemberNone    = ""        // no member
	MemberJoining = "joining" // not caught up yet
	MemberLearner = "learner"
	MemberVoter   = "voter"
)

// MemberState is a member as the cluster knows it.
type MemberState struct {
	State          string // Member*
	ServerID       uint64
	Endpoint       string
	Spec           spec.Node
	DrainedByApply bool // Drain, without Resume since
}

// Member is a node as the cluster is to know it.
type Member struct {
	Spec     spec.Node
	ServerID uint64
	Endpoint string // host:port
	Version  string
}

// PlanRequest asks what a change would leave. Prior is what Read last said
// (cty.NilVal: nothing there), Config the definition's value (cty.NilVal: to
// be deleted).
type PlanRequest struct {
	Addr   addr.Address
	Type   string
	Prior  *Object
	Config cty.Value
}

// PlanResponse: Planned has the computed attributes filled in from Prior, or
// unknown. Replace names the attributes that force a replacement. Drift says
// in a few words each what is not as it should be on the host though the
// definition has not changed ("agent not running"). Impact is the strongest.
type PlanResponse struct {
	Planned cty.Value
	Replace []cty.Path
	Drift   []string
	Phases  []string // what an apply would do, in order; empty: nothing
	Impact  spec.Impact
}

// Object is what is there.
type Object struct {
	ID      string
	Value   cty.Value // by the schema, computed attributes included
	Private []byte    // the provider's own, kept in state
	Health  []string  // drift seen by Read: "agent not running", "certificate expires in 3 days"
}

// ApplyRequest does one phase. Of a group, Resources are its resources'
// objects, with the group one transaction.
type ApplyRequest struct {
	Addr      addr.Address
	Type      string
	ID        string // given by the planner at create; never changes
	Phase     string // "" for a group
	Prior     *Object
	Planned   cty.Value  // cty.NilVal: delete
	Resources []Resource // of a group, in definition order
	// Adopt takes an object over that someone else manages (an import); without
	// it such are refused.
	Adopt bool
	// Beside: another node of its name, whose place it takes, is in the cluster
	// still. The cluster is to know it by its SuccessorName.
	Beside bool
	// ComesBack: of a node that is stopped, no phase after it has it join anew. What
	// its data directory has is what it comes back with.
	ComesBack bool
	// Nodes maps names to ids of nodes as far as they are known: owner lists name nodes by name.
	Nodes    map[string]string
	Progress func(text string)
}

// SuccessorName is what the cluster calls a node while the one whose place and
// name it takes is there: names are unique, and owner lists and fences mean the
// other one until it has left.
func SuccessorName(name, id string) string { return name + "-" + id }

// Resource is a resource within a group's request or answer.
type Resource struct {
	Addr  addr.Address
	ID    string
	Type  string
	Value cty.Value
}

// ApplyResponse is what is there after the phase; Object nil: nothing.
type ApplyResponse struct {
	Object    *Object
	Resources []Resource
}

// ReadRequest asks what is there of an object that state or an intent knows.
// Prior may hold nothing but the ID after a create that was cut off.
type ReadRequest struct {
	Addr  addr.Address
	Type  string
	ID    string
	Prior *Object
}

// ReadResponse: Object nil says that it is gone for sure; what can't be seen
// is an error that wraps ErrUnreachable. AsOf is the database's revision of
// what was read, with NoQuorum where it may be behind.
type ReadResponse struct {
	Object    *Object
	Resources []Resource
	AsOf      uint64
	NoQuorum  bool
}

// ImportRequest asks for an object by what people call it: its id, its name,
// where it is; each provider says which. Config is the definition's value, of
// which only what can be written in several ways is taken; cty.NilVal: none.
type ImportRequest struct {
	Addr   addr.Address // that it is to have
	Type   string
	ID     string
	Config cty.Value
}

// ImportResponse is what was found. Its resources have addresses within the
// request's. ManagedBy is who manages it in the cluster's database:
// spec.ManagedBy, somebody else or "", nobody.
type ImportResponse struct {
	Object    *Object
	Resources []Resource
	ManagedBy string
}
