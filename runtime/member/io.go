// Package member is one node's decisions, whole and pure: the core
// (runtime/core), the database's driver and state (runtime/confdb), and the
// frames (runtime/heartbeat's codec) wired into one machine.
//
//	outputs := m.Step(now, input)
//
// runtime/agent runs it over real sockets, disks and a monitor process;
// runtime/sim runs hundreds of it from one seed. So what the simulation proves
// is what the agent does. There is no goroutine, clock, socket or disk in here.
//
// The order of outputs is a promise that their reader keeps: they are carried
// out one after the other, and what follows a Persist waits until it is
// durable (Persisted says so). Lease renewals and frames never stand behind
// a Persist.
package member

import (
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
)

// Input is what happened. The set is closed.
type Input interface{ input() }

// FrameIn is a frame that came in, authenticated and not a replay. SentBy is
// the frame's From; From is where answers go (host:port). Nothing of it is kept:
// who has many to hand in does so by pointer, each in the memory of an older one.
type FrameIn struct {
	From  string
	Frame heartbeat.Frame
}

// MessageIn is a driver's message that came over TLS.
type MessageIn struct{ Message confdb.Message }

// Persisted says that the Persist with this number is durable.
type Persisted struct{ N uint64 }

// PersistFailed says that it could not be written; Err is for people.
type PersistFailed struct {
	N   uint64
	Err string
}

// DeviceDone tells what became of a DeviceIO.
type DeviceDone struct{ Result confdb.DeviceResult }

// Submit asks for a command to be committed. Reply with the same Token follows
// once its id is applied, or when that can't be known (Code "unknown").
type Submit struct {
	Token   uint64
	Command confdb.Command
}

// Membership asks for a change of membership (from the API). Reply follows.
type Membership struct {
	Token    uint64
	Op       string // bootstrap | add_learner | promote | remove | transfer
	Server   uint64
	Endpoint string // add_learner: where that server is
}

// MonitorUp says that this node's monitor runs, holds the node's lock, and has
// cleaned up what an earlier one left; with Freezer: the one for groups that
// freeze, which has a lock and leavings of its own. The node's tells also whether
// it has armed the node's watchdog.
type MonitorUp struct {
	Freezer    bool
	Watchdog   spec.Duration // the time-out of the armed one; 0: none
	NoWatchdog string        // why the one that the node is to have isn't armed, and what to do
}

// MonitorDown says that the monitor process is gone (and with it all that it
// hosted, which the kernel and the guardians saw to).
type MonitorDown struct{ Freezer bool }

// ResourceChanged is the monitor's report on one resource.
type ResourceChanged struct {
	Group    string // id
	Epoch    uint64
	Resource string
	State    string // spec.StateOnline, StateOffline, StateFailed, StateOnlinePending, StateOfflinePending (why its stop has failed)
	Reason   string
	// Stopping, of StateFailed: what is left of it is being stopped. StateOffline
	// follows when nothing is; without it nothing is left.
	Stopping bool
}

// GroupDown is the monitor's answer to EndGroup, and proof that nothing of the
// group under this epoch (or an older one) is left on this host: what a release
// rests on. It comes once for each EndGroup, and never by itself.
type GroupDown struct {
	Group string
	Epoch uint64
}

// FenceDone says how a StartFence ended; each has one, in this agent's life.
type FenceDone struct {
	ID        uint64
	Cancelled bool // before anything was done
	OK        bool // every device of a level says, asked again, that the node is off
	By        string
	Err       string // without secrets
	Uses      []confdb.FenceUse
}

// Links are this node's addresses on the cluster's links, and whom it doesn't
// hear there: all of them, by name. The member tells the database.
type Links struct{ Links []confdb.NodeLink }

// Shutdown asks the node to stop its groups, release them, hand leadership
// over and end; Stopped follows.
type Shutdown struct{}

// Clock tells the time of day, once in a while (a minute is often enough) and
// when it was set: for people, failback windows and the failover period; it
// never decides a lease.
type Clock struct{ Wall time.Time }

// Tick says that NextDeadline has come.
type Tick struct{}

func (FrameIn) input()         {}
func (MessageIn) input()       {}
func (Persisted) input()       {}
func (PersistFailed) input()   {}
func (DeviceDone) input()      {}
func (Submit) input()          {}
func (Membership) input()      {}
func (MonitorUp) input()       {}
func (MonitorDown) input()     {}
func (ResourceChanged) input() {}
func (GroupDown) input()       {}
func (FenceDone) input()       {}
func (Links) input()           {}
func (Shutdown) input()        {}
func (Clock) input()           {}
func (Tick) input()            {}

// Output is work for the shell. The set is closed.
type Output interface{ output() }

// SendFrame sends a frame to host:port, now, and the same one to Also, the
// peer's addresses on other links. It comes as a pointer, and like its Frame, and
// what that holds, it is valid until the next Step.
type SendFrame struct {
	To    string
	Also  []string
	Frame heartbeat.Frame
}

// SendMessage sends a driver's message over TLS to host:port, in order; it may be lost.
type SendMessage struct {
	To      string
	Message confdb.Message
}

