// Package core is the machine of one node: who is up, who may run what for how
// long (leases), what this node's groups and resources do, and, on the leader,
// who owns each group next. It is pure: no goroutine, clock, disk or socket;
// the same events give the same effects. Only Step and Frame change it.
//
// Files: core.go (the machine, its events and effects), lease.go (incarnation,
// authority, grants, leases: "never two owners"), leader.go (view, takeover), jitter.go (who counts as silent),
// manage.go (failover manager), owner.go (which groups this node runs),
// group.go (one group's resources), report.go (what the database is told of
// them), fence.go, freeze.go, watchdog.go, timings.go, device.go, kinds.go (closed lists). DESIGN.md says
// why it is safe, and what it promises.
//
// The core never talks to the database's driver: it asks for commands to be
// proposed (Propose) and is told what became of them (Proposed) and of the
// state (StateChanged). runtime/member does that wiring.
package core

import (
	"fmt"
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
)

// Config is what a machine is made from.
type Config struct {
	Node        string // own node id
	Name        string
	Server      uint64
	Incarnation uint64       // random at each start, never 0
	Sent        uint64       // the newest Seq of a machine before this one, of the same Incarnation; 0: there was none
	Timings     spec.Timings // until the database says otherwise
	Wall        time.Time    // the time of day now
	Location    func(name string) (*time.Location, error)
	// Freezer: an earlier agent had a monitor for groups that freeze, which may
	// have left something. One is started unasked then.
	Freezer bool
}

// Event is something that happened. The set is closed.
type Event interface{ event() }

type (
	// Agreement tells of a change in the driver's status.
	Agreement struct{ Status confdb.Status }
	// StateChanged hands the state after commands were applied. The core reads
	// it until the next StateChanged; no one changes it in between but by Apply
	// followed by a StateChanged before any other event.
	StateChanged struct{ State *confdb.State }
	// Proposed tells what became of a Propose: applied with this result, or
	// with Result.Code CodeLost: it will never be applied.
	Proposed struct {
		ID     string
		Result confdb.Result
	}
	// Heard is a frame, after the driver took its messages. Nothing of it is kept.
	Heard struct{ Frame *heartbeat.Frame }
	// Clock tells the time of day.
	Clock struct{ Wall time.Time }
	// MonitorUp and MonitorDown, ResourceChanged and GroupDown: see runtime/member.
	MonitorUp struct {
		Freezer    bool
		Watchdog   spec.Duration
		NoWatchdog string
	}
	MonitorDown struct{ Freezer bool }
	// ResourceChanged is the monitor's report on one resource.
	ResourceChanged struct {
		Group    string
		Epoch    uint64
		Resource string
		State    string
		Reason   string
		Stopping bool
	}
	// GroupDown is the monitor's answer to EndGroup: nothing of the group is left.
	GroupDown struct {
		Group string
		Epoch uint64
	}
	// FenceDone says how a StartFence ended: in this agent's life each has one.
	FenceDone struct {
		ID        uint64
		Cancelled bool   // before anything was done
		OK        bool   // every device of a level says that the node is off now
		By        string // the names of those devices
		Err       string // of all levels
		Uses      []confdb.FenceUse
	}
	// Shutdown stops and releases all groups for good; Drained follows.
	Shutdown struct{}
	// Tick says that NextDeadline has come.
	Tick struct{}
)

func (Agreement) event()       {}
func (StateChanged) event()    {}
func (Proposed) event()        {}
func (Heard) event()           {}
func (Clock) event()           {}
func (MonitorUp) event()       {}
func (MonitorDown) event()     {}
func (ResourceChanged) event() {}
func (GroupDown) event()       {}
func (FenceDone) event()       {}
func (Shutdown) event()        {}
func (Tick) event()            {}

// Effect is work for who runs the machine, in order. The set is closed. What
// is proposed stands applied in a StateChanged before anything starts by it.
type Effect interface{ effect() }

type (
	// Propose asks for a command to be committed. With Term not 0 it may only
	// go into the log by this node, as leader of that term, never later and
	// never through another; else it is tried until it is applied.
	Propose struct {
		Command confdb.Command
		Term    uint64
	}
	// Send asks for a frame to that server at once.
	Send struct{ Server uint64 }
	// Renew, StartResource, StopResource, EndGroup go to the monitor.
	Renew         struct{ End spec.Instant }
	StartResource struct {
		Group      string
		GroupName  string
		Epoch      uint64
		StopWithin spec.Duration
		Resource   spec.Resource
		Freezer    bool // for the monitor of groups that freeze; so below
	}
	// StopResource stops one resource gracefully.
	StopResource struct {
		Group    string
		Epoch    uint64
		Resource string
		Freezer  bool
	}
	// EndGroup makes sure that nothing is left; GroupDown follows.
	EndGroup struct {
		Group   string
		Epoch   uint64
		Freezer bool
	}
	// StartFreezer asks for the monitor of groups that freeze, from now on: one
	// may come to this node. It comes once, and not with Config.Freezer.
	StartFreezer struct{}
	// StartFence has a node turned off: level by level, until all devices of one
	// have done it and say, asked again, that it is off. FenceDone follows.
	StartFence struct {
		ID     uint64
		Node   string // id
		Name   string
		Levels [][]spec.Fence
	}
	// CancelFence ends a StartFence that has not acted yet; FenceDone follows.
	CancelFence struct{ ID uint64 }
	// Say is a line for the agent's log.
	Say struct {
		Level string
		Text  string
		Args  []any
	}
	// HandLead asks that another node lead, which can fence this one.
	HandLead struct{}
	// Drained says that Shutdown has done what it could.
	Drained struct{}
)

