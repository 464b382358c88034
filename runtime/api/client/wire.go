// Package client speaks the agents' API: HTTP/JSON with mutual TLS (or the
// node's local Unix socket), version /v1. It holds the wire types as well, so
// that server and clients can't differ.
package client

import (
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// FormatVersion stands in every JSON object of the API and the CLI.
const FormatVersion = "1.0"

// Roles of client certificates (the subject's organizational unit).
const (
	RoleReader   = "reader"
	RoleOperator = "operator"
	RoleAdmin    = "admin"
	RoleNode     = "node"

	// RoleApplication is a group's socket's: reads, and what is that group's.
	RoleApplication = "application"
)

// Paths.
const (
	PathSelf      = "/v1/self"      // GET Self
	PathStatus    = "/v1/status"    // GET Status
	PathConfig    = "/v1/config"    // GET Config; ?fresh=1 after a barrier (503 without quorum)
	PathCluster   = "/v1/cluster"   // PUT spec.Cluster (admin)
	PathBootstrap = "/v1/bootstrap" // POST Bootstrap (admin): the first node of a new cluster
	PathMembers   = "/v1/members"   // POST MemberRequest (admin): join; PUT /{id}: settings; POST /{id}/promote; DELETE /{id}: leave
	PathNodes     = "/v1/nodes"     // POST /{id}/pause, /{id}/drain, /{id}/resume (operator), /{id}/evict (admin) with Order
	PathGroups    = "/v1/groups"    // PUT /{id} spec.Group, DELETE /{id} (admin); POST /{id}/move, /{id}/online, /{id}/offline (operator) with Order; GET /{id}/owner Owner, text/event-stream of it
	PathEvents    = "/v1/events"    // GET []Event, ?since=ID; text/event-stream with Accept: text/event-stream
	PathKV        = "/v1/kv"        // /cluster or /group/{group id or name}: GET KVList (?prefix, ?after, ?limit; ?stale=1), text/event-stream of KVEntry with ?since; /{key}: GET, PUT (the bytes themselves), DELETE
	// PathCheckpoints is /{group}: GET Checkpoints; /{resource}: GET Checkpoint, PUT
	// CheckpointFiles, POST /chunks (bytes), GET /chunks/{hash}, POST /problem
	// CheckpointProblem. Writes carry Clusterplan-Epoch.
	PathCheckpoints = "/v1/checkpoints"

	PathLogs = "/v1/logs" // GET /{group id}/{resource}?bytes=N&follow=1: this node's log of the resource, text
)

// Headers. If-Match carries a config_revision; Clusterplan-Command a unique id
// that makes a retry harmless; Clusterplan-Author who asks, where the
// certificate names a program.
const (
	HeaderIfMatch = "If-Match"
	HeaderCommand = "Clusterplan-Command"
	HeaderAuthor  = "Clusterplan-Author"
	HeaderReason  = "Clusterplan-Reason"
	HeaderChange  = "Clusterplan-Change" // the change lease that a write is done under

	// Of key-value writes. If-Match is the key's revision there (its ETag),
	// If-None-Match: * says that there is no such key. Epoch is the owner's;
	// Seen a revision that was reached before the first try of a write that is
	// tried again (KVWrite.Seen). Revision stands in answers.
	HeaderIfNoneMatch = "If-None-Match"
	HeaderEpoch       = "Clusterplan-Epoch"
	HeaderSeen        = "Clusterplan-Seen"
	HeaderRevision    = "Clusterplan-Revision"
)

// Self is what a node says of itself, member or not.
type Self struct {
	FormatVersion string        `json:"format_version"`
	ClusterID     string        `json:"cluster_id"`
	NodeID        string        `json:"node_id"`
	Name          string        `json:"name"`
	ServerID      uint64        `json:"server_id,string"`
	Endpoint      string        `json:"endpoint"`
	Membership    string        `json:"membership"` // waiting | learner | voter | removed | unread (a member that has not read yet of what)
	Leader        string        `json:"leader"`     // node name, "": unknown
	Quorum        bool          `json:"quorum"`
	Revision      uint64        `json:"revision"`
	Version       string        `json:"version"`
	Program       string        `json:"program"` // sha256 of the running program's file, hex
	CertNotAfter  time.Time     `json:"cert_not_after"`
	PID           int           `json:"pid"`
	MonitorPID    int           `json:"monitor_pid"`           // 0: none now
	FreezerPID    int           `json:"freezer_pid,omitempty"` // of the monitor for groups with no_quorum = "freeze"; 0: none
	StopBound     spec.Duration `json:"stop_bound,omitempty"`  // how long what runs there may take to stop in order, by stop_timeout
	NoReset       string        `json:"no_reset,omitempty"`    // why the node can't reset itself, though its definition says so
	NotReady      string        `json:"not_ready,omitempty"`   // why it can run no group yet: what an earlier monitor has left
	Group         string        `json:"group,omitempty"`       // by a group's socket: its name
	Features      []string      `json:"features,omitempty"`    // that an older agent lacks: Feature*
}

// Bootstrap makes a waiting node the first of a new cluster.
type Bootstrap struct {
	Cluster spec.Cluster  `json:"cluster"`
	Member  MemberRequest `json:"member"`
}

// MemberRequest is a node as the cluster is to know it.
type MemberRequest struct {
	Spec     spec.Node `json:"spec"`
	ServerID uint64    `json:"server_id,string"`
	Endpoint string    `json:"endpoint"`
	Version  string    `json:"version"`
}

// Order is an operator's order.
type Order struct {
	Node   string `json:"node,omitempty"` // move: id or name of the new owner, "": any other
	Reason string `json:"reason,omitempty"`
	// ConfirmedOff is a person's word that a node is off: of a move the id or
	// name of the group's owner, of a fence ConfirmedNode.
	ConfirmedOff string `json:"confirmed_off,omitempty"`
}

// ConfirmedNode is Order.ConfirmedOff where the path names the node.
const ConfirmedNode = "yes"

// Done answers a write that was committed.
type Done struct {
	FormatVersion  string `json:"format_version"`
	Revision       uint64 `json:"revision"`
	ConfigRevision uint64 `json:"config_revision"`
}

// Error is the body of every answer from 400 on. Status codes: 400 bad
// request, 401 no or a foreign certificate, 403 role, 404, 409 conflict,
// 410 compacted, 412 If-Match, 413 limit, 421 not the leader (Leader says who is), 503 no quorum or no leader.
type Error struct {
	FormatVersion string `json:"format_version"`
	Status        int    `json:"status"`
	Code          string `json:"code"` // bad_request | limit | compacted | fenced | stale | unauthenticated | forbidden | not_found | conflict | precondition | not_leader | no_quorum | locked (the change lease is another's) | unknown_outcome | busy | internal | waiting (no member: waits to be bootstrapped or joined)
	Message       string `json:"message"`
	Hint          string `json:"hint,omitempty"`
	Leader        string `json:"leader,omitempty"` // endpoint
	// Unknown: the write may have been done, or be yet, whatever the code. Always
	// so with unknown_outcome.
	Unknown bool `json:"unknown,omitempty"`
}

// Config is the database as the planner reads it.
type Config struct {
	FormatVersion  string         `json:"format_version"`
	Revision       uint64         `json:"revision"`
	ConfigRevision uint64         `json:"config_revision"`
	Quorum         bool           `json:"quorum"` // false: a copy that may be behind
	Cluster        spec.Cluster   `json:"cluster"`
	Members        []ConfigMember `json:"members"`
	Groups         []ConfigGroup  `json:"groups"`
	Fences         []ConfigFence  `json:"fences,omitempty"`
	Change         *Change        `json:"change,omitempty"` // who changes it now; nil: nobody
}

// ConfigMember is a member with what operators ordered.
type ConfigMember struct {
	MemberRequest
	State   string  `json:"state"`      // joining | learner | voter
	Node    string  `json:"node_state"` // spec.Node*
	Paused  *Intent `json:"paused,omitempty"`
	Drained bool    `json:"drained,omitempty"`
}

// ConfigGroup is a group with its life.
type ConfigGroup struct {
	Spec   spec.Group `json:"spec"`
	Want   string     `json:"want"`
	WantBy *Intent    `json:"want_by,omitempty"`
	Move   *Intent    `json:"move,omitempty"`
	Owner  string     `json:"owner"`          // node name, "" nobody
	Home   string     `json:"home,omitempty"` // node name: where a failure or a drain took it from, until it is back
	Epoch  uint64     `json:"epoch"`
	State  string     `json:"state"`
}

// Intent is an operator's wish.
type Intent struct {
	Author string    `json:"author"`
	Reason string    `json:"reason,omitempty"`
	Time   time.Time `json:"time"`
	To     string    `json:"to,omitempty"` // of a move: node name
}

// Status is `clusterplan status --json`.
type Status struct {
	FormatVersion string        `json:"format_version"`
	Cluster       string        `json:"cluster"`
	Revision      uint64        `json:"revision"`
	Time          time.Time     `json:"time"`
	Leader        string        `json:"leader"`
	Quorum        StatusQuorum  `json:"quorum"`
	Nodes         []StatusNode  `json:"nodes"`
	Groups        []StatusGroup `json:"groups"`
	Fences        []StatusFence `json:"fences"`
	Change        *Change       `json:"change,omitempty"` // who changes the definition now; nil: nobody
}

// StatusQuorum counts votes.
type StatusQuorum struct {
	Model  spec.QuorumModel `json:"model"`
	Have   bool             `json:"have"`
	Votes  int              `json:"votes"`
	Up     int              `json:"up"`
	Needed int              `json:"needed"`
	// LostSince is when the node that answers lost touch with a majority; nil: it has not.
	LostSince *time.Time `json:"lost_since,omitempty"`
	// Quorum model single_quorum: the device, and why this node can't use it now ("": it can).
	Device        string `json:"device,omitempty"`
	DeviceProblem string `json:"device_problem,omitempty"`
}

// StatusNode is one node. PID, MonitorPID, FreezerPID, NoReset and NotReady are the agent's own report (0
// where this answer's node does not know: the CLI asks each node itself).
type StatusNode struct {
	Name       string `json:"name"`
	State      string `json:"state"`
	Address    string `json:"address"`
	Zone       string `json:"zone"`
	Role       string `json:"role"`
	Votes      int    `json:"votes"`
	Version    string `json:"version"`
	Spare      bool   `json:"spare"`
	PID        int    `json:"pid"`
	MonitorPID int    `json:"monitor_pid"`
	FreezerPID int    `json:"freezer_pid,omitempty"`
	NoReset    string `json:"no_reset,omitempty"`  // why it can't reset itself, though it should
	NotReady   string `json:"not_ready,omitempty"` // why it can run no group yet
	Reason     string `json:"reason,omitempty"`    // of paused, quarantined, unknown; what is wrong with one that is up

	Fenced *StatusFenced `json:"fenced,omitempty"` // when it was last proven off

	// CertificateUntil is when its certificate ends, as the node said; nil: unknown.
	CertificateUntil *time.Time `json:"certificate_until,omitempty"`

	Quarantine *time.Time   `json:"quarantined_until,omitempty"` // no group comes to it until then
	Links      []StatusLink `json:"links,omitempty"`             // its addresses on the cluster's links
}

// StatusLink is a node's place on one link.
type StatusLink struct {
	Link    string   `json:"link"`
	Address string   `json:"address"`        // "": it has none there
	Lost    []string `json:"lost,omitempty"` // names of nodes that it hears, but not there
}

// StatusGroup is one group.
type StatusGroup struct {
	Name      string           `json:"name"`
	State     string           `json:"state"`
	Owner     string           `json:"owner"`
	Epoch     uint64           `json:"epoch"`
	Since     time.Time        `json:"since"`
	Reason    string           `json:"reason,omitempty"`
	Resources []StatusResource `json:"resources"`
}

// StatusResource is one resource of a group.
type StatusResource struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	State  string `json:"state"`
	Reason string `json:"reason"`
}

