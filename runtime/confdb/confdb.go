// Package confdb is the configuration database: the state that every node
// holds a copy of, the commands that change it, and the interface of the
// drivers that agree on their order.
//
// The state machine (State.Apply) is pure and deterministic: the same commands
// in the same order give equal states, byte for byte, on every node. Whether a
// command is committed is the driver's matter: boltdb (one node), raftdb
// (majority). Start reading at Command, then State, then Driver.
package confdb

import (
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// State is the database's content. It is changed by Apply alone; who reads it
// between two applies may keep no pointer into it.
type State struct {
	Revision       uint64            `json:"revision"`        // updates applied so far
	ConfigRevision uint64            `json:"config_revision"` // the Revision at which the definition changed last
	Cluster        spec.Cluster      `json:"cluster"`
	Nodes          map[string]*Node  `json:"nodes"`            // by node id
	Groups         map[string]*Group `json:"groups"`           // by group id
	Fences         map[string]*Fence `json:"fences,omitempty"` // by fence id (apply_fence.go)
	View           View              `json:"view"`
	Events         []Event           `json:"events"` // the newest maxEvents, oldest first
	// Keys are the cluster's frame keys but the first. They are secrets: no view
	// and no event shows them.
	Keys *Keyring `json:"keys,omitempty"`
	// TimingsRevision is the Revision at which the timings changed last: what a
	// node's confirmation of them names. ShorterRevision is that of the last
	// change that made leases shorter.
	TimingsRevision uint64 `json:"timings_revision,omitempty"`
	ShorterRevision uint64 `json:"shorter_revision,omitempty"`
	// Change is who changes the definition now (apply_change.go); nil: nobody.
	Change *Change `json:"change,omitempty"`
	Done   []Done  `json:"done"` // the newest maxDone command ids with their results: a retried command is applied once

	KV     KV                `json:"-"` // behind the JSON of a snapshot (codec_blobs.go)
	Chunks map[string]*Chunk `json:"-"` // of checkpoints, by ChunkHash; likewise
	done   map[string]int    // Done by id: how many commands were done before it; made when first asked for
	base   int               // how many were forgotten since
}

// View is what the leader holds for the membership: one agreed picture, with
// an epoch that grows with each change.
type View struct {
	Epoch uint64   `json:"epoch"`
	Up    []string `json:"up"` // node ids, sorted
}

// Node is a member (or one that is joining).
type Node struct {
	Spec     spec.Node `json:"spec"`
	ServerID uint64    `json:"server_id"` // of node id and data directory; Raft's id
	Endpoint string    `json:"endpoint"`  // host:port, TCP (API, Raft) and UDP (frames)
	Version  string    `json:"version"`   // of the agent
	Paused   *Intent   `json:"paused,omitempty"`
	Drained  bool      `json:"drained,omitempty"` // paused, and its groups are to leave as well
	Joined   bool      `json:"joined"`            // caught up once: it may own groups and count

	Evicting *Intent `json:"evicting,omitempty"` // to be taken out for good

	// Links are its addresses on the cluster's links, as it found them; by name.
	Links []NodeLink `json:"links,omitempty"`

	// Cert is the certificate that it said it has; nil: it has not said yet.
	Cert *NodeCert `json:"cert,omitempty"`

	// Leaves are when it was lost without taking its leave, lately; enough of
	// them put it into quarantine (apply_quarantine.go).
	Leaves     []time.Time `json:"leaves,omitempty"`
	Quarantine *Quarantine `json:"quarantine,omitempty"` // no group comes to it
	// Lease is the longest lease that the node may hold: raised with the
	// settings, lowered only once the node has confirmed it (apply_timings.go).
	// 0: the settings' own.
	Lease      spec.Duration `json:"lease,omitempty"`
	Fenced     *Fenced       `json:"fenced,omitempty"`      // the newest proof that it was off
	FenceOrder *FenceOrder   `json:"fence_order,omitempty"` // a person's, until the leader has carried it out
}

// Intent is an operator's wish, with who and why.
type Intent struct {
	Author string    `json:"author"`
	Reason string    `json:"reason,omitempty"`
	Time   time.Time `json:"time"`
}

// Ownership says which node runs a group. Timings recorded here are the ones
// that a takeover from this owner counts with.
type Ownership struct {
	Node       string        `json:"node"`  // node id; "" is nobody
	Epoch      uint64        `json:"epoch"` // only grows over the group's life
	Lease      spec.Duration `json:"lease"`
	StopWithin spec.Duration `json:"stop_within"`
	Kill       spec.Duration `json:"kill"`
	Since      time.Time     `json:"since"`
	// Open: something of it may outlive its lease, so that no wait frees it from
	// a lost node, only a release or a fence.
	Open bool `json:"open,omitempty"`
	// Freeze: it goes on without a lease, or may: no_quorum was "freeze" at some
	// time under this epoch.
	Freeze bool `json:"freeze,omitempty"`
	// Watchdog is the longest time-out of its node's watchdog, where something of
	// the group may outlive the lease until that resets the node; 0: none is relied
	// on. It only grows until the next owner, which sets it anew.
	Watchdog spec.Duration `json:"watchdog,omitempty"`
}

// Freezes tells whether the group may go on without a lease: by its definition,
// or under one that its owner may go by still.
func (g *Group) Freezes() bool {
	return g.Owner.Freeze || g.Spec.NoQuorum == spec.NoQuorumFreeze
}

// Group is a group with what runs of it.
type Group struct {
	Spec       spec.Group      `json:"spec"`
	Want       string          `json:"want"` // online | offline; from persistent_state, then from operators
	WantBy     *Intent         `json:"want_by,omitempty"`
	Deleting   *Intent         `json:"deleting,omitempty"` // to go: its owner stops it, and the Assign to nobody takes it out of the state
	Move       *Move           `json:"move,omitempty"`     // under way
	Handover   *Handover       `json:"handover,omitempty"` // its owner is to stop and release it; until the next Assign
	Owner      Ownership       `json:"owner"`
	State      string          `json:"state"`                 // spec.State*, as the owner reported under Owner.Epoch
	Resources  []ResourceState `json:"resources"`             // in the spec's order
	Failovers  []time.Time     `json:"failovers,omitempty"`   // within the period
	GaveUp     bool            `json:"gave_up,omitempty"`     // the owner reported GiveUp under Owner.Epoch
	GaveUpAt   time.Time       `json:"gave_up_at,omitzero"`   // when, by the owner's time of day: with nowhere else to go, it is tried again an hour later
	LeftFailed string          `json:"left_failed,omitempty"` // why no further failover is tried; online or a changed definition clears it
	FailedOn   []string        `json:"failed_on,omitempty"`   // node ids, sorted, where it failed itself and that have not come up anew since: no failback goes there
	HomeFrom   string          `json:"home_from,omitempty"`   // node id that a failure or a drain took it from: it is to fail back. "" once it is home, or where an operator moved it

	Checkpoints map[string]*Checkpoint `json:"checkpoints,omitempty"` // by resource name; nothing in it is changed in place
}

// Handover asks a healthy owner to stop a group and release it, before the
// group goes elsewhere. Only the leader sets it, once it knows where to.
type Handover struct {
	To  string `json:"to"`  // node id; "": it makes room for others
	Why string `json:"why"` // core.Why*
}

// Move is an operator's order to change the owner; To may be "" for "anywhere else".
type Move struct {
	To     string `json:"to"`
	Intent Intent `json:"intent"`
}

// ResourceState is what an owner reported of one resource.
type ResourceState struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// Event is one line of the replicated event log. Ids are 1, 2, 3, ... and
// equal on every node.
type Event struct {
	ID     uint64    `json:"id"`
	Time   time.Time `json:"time"`             // the proposer's time of day, for people
	Node   string    `json:"node,omitempty"`   // node name
	Object string    `json:"object,omitempty"` // an address, as group.web
	Kind   string    `json:"kind"`             // one of the Kind constants (kinds.go), or core's
	Text   string    `json:"text"`             // for a person
	Cause  uint64    `json:"cause,omitempty"`  // id of the event that this one follows from
	Author string    `json:"author,omitempty"`
}

// Done is a command that was applied.
type Done struct {
	ID     string `json:"id"`
	Result Result `json:"result"`
}

// Result is what became of a command. It is part of the replicated state.
// Revision grows with every command that is new, refused ones too, so that
// equal revisions mean equal states; a retried one gets its first Result.
type Result struct {
	Revision uint64 `json:"revision"`
	Code     string `json:"code,omitempty"` // "" is success; else one of the Code constants
	Detail   string `json:"detail,omitempty"`
}

// Codes of results.
const (
	CodeConflict = "conflict"  // IfMatch or an expected epoch doesn't hold any more
	CodeNotFound = "not_found" // no such object
	CodeInvalid  = "invalid"   // against a semantic rule
)

// Command is one update: exactly one of the pointers is set.
type Command struct {
	ID      string    `json:"id"`   // unique; a second one with the same id changes nothing
	Time    time.Time `json:"time"` // of the proposer
	Author  string    `json:"author,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	IfMatch uint64    `json:"if_match,omitempty"` // ConfigRevision that the sender saw; 0: any
	Cause   uint64    `json:"cause,omitempty"`    // event that it follows from

	// Change is the change lease that this is done under: refused once it is over.
	Change string `json:"change,omitempty"`

	PutCluster  *spec.Cluster `json:"put_cluster,omitempty"`
	PutNode     *PutNode      `json:"put_node,omitempty"`
	DeleteNode  *NodeRef      `json:"delete_node,omitempty"`
	NodeJoined  *NodeRef      `json:"node_joined,omitempty"`
	PauseNode   *PauseNode    `json:"pause_node,omitempty"` // pause, drain
	ResumeNode  *NodeRef      `json:"resume_node,omitempty"`
	PutGroup    *spec.Group   `json:"put_group,omitempty"`
	DeleteGroup *GroupRef     `json:"delete_group,omitempty"` // the owner stops it first: the leader finishes it
	SetWant     *SetWant      `json:"set_want,omitempty"`
	MoveGroup   *MoveGroup    `json:"move_group,omitempty"`
	Handover    *HandOver     `json:"handover,omitempty"`
	Assign      *Assign       `json:"assign,omitempty"`
	Report      *Report       `json:"report,omitempty"`
	SetView     *SetView      `json:"set_view,omitempty"`

	EvictNode      *NodeRef        `json:"evict_node,omitempty"`     // its DeleteNode follows once nothing is its own any more
	EndQuarantine  *NodeRef        `json:"end_quarantine,omitempty"` // its time is over
	ConfirmTimings *ConfirmTimings `json:"confirm_timings,omitempty"`
	TellLinks      *TellLinks      `json:"tell_links,omitempty"`
	TellCert       *TellCert       `json:"tell_cert,omitempty"`
	QuorumLost     *QuorumLost     `json:"quorum_lost,omitempty"`
	RotateKey      *RotateKey      `json:"rotate_key,omitempty"`
	KeyPhase       *KeyPhase       `json:"key_phase,omitempty"` // the leader's: the next step of a rotation

	Event   *Event `json:"event,omitempty"`   // only an event; id given by Apply
	Nothing bool   `json:"nothing,omitempty"` // a barrier: it may be done again, and Done forgets it

	KV            *KVWrite       `json:"kv,omitempty"`
	PutChunk      *PutChunk      `json:"put_chunk,omitempty"`
	PutCheckpoint *PutCheckpoint `json:"put_checkpoint,omitempty"`

	TakeChange *TakeChange `json:"take_change,omitempty"`
	EndChange  *EndChange  `json:"end_change,omitempty"`

	PutFence    *spec.Fence `json:"put_fence,omitempty"`
	DeleteFence *FenceRef   `json:"delete_fence,omitempty"`
	FenceNode   *FenceNode  `json:"fence_node,omitempty"`  // a person's order, or word
	NodeFenced  *NodeFenced `json:"node_fenced,omitempty"` // what became of a fencing: the leader's, of its term
}

// PutNode adds a node or changes its settings.
type PutNode struct {
	Spec     spec.Node `json:"spec"`
	ServerID uint64    `json:"server_id"` // 0: unchanged
	Endpoint string    `json:"endpoint"`
	Version  string    `json:"version"`
}

// NodeRef names a node by id.
type NodeRef struct {
	Node string `json:"node"`
}

// PauseNode keeps groups from coming to a node; Drain makes its own leave too.
type PauseNode struct {
	Node  string `json:"node"`
	Drain bool   `json:"drain,omitempty"`
}

// GroupRef names a group by id.
type GroupRef struct {
	Group string `json:"group"`
}

// SetWant is an operator's online or offline.
type SetWant struct {
	Group string `json:"group"`
	Want  string `json:"want"`
}

// MoveGroup is an operator's move; To is a node id or "".
type MoveGroup struct {
	Group string `json:"group"`
	To    string `json:"to"`
}

// HandOver sets a group's Handover. It holds only while the group's epoch is
// still From and it has an owner.
type HandOver struct {
	Group string `json:"group"`
	From  uint64 `json:"from"`
	To    string `json:"to"`
	Why   string `json:"why"`
	Text  string `json:"text"` // for the event log
}

// Assign gives a group to a node ("" is nobody). It holds only while the
// group's epoch is still From; the new epoch is From+1.
type Assign struct {
	Group      string    `json:"group"`
	From       uint64    `json:"from"`
	Node       string    `json:"node"`
	Why        string    `json:"why"`                // closed list: core.Why*
	Failover   bool      `json:"failover,omitempty"` // failure took it from its owner: failback looks there
	Away       bool      `json:"away,omitempty"`     // a drain takes it from its owner: failback looks there as after a failover
	Counts     bool      `json:"counts,omitempty"`   // and the group itself failed: against its failover threshold
	LeftFailed string    `json:"left_failed,omitempty"`
	Text       string    `json:"text"`    // for the event log
	Timings    Ownership `json:"timings"` // Lease, StopWithin, Kill, Open, Freeze
}

// Report is what the owner says of its group; it counts only under Epoch.
type Report struct {
	Group     string          `json:"group"`
	Epoch     uint64          `json:"epoch"`
	Node      string          `json:"node"`
	State     string          `json:"state"`
	Resources []ResourceState `json:"resources"`
	GiveUp    bool            `json:"give_up,omitempty"` // failed here past the restart threshold: fail over
	Text      string          `json:"text,omitempty"`    // for the event log, where it is worth a line
	Kind      string          `json:"kind,omitempty"`
}

// SetView is a regroup. It holds only while the view's epoch is From.
type SetView struct {
	From uint64   `json:"from"`
	Up   []string `json:"up"`
	Left []string `json:"left,omitempty"` // those that are not up any more because they took their leave
}
