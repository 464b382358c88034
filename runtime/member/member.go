package member

import (
	"cmp"
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/core"
)

// Member is one node's machine. One goroutine calls it.
type Member struct {
	cfg    Config
	drv    confdb.Driver
	core   *core.Machine
	state  *confdb.State
	index  uint64 // log index that state stands at
	now    spec.Instant
	out    []Output
	status confdb.Status // as the core saw it last

	// Persistence: one Ready at a time; a Compact may be under way beside it.
	persists   uint64
	ready      *confdb.Ready
	readyN     uint64
	durable    *confdb.Ready // ready, once it is
	pumping    bool
	again      bool
	sinceCount int // entries and bytes applied since the log was compacted
	sinceBytes int
	snapBytes  int  // of the newest snapshot that was made here
	broken     bool // a write failed: nothing more is promised to anyone
	grow       growth

	// Frames.
	nextBeat   spec.Instant // 0: no leader
	queue      map[uint64][][]byte
	pulse      map[uint64][]byte // the driver's newest heartbeat for each server, where beats are core's
	beating    bool              // it is being made
	sendNow    []uint64          // who gets one with this Step
	frames     []*SendFrame
	framesUsed int               // of frames, in this Step
	endpoints  map[uint64]string // by the state
	learned    map[uint64]string // from frames and joins, where the state knows none
	nodeOf     map[uint64]string // server id -> node id, by the state

	proposals map[string]*proposal
	ids       []string // of proposals, in order of their making
	ownIDs    map[string]bool
	changes   []change        // of membership, under way
	joining   map[string]bool // nodes with a NodeJoined under way
	retryAt   spec.Instant    // of the earliest proposal or change
	serial    uint64
	settings  confdb.Settings

	ownLinks   []confdb.NodeLink
	linksKnown bool
	linksID    string              // of the TellLinks under way
	paths      map[uint64][]string // other addresses of servers, beside endpoints

	ring uint64 // Since of the frame keys as told

	unjoined bool // the state has nodes that have not joined

	deviceLostAt spec.Instant  // the quorum device is lost since; with DeviceProblem
	deviceLost   time.Duration // how long it was, until it is told in an event

	closing, drained, stopped bool
	transferring              bool
	handLead                  bool // another node is to lead
	drainedAt                 spec.Instant
}

// How often the log is compacted; by bytes, no sooner than it is as large as the
// snapshot before, or than compactMost: updates wait while that is written.
const (
	compactEntries = 5000
	compactBytes   = 4 << 20
	compactMost    = 16 << 20
)

// New makes a member that starts now. It panics if the state can't be encoded
// by this program: the store has checked that.
func New(cfg Config, now spec.Instant) *Member {
	m := &Member{
		cfg: cfg, drv: cfg.Driver, state: cfg.State, index: cfg.StateIndex, now: now,
		queue: map[uint64][][]byte{}, pulse: map[uint64][]byte{}, endpoints: map[uint64]string{}, learned: map[uint64]string{},
		nodeOf: map[uint64]string{}, proposals: map[string]*proposal{}, ownIDs: map[string]bool{}, joining: map[string]bool{},
	}
	if m.state == nil {
		m.state = confdb.NewState()
	}
	m.core = core.New(core.Config{
		Node: cfg.NodeID, Name: cfg.NodeName, Server: cfg.ServerID, Incarnation: cfg.Incarnation, Sent: cfg.Sent,
		Timings: cfg.Timings, Wall: cfg.Wall, Location: cfg.Location, Freezer: cfg.Freezer,
	}, now, m.state)
	m.stateIndexed()
	if m.state.Keys != nil {
		m.ring = m.state.Keys.Since
	}
	return m
}

// tellKeys hands changed frame keys out, before the frames that say that the
// change is applied.
func (m *Member) tellKeys() {
	if k := m.state.Keys; k != nil && k.Since != m.ring {
		m.ring = k.Since
		m.emit(SetKeys{Ring: k})
	}
}