// Event is one line of the event log.
type Event struct {
	FormatVersion string    `json:"format_version"`
	ID            uint64    `json:"id"`
	Time          time.Time `json:"time"`
	Node          string    `json:"node,omitempty"`
	Object        string    `json:"object,omitempty"`
	Kind          string    `json:"kind"`
	Text          string    `json:"text"`
	Cause         uint64    `json:"cause,omitempty"`
	Author        string    `json:"author,omitempty"`
}

// KVEntry is a key with its value.
type KVEntry struct {
	Key      string `json:"key"`
	Value    []byte `json:"value,omitempty"` // base64
	Revision uint64 `json:"revision"`        // of the update that wrote (or deleted) it
	Created  uint64 `json:"created,omitempty"`
	Deleted  bool   `json:"deleted,omitempty"` // of a watch
}

// KVList are entries in order of their keys, as of a revision.
type KVList struct {
	FormatVersion string    `json:"format_version"`
	Revision      uint64    `json:"revision"`
	Entries       []KVEntry `json:"entries"`
	More          bool      `json:"more"` // ask again with after: the last key
}

// KVDone answers a write: the key's new revision.
type KVDone struct {
	FormatVersion string `json:"format_version"`
	Revision      uint64 `json:"revision"`
}

// Owner says who runs a group. Here and Lease are the answering node's word on
// itself: it is the owner, and holds a lease at this moment.
type Owner struct {
	FormatVersion string    `json:"format_version"`
	Group         string    `json:"group"`
	Owner         string    `json:"owner"` // node name, "": nobody
	Epoch         uint64    `json:"epoch"`
	Since         time.Time `json:"since"`
	State         string    `json:"state"`
	Leaving       bool      `json:"leaving"` // its owner is to stop it
	Here          bool      `json:"here"`
	Lease         bool      `json:"lease"`
}