func (Propose) effect()       {}
func (Send) effect()          {}
func (Renew) effect()         {}
func (StartResource) effect() {}
func (StopResource) effect()  {}
func (EndGroup) effect()      {}
func (StartFreezer) effect()  {}
func (StartFence) effect()    {}
func (CancelFence) effect()   {}
func (Say) effect()           {}
func (HandLead) effect()      {}
func (Drained) effect()       {}

// CodeLost is the Result.Code of a proposal that will never be applied.
const CodeLost = "lost"

// Machine is one node's.
type Machine struct {
	cfg     Config
	now     spec.Instant
	start   spec.Instant
	wall    time.Time // time of day at wallAt
	wallAt  spec.Instant
	drv     confdb.Status
	state   *confdb.State
	ix      index
	timings spec.Timings
	limit   time.Duration // the timings' SuspicionLimit: every frame asks for it
	retimed retimed
	effects []Effect
	serial  uint64 // of command ids

	// Leases (lease.go).
	seq      uint64
	peers    map[uint64]*peer // by server id
	order    []uint64         // peers' server ids, sorted
	leaseEnd spec.Instant     // own lease; 0: never had one
	probed   []uint64         // servers that this node beats to, where the timings have probes
	probeAt  spec.Instant     // when the next beat or probe to one of them is due
	held     uint64           // own Seq that the newest lease was granted for
	monitor  bool             // it runs, holds the lock, has cleaned up; and a freezer has, if there was one
	freezer  freezer          // freeze.go

	watchdog   spec.Duration // time-out of the watchdog that the monitor has armed; 0: none
	noWatchdog string        // why it has not armed the one that it was to

	answered struct { // receipt of the newest leader's frame that this node answered
		term uint64
		at   spec.Instant // of this term
		old  spec.Instant // of any older one; a start counts as one
	}

	lead  *leadership // not nil: leader of drv.Term
	owner ownership

	closing    bool
	closingSeq uint64       // the last own Seq before that
	closedAt   spec.Instant // when all groups were down
	drained    bool
}

// New makes a machine that starts now. State may be nil.
func New(cfg Config, now spec.Instant, state *confdb.State) *Machine {
	if state == nil {
		state = confdb.NewState()
	}
	m := &Machine{cfg: cfg, seq: cfg.Sent, now: now, start: now, wall: cfg.Wall, wallAt: now, peers: map[uint64]*peer{}}
	m.answered.old = now
	m.owner.runs, m.owner.reports = map[string]*run{}, map[string]*run{}
	m.setState(state)
	m.reconcile()
	return m
}

// Sent is the Seq of its newest frame.
func (m *Machine) Sent() uint64 { return m.seq }

// Step takes an event and returns what is to be done. The slice is valid
// until the next Step.
func (m *Machine) Step(now spec.Instant, ev Event) []Effect {
	m.advance(now)
	m.effects = m.effects[:0]
	switch ev := ev.(type) {
	case Agreement:
		m.agreement(ev.Status)
	case StateChanged:
		m.setState(ev.State)
		m.reconcile()
	case Proposed:
		m.proposed(ev)
	case Heard:
		m.heard(ev.Frame)
	case Clock:
		m.wall, m.wallAt = ev.Wall, m.now
		m.leadDirty() // what waits for a time of day looks again
	case MonitorUp:
		if !ev.Freezer {
			m.watchdog, m.noWatchdog = ev.Watchdog, ev.NoWatchdog
		}
		m.monitorUp(ev.Freezer)
	case MonitorDown:
		m.monitorDown(ev.Freezer)
	case ResourceChanged:
		m.resourceChanged(ev)
	case GroupDown:
		m.groupDown(ev)
	case FenceDone:
		m.fenceDone(ev)
	case Shutdown:
		m.closing, m.closingSeq = true, m.seq
		if m.lead == nil && m.drv.Leader != 0 {
			m.emit(Send{m.drv.Leader}) // who leads need not wait for the next frame to hear of it
		}
		m.wakeGroups()
		m.leadDirty()
	}
	m.settle()
	return m.effects
}

// settle does what is due now, whatever the event was.
func (m *Machine) settle() {
	m.checkLease()
	m.stepProbes()
	if m.lead != nil {
		m.leadStep()
	}
	m.askFreezer()
	m.stepGroups()
	m.confirmTimings()
	m.checkDrained()
}