// Step takes an input and returns what is to be done, in order. The slice is
// valid until the next Step.
func (m *Member) Step(now spec.Instant, in Input) []Output {
	if now > m.now {
		m.now = now
	}
	clear(m.out)
	m.out, m.framesUsed = m.out[:0], 0
	answer := uint64(0)
	switch in := in.(type) {
	case *FrameIn:
		answer = m.frameIn(in)
	case FrameIn:
		answer = m.frameIn(&in)
	case MessageIn:
		m.drv.Step(m.now, in.Message)
		m.pump()
	case Persisted:
		if m.ready != nil && in.N == m.readyN {
			m.durable = m.ready
			m.pump()
		}
		if m.grow.next != nil && in.N == m.grow.n {
			m.grown()
		}
	case DeviceDone:
		m.deviceDone(in.Result)
	case PersistFailed:
		if !m.broken {
			m.broken = true
			m.log("error", "the store can't be written: this node stops its groups and leaves the agreement to others", "err", in.Err)
			m.shutdown()
		}
	case Submit:
		m.submit(in)
	case Membership:
		m.membership(in)
	case MonitorUp:
		m.coreStep(core.MonitorUp(in))
	case MonitorDown:
		m.coreStep(core.MonitorDown(in))
	case ResourceChanged:
		m.coreStep(core.ResourceChanged(in))
	case GroupDown:
		m.coreStep(core.GroupDown(in))
	case FenceDone:
		m.coreStep(core.FenceDone(in))
	case Tick:
		m.pump() // a driver that starts over a store has work before anything comes in
	case Clock:
		m.coreStep(core.Clock{Wall: in.Wall})
	case Links:
		m.ownLinks, m.linksKnown = in.Links, true
	case Shutdown:
		m.shutdown()
	}
	if m.drv.Status().Older {
		m.fail("this node's data directory is older than what the node has promised since (was it restored from a backup?): it takes no part any more; empty it, then join the node again", nil)
	}
	m.due()
	m.flush(answer)
	return m.out
}

// due does what time has come for.
func (m *Member) due() {
	if d := m.drv.Deadline(); d != 0 && m.now >= d && !m.broken {
		m.drv.Tick(m.now)
		m.pump()
	}
	if m.nextBeat != 0 {
		if soon := m.now.Add(m.core.Pace()); m.nextBeat > soon {
			m.nextBeat = soon // the settings let it wait less
		}
		if m.now >= m.nextBeat {
			m.beat()
		}
	}
	if d := m.core.NextDeadline(); d != 0 && m.now >= d {
		m.coreStep(core.Tick{})
	}
	m.memberNodes()
	m.tellLinks()
	if m.retryAt != 0 && m.now >= m.retryAt {
		m.retry()
	}
	if m.handLead {
		m.handLead = false
		m.handOver()
	}
	m.stopWhenDone()
}

// NextDeadline is when Step wants a Tick; 0: not at all.
func (m *Member) NextDeadline() spec.Instant {
	var next spec.Instant
	driver := m.drv.Deadline()
	if m.broken {
		driver = 0 // it is not called any more
	}
	for _, d := range [...]spec.Instant{driver, m.core.NextDeadline(), m.nextBeat, m.retryAt} {
		if d != 0 && (next == 0 || d < next) {
			next = d
		}
	}
	if m.drained && !m.stopped {
		if d := m.drainedAt.Add(transferPatience); next == 0 || d < next {
			next = d
		}
	}
	return next
}

// State is the state as applied; read-only, and until the next Step.
func (m *Member) State() *confdb.State { return m.state }

// FenceCovers tells whether others may wait for this node's being turned off, as the
// state says, and whether that is known, or the state may be an old one.
func (m *Member) FenceCovers() (covers, known bool) { return m.core.FenceCovers() }

// Status is what the member knows now.
func (m *Member) Status() Status {
	return Status{
		Driver: m.drv.Status(), CaughtUp: m.drv.CaughtUp(), LeaderNode: m.nodeOf[m.drv.Status().Leader], LeaseEnd: m.core.LeaseEnd(),
		MonitorUp: m.core.MonitorUp(), Quorum: m.core.Quorum(), Without: m.core.WithoutQuorum(), UpNodes: m.core.UpNodes(), StopBound: m.core.StopBound(),
	}
}

// StopBound is how long what runs here may take to stop in order.
func (m *Member) StopBound() time.Duration { return m.core.StopBound() }

// Sent is the Seq of its newest frame.
func (m *Member) Sent() uint64 { return m.core.Sent() }