// Persist writes to the store and syncs; Persisted{N} or PersistFailed{N} follows.
type Persist struct {
	N    uint64
	What confdb.Persist
}

// Grown says that this node's database is a majority's now, and no single
// node's any more. It is durable; others may join from here on.
type Grown struct{}

// DeviceIO reads or writes the quorum device, beside all else; DeviceDone
// follows, if ever: what hangs hangs alone.
type DeviceIO struct{ Op confdb.DeviceOp }

// Renew passes a lease to the monitor. It ends at End on this host's boot
// clock; groups without a newer one are stopped then.
type Renew struct{ End spec.Instant }

// StartResource has the monitor start a resource (or start it again). The
// monitor refuses an epoch older than it has seen for the group.
type StartResource struct {
	Group      string // id
	GroupName  string
	Epoch      uint64
	StopWithin spec.Duration
	Resource   spec.Resource
	Freezer    bool // for the monitor of groups that freeze, not the node's; so below
}

// StopResource has the monitor stop one; ResourceChanged follows.
type StopResource struct {
	Group    string
	Epoch    uint64
	Resource string
	Freezer  bool
}

// EndGroup has the monitor make sure that nothing of the group is left;
// GroupDown follows.
type EndGroup struct {
	Group   string
	Epoch   uint64
	Freezer bool
}

// StartFreezer asks for the monitor of groups that freeze, from now on. It comes
// once, and not with Config.Freezer.
type StartFreezer struct{}

// StartFence has a node turned off (runtime/fence); FenceDone follows. It runs
// beside the loop: an agent may take a minute.
type StartFence struct {
	ID     uint64
	Node   string // id
	Name   string
	Levels [][]spec.Fence // tried in order; all devices of one have to succeed
}

// CancelFence ends a StartFence that has not acted yet.
type CancelFence struct{ ID uint64 }

// Reply answers a Submit or Membership.
type Reply struct {
	Token  uint64
	Result confdb.Result // Code also: "no_leader", "not_leader" (Detail: the leader's node id), "busy", "unknown"
}

// Applied says that the state moved on, for watchers; Events are the new ones.
type Applied struct {
	Revision uint64
	Events   []confdb.Event
}

// SetKeys says that the frame keys have changed: frames of this Step and later
// ones are sealed by the new ring. A member starts with those of its State.
type SetKeys struct{ Ring *confdb.Keyring }

// Log is a line for the agent's own log.
type Log struct {
	Level string // info | warn | error
	Text  string
	Args  []any // slog's key, value, ...
}

// Stopped says that Shutdown is done.
type Stopped struct{}

func (*SendFrame) output()    {}
func (SendMessage) output()   {}
func (Persist) output()       {}
func (DeviceIO) output()      {}
func (Renew) output()         {}
func (StartResource) output() {}
func (StopResource) output()  {}
func (EndGroup) output()      {}
func (StartFreezer) output()  {}
func (StartFence) output()    {}
func (CancelFence) output()   {}
func (Reply) output()         {}
func (Applied) output()       {}
func (Log) output()           {}
func (SetKeys) output()       {}
func (Grown) output()         {}
func (Stopped) output()       {}

// Config is what a member is made from.
type Config struct {
	ClusterID   string
	NodeID      string
	NodeName    string
	Endpoint    string // own host:port
	Version     string
	ServerID    uint64
	Incarnation uint64       // random at each start of the agent
	Sent        uint64       // Sent of the member before it in the same life of the agent
	Seed        uint64       // of the node's own jitter
	Timings     spec.Timings // until the database says otherwise
	Wall        time.Time    // the time of day at New's now
	// Location finds a time zone for failback windows; nil: all are UTC.
	Location   func(name string) (*time.Location, error)
	Driver     confdb.Driver
	State      *confdb.State // restored from the store; nil: empty
	StateIndex uint64        // log index that State stands at
	// Majority is asked of a single node, once the State says that the cluster
	// is a majority's: what its store is to hold then, at index, where an entry of
	// term stands, and the driver that goes on over that (raftdb.Grow). Without
	// it the database stays what it is.
	Majority func(now spec.Instant, term, index uint64, state []byte) (confdb.Driver, confdb.Persist, error)
	// Freezer: an earlier agent of the node had a monitor for groups that freeze.
	// Nothing is run, released or granted before one is up again.
	Freezer bool
}

// The machine itself: New(cfg Config, now spec.Instant) *Member;
// (*Member) Step(now spec.Instant, in Input) []Output; NextDeadline() spec.Instant;
// State() *confdb.State (read-only, until the next Step); Status() Status.

// Status is what the member knows, for the API and for tests.
type Status struct {
	Driver     confdb.Status
	CaughtUp   map[uint64]bool // as confdb.Driver's
	LeaderNode string          // node id, "": unknown
	LeaseEnd   spec.Instant    // 0: none
	MonitorUp  bool
	Without    spec.Instant  // since when there is no Quorum; 0: there is
	Quorum     bool          // a majority of the votes answers: known by the leader from frames, by others from a fresh lease
	UpNodes    []string      // node ids that this node holds for up
	StopBound  time.Duration // how long what runs here may take to stop in order
}
