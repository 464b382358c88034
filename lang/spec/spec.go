// Package spec is the typed model of a cluster: what a definition says once it
// is evaluated, and what the agents keep in their database. Its JSON is
// canonical: equal values have equal bytes, and an object's cty value written
// as JSON is its spec type's JSON.
//
// It owns the types, their defaults, the semantic rules (rules.go), the formulas
// of the timings (timings.go), and the schemas of objects and resource types as
// data (schema.go). It imports the standard library and lang/addr only, and
// has no effects: agents, planner and language share it.
package spec

import (
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// QuorumModel says who may run the cluster.
type QuorumModel string

const (
	SingleNode      QuorumModel = "single_node"
	SingleQuorum    QuorumModel = "single_quorum"
	MajorityNodeSet QuorumModel = "majority_node_set"
)

// Configuration models: how groups are meant to lie on nodes.
const (
	VirtualServer       = "virtual_server"
	StaticLoadBalancing = "static_load_balancing"
	HotSpare            = "hot_spare"
	Partial             = "partial"
	Hybrid              = "hybrid"
)

// Node roles.
const (
	RoleMember  = "member"
	RoleWitness = "witness" // votes, keeps the database, never owns a group
)

// Failover modes.
const (
	FailoverAutomatic = "automatic"
	FailoverManual    = "manual" // waits for an operator ("cold")
	FailoverNone      = "none"   // stays down with its node
)

// Failback modes.
const (
	FailbackPrevent   = "prevent"
	FailbackImmediate = "immediate"
	FailbackWindow    = "window"
)

// Persistent states of a group.
const (
	WantOnline  = "online"
	WantOffline = "offline"
)

// What a group does on a node without quorum.
const (
	NoQuorumStop   = "stop"
	NoQuorumFreeze = "freeze"
)

// Restart actions of a resource.
const (
	RestartNone    = "none"
	RestartRestart = "restart"
)

// States of resources; groups also have StatePartialOnline and StatePending.
const (
	StateOffline        = "offline"
	StateOnlinePending  = "online_pending"
	StateOnline         = "online"
	StateOfflinePending = "offline_pending"
	StateFailed         = "failed"
	StatePartialOnline  = "partial_online"
	StatePending        = "pending"
	StateUnknown        = "unknown"
)

// States of nodes.
const (
	NodeUp      = "up"
	NodeDown    = "down"
	NodePaused  = "paused"
	NodeJoining = "joining"
	NodeUnknown = "unknown"
)

// ManagedBy marks what clusterplan made; other values are left alone.
const ManagedBy = "clusterplan"

// Definition is a whole cluster as the semantic rules, the planner and the
// failure matrix see it. Nodes and groups are in address order.
type Definition struct {
	Cluster Cluster `json:"cluster"`
	Nodes   []Node  `json:"nodes"`
	Groups  []Group `json:"groups"`
	Fences  []Fence `json:"fences,omitempty"`

	Guarantees []Guarantee `json:"guarantees,omitempty"`
}

// Cluster is the cluster block.
type Cluster struct {
	ID             string  `json:"id,omitempty"` // never changes; given at create
	Name           string  `json:"name"`
	Description    string  `json:"description,omitempty"`
	Configuration  string  `json:"configuration,omitempty"`
	MaxUnavailable int     `json:"max_unavailable,omitempty"` // nodes; default 1
	Quorum         Quorum  `json:"quorum"`
	Heartbeat      Timings `json:"heartbeat"`
	Links          []Link  `json:"link,omitempty"`
	ManagedBy      string  `json:"managed_by,omitempty"`
}

// Quorum is the quorum block.
type Quorum struct {
	Model  QuorumModel `json:"model"`
	Device string      `json:"device,omitempty"` // single_quorum
}

// Link is an internal or client network. A node's address on it is the one of
// its addresses that lies in Subnet.
type Link struct {
	Name   string `json:"name"`
	Subnet string `json:"subnet"`
	Role   string `json:"role"` // internal | client | all
}

// Roles of links.
const (
	LinkInternal = "internal" // carries frames and the database
	LinkClient   = "client"   // carries neither
	LinkAll      = "all"      // as internal, and clients are there too
)

// Carries tells whether nodes talk to each other over the link.
func (l Link) Carries() bool { return l.Role != LinkClient }

// Node is one node. Owner lists name nodes by Name, which is unique.
type Node struct {
	ID       string            `json:"id,omitempty"`
	Addr     addr.Address      `json:"addr"`
	Name     string            `json:"name"`
	Provider string            `json:"provider"`
	Address  string            `json:"address,omitempty"` // host or host:port; "" is unknown or the provider's choice
	Zone     string            `json:"zone,omitempty"`
	Capacity map[string]int64  `json:"capacity,omitempty"` // cpu in thousandths, memory and what has a size unit in bytes, others plain
	Spare    bool              `json:"spare,omitempty"`
	Votes    int               `json:"votes"` // 0 or 1
	Role     string            `json:"role"`
	Labels   map[string]string `json:"labels,omitempty"`

	Watchdog        string   `json:"watchdog,omitempty"`         // the device that resets it; "": none
	WatchdogTimeout Duration `json:"watchdog_timeout,omitempty"` // its time-out; 0 with Watchdog: DefaultWatchdogTimeout
	Reset           string   `json:"reset,omitempty"`            // how its agent resets it: ResetSysrq; "": not at all

	SSH SSH `json:"ssh,omitzero"` // how provider ssh reaches it, over the provider's own settings
}

// SSH is how a host is reached over SSH; what is empty is the provider's.
type SSH struct {
	Host           string `json:"host,omitempty"` // "": the node's address
	Port           int    `json:"port,omitempty"`
	User           string `json:"user,omitempty"`
	HostKey        string `json:"host_key,omitempty"`
	PrivateKeyFile string `json:"private_key_file,omitempty"`
	Sudo           bool   `json:"sudo,omitempty"`
}

// Witness tells whether n votes but never owns a group.
func (n Node) Witness() bool { return n.Role == RoleWitness }

// Group is one group with its resources, the unit of failover.
type Group struct {
	ID              string           `json:"id,omitempty"`
	Addr            addr.Address     `json:"addr"`
	Name            string           `json:"name"`
	Description     string           `json:"description,omitempty"`
	PreferredOwners []string         `json:"preferred_owners,omitempty"` // node names, in order
	PossibleOwners  []string         `json:"possible_owners,omitempty"`  // node names; empty: every member
	Priority        int              `json:"priority"`                   // high first; 0: not started by itself; default 2000
	Demand          map[string]int64 `json:"demand,omitempty"`           // as Node.Capacity
	DependsOn       []string         `json:"depends_on,omitempty"`       // group names
	KeepApart       []string         `json:"keep_apart,omitempty"`
	KeepApartSoft   []string         `json:"keep_apart_soft,omitempty"`
	PersistentState string           `json:"persistent_state"`
	StopWithin      Duration         `json:"stop_within"` // default: the profile's
	NoQuorum        string           `json:"no_quorum"`
	Failover        Failover         `json:"failover"`
	Failback        Failback         `json:"failback"`
	Resources       []Resource       `json:"resources"`
	ManagedBy       string           `json:"managed_by,omitempty"`
}

// Failover is a group's failover block.
type Failover struct {
	Mode      string   `json:"mode"`
	Threshold int      `json:"threshold"`        // failovers within Period; 0: nodes - 1
	Period    Duration `json:"period"`           // default 6h
	Stated    bool     `json:"stated,omitempty"` // the block stands in the definition (configuration hybrid asks for it)
}

// Failback is a group's failback block.
type Failback struct {
	Mode     string   `json:"mode"`
	Window   string   `json:"window,omitempty"` // "22:00-04:00"
	Timezone string   `json:"timezone,omitempty"`
	Delay    Duration `json:"delay"`
}

// Resource is one resource of a group.
type Resource struct {
	ID              string         `json:"id,omitempty"`
	Addr            addr.Address   `json:"addr"`
	Name            string         `json:"name"` // unique in the group
	Type            string         `json:"type"`
	Attributes      map[string]any `json:"attributes"`                 // by the type's schema; JSON values, defaults filled in
	DependsOn       []string       `json:"depends_on,omitempty"`       // resource names: all of these
	DependsOnAny    []string       `json:"depends_on_any,omitempty"`   // and at least one of these
	PendingTimeout  Duration       `json:"pending_timeout"`            // between two signs of progress; default 180s
	SeparateMonitor bool           `json:"separate_monitor,omitempty"` // a monitor process of its own
	LooksAlive      Poll           `json:"looks_alive"`                // default every 5s
	IsAlive         Poll           `json:"is_alive"`                   // default every 60s
	Restart         Restart        `json:"restart"`
	Checkpoint      *Checkpoint    `json:"checkpoint,omitempty"`
}

// Checkpoint is a resource's checkpoint block: what is kept in the configuration
// database when it changes while the resource is online, and brought back before
// it comes online on another node. Either Paths, or Command with Restore.
type Checkpoint struct {
	Paths   []string `json:"paths,omitempty"`   // files, absolute or below the node's directory; of a directory all regular files below it
	Command []string `json:"command,omitempty"` // its output is kept
	Restore []string `json:"restore,omitempty"` // gets that output as its input before the resource starts
}

// Poll is a looks_alive or is_alive block. At most one of Command, TCP and
// HTTP is set; none: the type's own check (for a process: it runs).
type Poll struct {
	Interval Duration `json:"interval"`
	Timeout  Duration `json:"timeout,omitempty"` // of one check; default 10s
	Command  []string `json:"command,omitempty"` // exit 0: alive
	TCP      string   `json:"tcp,omitempty"`     // host:port that accepts
	HTTP     string   `json:"http,omitempty"`    // URL that answers 2xx or 3xx
}

// Restart is a resource's restart block.
type Restart struct {
	Action      string   `json:"action"`       // default restart
	Threshold   int      `json:"threshold"`    // restarts on one node within Period; default 3
	Period      Duration `json:"period"`       // default 15m
	Delay       Duration `json:"delay"`        // default 0
	AffectGroup bool     `json:"affect_group"` // past the threshold the group fails over; default true
}

// Resource finds a resource by name.
func (g *Group) Resource(name string) (*Resource, bool) {
	for i := range g.Resources {
		if g.Resources[i].Name == name {
			return &g.Resources[i], true
		}
	}
	return nil, false
}

// StopTimeout is how long one stop of the resource may take, by its stop_timeout; 0:
// its type has none, and stops at once.
func (r *Resource) StopTimeout() time.Duration {
	text, _ := r.Attributes["stop_timeout"].(string)
	d, err := ParseDuration(text)
	if err != nil {
		return 0
	}
	return d.D()
}

// StopBound is how long the group may take to stop in order: the longest way through
// its resources' dependencies, each resource with its stop_timeout. A stop that fails,
// and is tried again, takes longer.
func (g *Group) StopBound() time.Duration {
	memo := make(map[string]time.Duration, len(g.Resources))
	var longest func(r *Resource) time.Duration
	longest = func(r *Resource) time.Duration {
		if d, ok := memo[r.Name]; ok {
			return d
		}
		memo[r.Name] = 0 // a cycle was refused by validate; harmless here
		var below time.Duration
		for _, dep := range slices.Concat(r.DependsOn, r.DependsOnAny) {
			if other, ok := g.Resource(dep); ok {
				below = max(below, longest(other))
			}
		}
		memo[r.Name] = below + r.StopTimeout()
		return memo[r.Name]
	}
	var all time.Duration
	for i := range g.Resources {
		all = max(all, longest(&g.Resources[i]))
	}
	return all
}

// MayOwn tells whether the group's definition lets the member n own it.
func (g *Group) MayOwn(n Node) bool {
	if n.Witness() {
		return false
	}
	if len(g.PossibleOwners) == 0 {
		return true
	}
	for _, name := range g.PossibleOwners {
		if name == n.Name {
			return true
		}
	}
	return false
}