// Authority is the term that this node leads, and the moment that its grants
// rest on (core.Machine.Authority).
func (m *Member) Authority() (term uint64, at spec.Instant) { return m.core.Authority() }

func (m *Member) emit(o Output) { m.out = append(m.out, o) }

func (m *Member) log(level, text string, args ...any) {
	m.emit(Log{Level: level, Text: text, Args: args})
}

// pump carries out what the driver wants, until it wants nothing or waits for
// the disk. Called from within itself it only asks for another round.
func (m *Member) pump() {
	m.again = true
	if m.pumping {
		return
	}
	m.pumping = true
	for m.again {
		m.again = false
		m.routeNow()
		m.agree()
		if m.broken {
			continue
		}
		if r := m.durable; r != nil {
			m.durable, m.ready, m.again = nil, nil, true
			m.finish(r)
			continue
		}
		if m.ready != nil || m.grows() {
			continue
		}
		got, ok := m.drv.Ready()
		m.routeNow()
		if !ok {
			continue
		}
		r := got // on the heap only if there is one: this runs with every frame
		m.again = true
		if r.Persist.Empty {
			m.finish(&r)
			continue
		}
		m.persists++
		m.ready, m.readyN = &r, m.persists
		m.emit(Persist{N: m.persists, What: r.Persist})
	}
	m.pumping = false
	m.compact()
}

// routeNow sends what waits for nothing; every call to the driver may make some.
func (m *Member) routeNow() {
	for _, msg := range m.drv.Now() {
		m.route(msg)
	}
	m.deviceOps()
}

// agree tells the core when the agreement has changed, before anything else
// reaches it.
func (m *Member) agree() {
	s := m.drv.Status()
	was := m.status
	if s.Term == was.Term && s.Role == was.Role && s.Leader == was.Leader && s.Ready == was.Ready && s.Needed == was.Needed && s.Unsaved == was.Unsaved && s.Starting == was.Starting &&
		s.Authority == was.Authority && s.AuthorityUntil == was.AuthorityUntil && s.OldLeases == was.OldLeases && s.DeviceProblem == was.DeviceProblem &&
		slices.Equal(s.Voters, was.Voters) && slices.Equal(s.Learners, was.Learners) {
		return
	}
	s.Voters, s.Learners = slices.Clone(s.Voters), slices.Clone(s.Learners)
	m.status = s
	clear(m.pulse) // of another term, or for others
	if s.Role != confdb.Leader {
		m.nextBeat = 0
		for id := range m.ownIDs { // a leader's own, which the core has forgotten
			if m.proposals[id] == nil {
				delete(m.ownIDs, id)
			}
		}
	} else if was.Role != confdb.Leader || was.Term != s.Term {
		m.nextBeat = m.now // a new leader speaks at once
	}
	if s.Leader != was.Leader && s.Leader != 0 {
		m.retryAt = m.now // what waited for a leader goes to it
	}
	m.coreStep(core.Agreement{Status: s})
	m.deviceTold(was, s)
}

// finish does a Ready whose Persist is durable.
func (m *Member) finish(r *confdb.Ready) {
	for _, msg := range r.Messages {
		m.route(msg)
	}
	lastEvent, lastRevision := m.state.LastEvent(), m.state.Revision
	var own []core.Event
	if r.Snapshot != nil {
		s, err := confdb.Decode(r.Snapshot)
		if err != nil {
			m.fail("the leader's snapshot can't be read by this version of clusterplan: upgrade this node's agent", err)
			return
		}
		m.state, m.index = s, r.SnapshotIndex
		m.sinceCount, m.sinceBytes = 0, 0
		own = m.skippedBySnapshot(own)
	}
	for _, e := range r.Committed {
		m.index = e.Index
		m.sinceCount++
		m.sinceBytes += len(e.Command)
		if e.Command == nil {
			continue
		}
		c, err := confdb.DecodeCommand(e.Command)
		if err != nil {
			m.fail("a committed command can't be read by this version of clusterplan: upgrade this node's agent", err)
			return
		}
		own = m.applied(c.ID, m.state.Apply(c), own)
	}
	m.drv.Advance(*r)
	if r.Snapshot == nil && m.state.Revision == lastRevision {
		m.agree()
		return
	}
	m.stateIndexed()
	m.tellKeys()
	events := slices.Clone(m.state.EventsSince(lastEvent))
	m.emit(Applied{Revision: m.state.Revision, Events: events})
	m.coreStep(core.StateChanged{State: m.state})
	for _, ev := range own {
		m.coreStep(ev)
	}
	m.agree()
}

