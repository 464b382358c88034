package confdb

import (
	"github.com/clusterplan/clusterplan/lang/spec"
)

// Role of this node in the agreement.
type Role int

const (
	Follower Role = iota
	Candidate
	Leader
	Outside // no member (yet): waits to be bootstrapped or joined
)

// Status is what a driver knows of the agreement now.
type Status struct {
	Self     uint64 // server id
	Term     uint64
	Role     Role
	Leader   uint64   // server id, 0: unknown
	Voters   []uint64 // latest configuration (both halves of a joint one), sorted
	Learners []uint64
	Needed   int             // q: voters that make a quorum
	Ready    bool            // leader only: an entry of its own term is applied
	Applied  uint64          // index
	Commit   uint64          // index
	CaughtUp map[uint64]bool // leader only: server ids whose log is within a round of the leader's
}

// Message is one driver's word to another, opaque to who carries it.
type Message struct {
	To      uint64 // server id
	From    uint64
	InFrame bool // goes in UDP frames (heartbeats, votes and their answers); else over TLS, in order
	Data    []byte
}

// Ready is work that a driver wants done, in this order: what is to persist is
// durable before any of Messages leaves and before Advance is called;
// Committed is applied after. (Raft's Ready, without Raft's types.)
type Ready struct {
	Persist       Persist
	Messages      []Message // after Persist is durable
	Committed     []Entry   // to apply, in order
	Snapshot      []byte    // not nil: replace the State by this before Committed (State's JSON)
	SnapshotIndex uint64
}

// Persist is what a store has to make durable, in one synced write.
type Persist struct {
	HardState []byte     // nil: unchanged
	Entries   []LogEntry // truncates what the log holds from the first one's index on
	Snapshot  []byte     // metadata and state; nil: none. Replaces the log up to its index
	Empty     bool       // nothing to write: no sync needed
}

// LogEntry is an entry of the log as the store keeps it.
type LogEntry struct {
	Index uint64
	Term  uint64
	Data  []byte // the driver's own encoding
}

// Entry is a committed entry. Command is nil for the driver's own entries
// (a new term's first, a change of membership).
type Entry struct {
	Index   uint64
	Term    uint64
	Command []byte
}

// Driver agrees with the other nodes' drivers on an order of commands. It is a
// pure machine like core.Machine: no goroutine, clock or disk; its owner calls
// it from one loop, does what Ready says, then calls Advance. Errors of
// Propose: ErrNoLeader; ErrOutside. A proposal may be lost without a word: who
// sent it waits for its command id to be applied, and sends it again.
type Driver interface {
	Status() Status
	// Propose adds a command, or sends it to the leader.
	Propose(command []byte) error
	// Step takes a message that came in.
	Step(now spec.Instant, m Message)
	// Beat makes a leader's heartbeats, one for each other member, as Messages
	// of the next Ready. The owner calls it once an interval.
	Beat(now spec.Instant)
	// Tick lets what is due at now happen: suspicion, campaigns. Deadline is
	// when it wants to be called next (0: not at all).
	Tick(now spec.Instant)
	Deadline() spec.Instant
	// Bootstrap makes this node the only voter of a new cluster.
	Bootstrap() error
	// AddLearner, Promote and Remove change the membership, one at a time;
	// ErrBusy while a change is under way. They go to the leader only: ErrNotLeader.
	AddLearner(server uint64) error
	Promote(server uint64) error
	Remove(server uint64) error
	// Transfer hands leadership over, if to is a voter that is caught up.
	Transfer(to uint64) error
	// Ready says what is to be done now; ok is false when there is nothing.
	// One Ready is finished (Advance) before the next is asked for.
	Ready() (r Ready, ok bool)
	Advance(r Ready)
	// Compact lets the log before index go; state is the State's JSON at index.
	Compact(index uint64, state []byte) (Persist, error)
}
