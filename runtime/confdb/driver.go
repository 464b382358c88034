package confdb

import (
	"errors"
	"time"

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
	Needed   int    // q: voters that make a quorum
	Ready    bool   // leader only: an entry of its own term is applied
	Applied  uint64 // index
	Commit   uint64 // index
	// Unsaved: Term is not on disk yet. After a crash now this server would be back
	// in an older one, and hear an older leader.
	Unsaved bool

	// With a quorum device (DeviceDriver) no votes are counted: a leader's
	// authority is Authority (0: none) until AuthorityUntil, and no older
	// leader's began after OldLeases. DeviceProblem says why the device can't
	// be used now ("": it can), BootRefused why a Bootstrap came to nothing ("":
	// none was asked for, it is under way, or done).
	ByDevice       bool
	Device         string // its path
	Former         bool   // it was a member in an earlier life, and knows of what only once it has read it
	Authority      spec.Instant
	AuthorityUntil spec.Instant
	OldLeases      spec.Instant
	DeviceProblem  string
	BootRefused    string

	// Single: nobody else can take part, and none is asked (model single_node).
	Single bool

	// Older: this server's log lacks entries that it acknowledged once (its data
	// directory was put back to an older state). It takes no part any more.
	Older bool

	// Starting: this server has just started from its log, and asks the others
	// whether that is as they know it. Until then it takes no part, and Term and
	// Leader are 0. It wants to know of whoever sends a frame: Step gets an empty
	// message for one without any.
	Starting bool

	// SnapshotWanted: a member needs the state rather than the log. The owner
	// calls Compact with the State that it has applied last.
	SnapshotWanted bool
}

// Settings are what an owner tells its driver of the definition, at the start
// and whenever it changes.
type Settings struct {
	Suspicion time.Duration // silence after which a follower campaigns
	RankDelay time.Duration // between the campaigns of two ranks
	Round     time.Duration // a frame and its answer take no longer; default a fifth of Suspicion
	Witnesses []uint64      // server ids that lead only if none else can
	DeviceIO  time.Duration // single_quorum: how long an operation of the device may take
}

// Errors of drivers.
var (
	ErrNoLeader    = errors.New("no leader is known now; wait for an election and try again")
	ErrOutside     = errors.New("this node is no member of a cluster yet; bootstrap it or join it to one")
	ErrNotLeader   = errors.New("this node is not the leader; ask the leader")
	ErrBusy        = errors.New("a change of membership is under way; try again when it is done")
	ErrNotCaughtUp = errors.New("that server's log is behind, or it doesn't answer; wait until it has caught up")
	ErrUnknown     = errors.New("no such server in the cluster")
	ErrLastVoter   = errors.New("the last voter can't be removed; destroy the cluster instead")
	ErrBootstrap   = errors.New("this node belongs to a cluster already; empty its data directory to make a new one")
	ErrSingleNode  = errors.New("a cluster of model single_node has one member; set quorum.model to majority_node_set first")
	ErrDamaged     = errors.New("the stored log is damaged")
)

// Message is one driver's word to another, opaque to who carries it.
type Message struct {
	To      uint64 // server id
	From    uint64
	InFrame bool // goes in UDP frames (heartbeats, votes and their answers); else over TLS, in order
	Data    []byte
}

// Ready is work that a driver wants done, in this order: what is to persist is
// durable before any of Messages leaves and before Advance is called;
// Committed is applied after. (Raft's Ready, without Raft's types.) Messages
// that need not wait for the disk are not in here: see Driver.Now.
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
	Snapshot  []byte     // metadata and state, the driver's own encoding; nil: none
	Empty     bool       // nothing to write: no sync needed

	// SnapshotIndex is the index of Snapshot. The log up to it goes; what
	// follows it stays with KeepTail (a compaction of the own log), else the
	// whole log goes (the leader's state replaces it). Entries come after.
	SnapshotIndex uint64
	KeepTail      bool

	// Grows: it makes a single node's database a majority's. Who writes it makes
	// sure first that no older copy of the store serves alone any more.
	Grows bool
}

// Stored is all that a store holds; what a driver starts from.
type Stored struct {
	HardState     []byte
	Snapshot      []byte
	SnapshotIndex uint64
	Entries       []LogEntry // in order, without gaps
}

// Write does to s what a store does on disk: the meaning of Persist. The
// simulation and the tests of stores use it.
func (s *Stored) Write(p Persist) {
	if p.HardState != nil {
		s.HardState = p.HardState
	}
	if p.Snapshot != nil {
		s.Snapshot, s.SnapshotIndex = p.Snapshot, p.SnapshotIndex
		var tail []LogEntry
		for _, e := range s.Entries {
			if p.KeepTail && e.Index > p.SnapshotIndex {
				tail = append(tail, e)
			}
		}
		s.Entries = tail
	}
	if len(p.Entries) == 0 {
		return
	}
	kept := s.Entries
	for i, e := range kept {
		if e.Index >= p.Entries[0].Index {
			kept = kept[:i]
			break
		}
	}
	s.Entries = append(kept[:len(kept):len(kept)], p.Entries...)
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
// it from one loop, does what Ready says, then calls Advance. After every call
// the owner sends what Now has, and asks for Ready unless one is under way.
// Errors of Propose: ErrNoLeader; ErrOutside. A proposal may be lost without a
// word: who sent it waits for its command id to be applied, and sends it again.
type Driver interface {
	// Status is cheap; its slices are valid until the next call.
	Status() Status
	// CaughtUp are, on a leader, the server ids whose log is within a round of
	// the leader's and who answered lately; elsewhere there are none. The map
	// is the caller's.
	CaughtUp() map[uint64]bool
	// Configure may be called at any time; zero fields mean the defaults.
	Configure(Settings)
	// Propose adds a command, or sends it to the leader.
	Propose(command []byte) error
	// Step takes a message that came in.
	Step(now spec.Instant, m Message)
	// Beat makes a leader's heartbeats, one for each other member, for Now. The
	// owner calls it once an interval.
	Beat(now spec.Instant)
	// Tick lets what is due at now happen: suspicion, campaigns. Deadline is
	// when it wants to be called next (0: not at all).
	Tick(now spec.Instant)
	Deadline() spec.Instant
	// Bootstrap makes this node the only voter of a new cluster.
	Bootstrap() error
	// AddLearner, Promote and Remove change the membership, one at a time;
	// ErrBusy while a change is under way. They go to the leader only:
	// ErrNotLeader. What is so already is no error. Status shows when it is done.
	// AddLearner of a voter takes its vote.
	AddLearner(server uint64) error
	Promote(server uint64) error
	Remove(server uint64) error
	// Transfer hands leadership over, if to is a voter that is caught up.
	Transfer(to uint64) error
	// Now takes the messages that may leave at once, whatever is under way on
	// disk: heartbeats and their answers, appends, proposals on their way to
	// the leader. Heartbeats never wait for a disk. The slice is valid until the
	// next Now; what the messages hold stays.
	Now() []Message
	// Ready says what is to be done now; ok is false when there is nothing.
	// One Ready is finished (Advance) before the next is asked for.
	Ready() (r Ready, ok bool)
	Advance(r Ready)
	// Compact lets the log up to index go; index is applied, and state is the
	// State's JSON at index. The owner writes the Persist as any other (in
	// order); nothing waits for it.
	Compact(index uint64, state []byte) (Persist, error)
}