// fail stops a node that can't follow the others: it must not skip a command.
func (m *Member) fail(text string, err error) {
	if !m.broken {
		m.broken = true
		m.log("error", text, "err", err)
		m.shutdown()
	}
}

// stateIndexed takes over what the state says of members and settings.
func (m *Member) stateIndexed() {
	clear(m.endpoints)
	clear(m.nodeOf)
	t := m.core.Timings()
	next := confdb.Settings{Suspicion: t.Suspicion.D(), RankDelay: t.RankDelay.D()}
	if m.state.Cluster.ID != "" {
		t = m.state.Cluster.Timings()
		next.Suspicion, next.RankDelay, next.DeviceIO = t.Suspicion.D(), t.RankDelay.D(), t.DeviceIO.D()
	}
	next.Round = t.Round()
	m.unjoined = false
	for id, n := range m.state.Nodes {
		if !n.Joined {
			m.unjoined = true
		} else {
			delete(m.joining, id)
		}
		m.endpoints[n.ServerID], m.nodeOf[n.ServerID] = n.Endpoint, id
		if n.Spec.Witness() {
			next.Witnesses = append(next.Witnesses, n.ServerID)
		}
	}
	m.findPaths()
	slices.Sort(next.Witnesses)
	if next.Suspicion != m.settings.Suspicion || next.RankDelay != m.settings.RankDelay || next.Round != m.settings.Round || next.DeviceIO != m.settings.DeviceIO || !slices.Equal(next.Witnesses, m.settings.Witnesses) {
		m.settings = next
		m.drv.Configure(next)
	}
}

// compact lets the log go that the state stands for, once it is long.
func (m *Member) compact() {
	if m.index == 0 || m.grow.next != nil || m.sinceCount < compactEntries && m.sinceBytes < max(compactBytes, min(m.snapBytes, compactMost)) && !m.drv.Status().SnapshotWanted {
		return
	}
	m.sinceCount, m.sinceBytes = 0, 0
	data, err := confdb.Encode(m.state)
	if err != nil {
		m.log("error", "the database can't be written as a snapshot", "err", err)
		return
	}
	m.snapBytes = len(data)
	p, err := m.drv.Compact(m.index, data)
	if err != nil {
		m.log("warn", "the log can't be compacted now", "err", err)
		return
	}
	if p.Empty {
		return
	}
	m.persists++
	m.emit(Persist{N: m.persists, What: p})
}

// coreStep hands an event to the core and carries its effects out.
func (m *Member) coreStep(ev core.Event) { m.carryOut(m.core.Step(m.now, ev)) }

func (m *Member) carryOut(effects []core.Effect) {
	var lost []string
	var proposed bool
	for _, e := range effects {
		switch e := e.(type) {
		case core.Propose:
			proposed = true
			if !m.proposeForCore(e) {
				lost = append(lost, e.Command.ID)
			}
		case core.Send:
			m.sendNow = append(m.sendNow, e.Server)
		case core.Renew:
			m.emit(Renew(e))
		case core.StartResource:
			m.emit(StartResource(e))
		case core.StopResource:
			m.emit(StopResource(e))
		case core.EndGroup:
			m.emit(EndGroup(e))
		case core.StartFreezer:
			m.emit(StartFreezer(e))
		case core.StartFence:
			m.emit(StartFence(e))
		case core.CancelFence:
			m.emit(CancelFence(e))
		case core.Say:
			m.log(e.Level, e.Text, e.Args...)
		case core.HandLead:
			m.handLead = true
		case core.Drained:
			m.drained, m.drainedAt = true, m.now
		}
	}
	for _, id := range lost {
		m.coreStep(core.Proposed{ID: id, Result: confdb.Result{Code: core.CodeLost}})
	}
	if proposed {
		m.pump()
	}
}

func sortedKeys[K cmp.Ordered, V any](in map[K]V) []K {
	keys := make([]K, 0, len(in))
	for k := range in {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

const (
	submitPatience   = 5 * time.Second
	resend           = 500 * time.Millisecond
	transferPatience = time.Second
)