// NextDeadline is when Step wants a Tick; 0: not at all.
func (m *Machine) NextDeadline() spec.Instant {
	next := m.owner.deadline
	earliest(&next, m.leaseDeadline())
	earliest(&next, m.probeAt)
	if m.lead != nil {
		earliest(&next, m.lead.deadline)
	}
	if m.closing && !m.drained && m.closedAt != 0 {
		earliest(&next, m.closedAt.Add(drainPatience))
	}
	return next
}

// earliest lowers *t to u; 0 is never.
func earliest(t *spec.Instant, u spec.Instant) {
	if u != 0 && (*t == 0 || u < *t) {
		*t = u
	}
}

func (m *Machine) setState(s *confdb.State) {
	m.state = s
	t := s.Cluster.Timings()
	if s.Cluster.ID == "" {
		t = m.cfg.Timings.WithDefaults()
	}
	m.retime(t)
	m.reindex()
	m.choosePeers()
	if m.lead != nil {
		m.lead.leases = nil
	}
	m.leadDirty()
}

// wallNow is the time of day, for people, windows and periods.
func (m *Machine) wallNow() time.Time { return m.wall.Add(m.now.Sub(m.wallAt)).UTC() }

// WallNow is the time of day as the machine takes it, for commands.
func (m *Machine) WallNow() time.Time { return m.wallNow() }

func (m *Machine) emit(e Effect) { m.effects = append(m.effects, e) }

func (m *Machine) say(level, text string, args ...any) { m.emit(Say{level, text, args}) }

// command fills in what every command has.
func (m *Machine) command(c confdb.Command) confdb.Command {
	m.serial++
	c.ID = fmt.Sprintf("%s-%x-%d", m.cfg.Node, m.cfg.Incarnation, m.serial)
	c.Time = m.wallNow()
	return c
}

// newestEvent is the id of the newest event of that kind about a node or an
// object, 0 if there is none: what a consequence follows from.
func (m *Machine) newestEvent(match func(e *confdb.Event) bool) uint64 {
	for i := range slices.Backward(m.state.Events) {
		if match(&m.state.Events[i]) {
			return m.state.Events[i].ID
		}
	}
	return 0
}

// Timings are those in force.
func (m *Machine) Timings() spec.Timings { return m.timings }

// LeaseEnd is when the own lease ends (0: there was none).
func (m *Machine) LeaseEnd() spec.Instant { return m.leaseEnd }

// Authority is the term that this node leads, and the moment that what it
// grants now rests on (0: none yet, or it doesn't lead).
func (m *Machine) Authority() (term uint64, at spec.Instant) {
	if m.lead == nil {
		return 0, 0
	}
	return m.lead.term, m.authority()
}

// MonitorUp tells whether the monitor runs and has cleaned up.
func (m *Machine) MonitorUp() bool { return m.monitor }

// Quorum tells whether a majority stands behind this node: a leader knows from
// answers, others from a lease that is not over.
func (m *Machine) Quorum() bool {
	if m.lead != nil {
		a := m.authority()
		return a != 0 && m.now.Sub(a) < m.timings.Lease.D()
	}
	return m.leaseEnd > m.now
}

// StopBound is how long what runs here may take to stop in order.
func (m *Machine) StopBound() time.Duration {
	longest := time.Duration(0)
	for _, r := range m.owner.runs {
		if r.phase != phaseDown {
			longest = max(longest, r.stopBound)
		}
	}
	return longest
}

// UpNodes are the ids of the nodes that this node holds for up, sorted.
func (m *Machine) UpNodes() []string {
	if m.lead != nil {
		return m.upNodes()
	}
	return slices.Clone(m.state.View.Up)
}

const drainPatience = 1500 * time.Millisecond

// checkDrained ends a shutdown: the groups are down, others have them, and who
// leads knows that the node takes its leave; or there was time for that.
func (m *Machine) checkDrained() {
	if !m.closing || m.drained {
		return
	}
	for _, r := range m.owner.runs {
		if r.phase != phaseDown && m.hosted(r) { // without a monitor nothing is left
			return
		}
	}
	if m.closedAt == 0 {
		m.closedAt = m.now
	}
	mine, others := false, false
	for _, g := range m.state.Groups {
		mine = mine || g.Owner.Node == m.cfg.Node
	}
	for _, id := range m.state.View.Up {
		others = others || id != m.cfg.Node
	}
	if !mine && m.leaveKnown() || !others || m.now.Sub(m.closedAt) >= drainPatience {
		m.drained = true
		m.emit(Drained{})
	}
}

// leaveKnown tells whether nobody will take this node's end for a loss: who leads
// has answered a frame that says so, and the view is without it.
func (m *Machine) leaveKnown() bool {
	if m.drv.Leader == 0 {
		return true // nobody is there to tell
	}
	if p := m.peers[m.drv.Leader]; m.lead == nil && (p == nil || p.echo <= m.closingSeq) {
		return false
	}
	return !slices.Contains(m.state.View.Up, m.cfg.Node)
}