// CheckpointFile is one file of a checkpoint; its bytes are chunks, named by their
// sha256 (hex), each 256 KiB but for the last. A command's output has no path.
type CheckpointFile struct {
	Path   string   `json:"path,omitempty"`
	Mode   uint32   `json:"mode,omitempty"` // permission bits, with setuid, setgid and sticky
	UID    uint32   `json:"uid,omitempty"`
	GID    uint32   `json:"gid,omitempty"`
	Size   int64    `json:"size"`
	Chunks []string `json:"chunks,omitempty"`
}

// Checkpoint is what is kept of a resource. Epoch 0: nothing yet.
type Checkpoint struct {
	FormatVersion string           `json:"format_version"`
	Resource      string           `json:"resource"`
	Epoch         uint64           `json:"epoch"` // of the owner who made it, or restored it last
	Node          string           `json:"node"`  // name of that owner
	Revision      uint64           `json:"revision"`
	Time          time.Time        `json:"time"`
	Size          int64            `json:"size"`
	Files         []CheckpointFile `json:"files"`
}

// Checkpoints are those of a group.
type Checkpoints struct {
	FormatVersion string       `json:"format_version"`
	Checkpoints   []Checkpoint `json:"checkpoints"`
}

// CheckpointFiles replaces a checkpoint.
type CheckpointFiles struct {
	Files []CheckpointFile `json:"files"`
}

// CheckpointProblem says why a checkpoint can't be kept.
type CheckpointProblem struct {
	Text string `json:"text"`
}
