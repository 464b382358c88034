// Package diskdb is the driver of quorum model single_quorum: whoever owns the
// quorum device leads, even alone, and the log lies on the device. It is pure:
// it asks for reads and writes of the device (confdb.DeviceDriver) and is told
// when they are done.
//
// layout.go says what lies where on the device, arbiter.go settles who owns it,
// owner.go reads, writes and publishes the owner's log, follow.go tells the
// other servers what is committed, wire.go has the codecs. DESIGN.md, above this
// folder, says why one owner at most has authority at any moment, and why
// nothing that was acknowledged is lost.
package diskdb

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

const maxCommand = confdb.MaxCommand

// Config is what a driver starts from.
type Config struct {
	ServerID  uint64
	ClusterID string
	Device    string // its path, for invitations and for people
	Member    bool   // this server was a member in an earlier life: a device that holds nothing has lost the database
	Seed      uint64
	DeviceIO  time.Duration // until the definition says otherwise; default spec.DefaultDeviceIO
	Now       spec.Instant
}

// Driver is one server. See confdb.Driver and confdb.DeviceDriver.
type Driver struct {
	cfg      Config
	now      spec.Instant
	settings confdb.Settings
	rng      *rand.Rand
	a        arbiter
	ops      []confdb.DeviceOp
	opSerial uint64
	pending  map[uint64]func(confdb.DeviceResult)

	booting booting

	// The log, as far as it is in memory: entries first, first+1, ...
	who        membership
	baseWho    membership // as of index first-1
	known      bool       // who is known; else only that this server has a slot
	out        bool       // removed, as far as is known
	term       uint64
	leader     uint64
	first      uint64
	log        []confdb.LogEntry
	commit     uint64
	handed     uint64 // given out by Ready
	applied    uint64
	lastTerm   uint64 // of applied
	handedTerm uint64
	install    *snapshot // to be given out by Ready
	busy       bool
	outbox     []confdb.Message

	// As follower.
	heard     spec.Instant
	challenge spec.Instant // when to claim the device; 0: no reason to
	awaitCall bool         // handed the device over: somebody else goes first

	serving  bool
	own      owner
	areaBusy [2]int // writes into the own areas that may be in flight, whoever began them
}

var _ confdb.DeviceDriver = (*Driver)(nil)

// New makes a server. What it knows it reads from the device.
func New(cfg Config) (*Driver, *confdb.State, uint64, error) {
	if cfg.ServerID == 0 {
		return nil, nil, 0, errors.New("start the database: a server's id is not 0")
	}
	if len(cfg.ClusterID) > maxCluster {
		return nil, nil, 0, fmt.Errorf("start the database: the cluster's id has more than %d bytes", maxCluster)
	}
	if cfg.DeviceIO == 0 {
		cfg.DeviceIO = spec.DefaultDeviceIO.D()
	}
	d := &Driver{cfg: cfg, now: cfg.Now, rng: rand.New(rand.NewPCG(cfg.Seed, cfg.ServerID)), pending: map[uint64]func(confdb.DeviceResult){}, first: 1}
	t := spec.Timings{}.WithDefaults()
	d.settings = confdb.Settings{Suspicion: t.Suspicion.D(), RankDelay: t.RankDelay.D()}
	d.a = arbiter{io: d, rng: d.rng, now: cfg.Now, slot: -1, id: cfg.ServerID, cluster: cfg.ClusterID, want: cfg.DeviceIO}
	d.heard = cfg.Now
	d.settle()
	return d, confdb.NewState(), 0, nil
}

// Status is what this server knows now.
func (d *Driver) Status() confdb.Status {
	s := confdb.Status{Self: d.cfg.ServerID, Term: d.term, Role: confdb.Outside, Leader: d.leader, Applied: d.applied, Commit: d.commit, Needed: 1,
		ByDevice: true, Device: d.cfg.Device, Former: d.cfg.Member && !d.known, DeviceProblem: d.onDevice(cmp.Or(d.a.problem(), d.own.problem, d.booting.problem)), BootRefused: d.onDevice(d.booting.refused)}
	for _, m := range d.who.members {
		if m.voter {
			s.Voters = append(s.Voters, m.server)
		} else {
			s.Learners = append(s.Learners, m.server)
		}
	}
	if !d.isMember() {
		return s
	}
	s.Role = confdb.Follower
	if d.a.phase != idle {
		s.Role = confdb.Candidate
	}
	if d.serving {
		s.Role, s.Leader = confdb.Leader, d.cfg.ServerID
		s.Ready = d.lastTerm == d.term && d.applied > 0
		s.Authority, s.AuthorityUntil, s.OldLeases = d.a.authority, d.a.until, d.a.oldLeases
		s.SnapshotWanted = d.own.wantCompact || d.peersWantState()
	}
	return s
}

// onDevice has a problem say which device it is of.
func (d *Driver) onDevice(problem string) string {
	if problem == "" || d.cfg.Device == "" {
		return problem
	}
	return "quorum device " + d.cfg.Device + ": " + problem
}

func (d *Driver) isMember() bool {
	_, in := d.who.find(d.cfg.ServerID)
	return d.a.slot >= 0 && !d.out && (in || !d.known)
}

// mayOwn tells whether this server may claim the device.
func (d *Driver) mayOwn() bool {
	m, in := d.who.find(d.cfg.ServerID)
	return d.a.slot >= 0 && !d.out && (in && m.voter || !d.known)
}

// Configure takes settings of the definition.
func (d *Driver) Configure(s confdb.Settings) {
	if s.Suspicion > 0 {
		d.settings.Suspicion = s.Suspicion
	}
	if s.RankDelay > 0 {
		d.settings.RankDelay = s.RankDelay
	}
	if s.DeviceIO > 0 {
		d.a.want, d.a.told = s.DeviceIO, true
	}
}

// Propose adds a command, or sends it to the owner.
func (d *Driver) Propose(command []byte) error {
	switch {
	case !d.isMember():
		return confdb.ErrOutside
	case len(command) > maxCommand:
		return fmt.Errorf("a command may have %d bytes at most", maxCommand)
	case len(command) == 0:
		return errors.New("an empty command")
	case d.serving:
		d.add(entryCommand, command)
		d.settle()
	case d.leader != 0:
		d.say(d.leader, false, message{kind: msgPropose, data: command})
	default:
		return confdb.ErrNoLeader
	}
	return nil
}

// Tick lets what is due happen.
func (d *Driver) Tick(now spec.Instant) {
	d.now = max(d.now, now)
	d.settle()
}

// Deadline is when Tick has something to do.
func (d *Driver) Deadline() spec.Instant {
	at := d.a.deadline()
	sooner := func(t spec.Instant) {
		if t > d.now && (at == 0 || t < at) {
			at = t
		}
	}
	if !d.serving && d.mayOwn() {
		if d.leader != 0 {
			sooner(d.heard.Add(d.settings.Suspicion))
		} else if d.challenge != 0 && !d.a.challenge {
			sooner(d.challenge)
		}
	}
	sooner(d.own.retryAt)
	sooner(d.own.patience)
	sooner(d.booting.until)
	return at
}

// settle brings everything up to now; after every call.
func (d *Driver) settle() {
	d.follow()
	d.runBoot()
	d.a.run(d.now)
	d.runOwner()
	d.a.run(d.now)
}

// follow notices an owner that fell silent, and when it is time to claim.
func (d *Driver) follow() {
	if d.serving || !d.mayOwn() {
		d.a.challenge = d.a.challenge && d.a.phase != idle
		return
	}
	if d.leader != 0 && d.now >= d.heard.Add(d.settings.Suspicion) {
		d.leader = 0
	}
	if d.leader != 0 {
		d.challenge, d.a.challenge = 0, false
		return
	}
	if d.challenge == 0 {
		d.challenge = max(d.now, d.heard).Add(time.Duration(d.rank()) * d.settings.RankDelay)
		if d.awaitCall {
			d.challenge, d.awaitCall = d.challenge.Add(spec.DeviceSilence(d.a.want)), false
		}
	}
	if d.now >= d.challenge && !d.a.challenge {
		d.a.challenge = true
		d.a.nextRead = min(d.a.nextRead, d.now)
	}
}

// rank is this server's place among those that may own the device.
func (d *Driver) rank() int {
	n := 0
	for _, m := range d.who.members {
		if m.voter && m.server < d.cfg.ServerID {
			n++
		}
	}
	return min(n, 5)
}

// issue begins an operation on the device.
func (d *Driver) issue(op confdb.DeviceOp, then func(confdb.DeviceResult)) uint64 {
	d.opSerial++
	op.ID = d.opSerial
	d.pending[op.ID] = then
	d.ops = append(d.ops, op)
	return op.ID
}

func (d *Driver) newest() uint64 { return d.opSerial }

func (d *Driver) readTable() uint64 {
	return d.issue(confdb.DeviceOp{Length: headLen}, func(r confdb.DeviceResult) {
		failed := r.Err
		if r.Missing {
			failed = "there is no such file"
		}
		d.a.looked(d.now, r.ID, r.Data, failed)
		d.tableRead(r)
	})
}

func (d *Driver) writeRecord(rec record) uint64 {
	return d.issue(confdb.DeviceOp{Offset: rec.offset(), Data: rec.encode()}, func(r confdb.DeviceResult) { d.a.wrote(d.now, r.Err) })
}

// DeviceOps takes the operations that are to begin now.
func (d *Driver) DeviceOps() []confdb.DeviceOp {
	ops := d.ops
	d.ops = nil
	return ops
}

// DeviceDone tells what became of an operation.
func (d *Driver) DeviceDone(now spec.Instant, r confdb.DeviceResult) {
	d.now = max(d.now, now)
	then := d.pending[r.ID]
	if then == nil {
		return
	}
	delete(d.pending, r.ID)
	then(r)
	d.settle()
}

// tableRead finds this server's slot, and goes on with a bootstrap.
func (d *Driver) tableRead(r confdb.DeviceResult) {
	for _, rec := range d.a.tab.records {
		if rec.server == d.cfg.ServerID && d.a.slot < 0 && d.a.read {
			d.a.slot = int(rec.slot)
		}
	}
	if d.a.looks == r.ID {
		d.bootRead(r)
		d.foundAgain(r)
	}
}

// Now takes the messages that may leave.
func (d *Driver) Now() []confdb.Message {
	out := d.outbox
	d.outbox = nil
	return out
}

func (d *Driver) say(to uint64, inFrame bool, m message) {
	if m.epoch == 0 {
		m.epoch = d.term
	}
	d.outbox = append(d.outbox, confdb.Message{To: to, From: d.cfg.ServerID, InFrame: inFrame, Data: m.encode()})
}

// Ready hands out what is committed.
func (d *Driver) Ready() (confdb.Ready, bool) {
	if d.busy {
		return confdb.Ready{}, false
	}
	r := confdb.Ready{Persist: confdb.Persist{Empty: true}}
	if s := d.install; s != nil {
		r.Snapshot, r.SnapshotIndex = s.state, s.index
		d.handed, d.handedTerm, d.install = s.index, s.term, nil
	}
	for d.handed < d.commit && d.handed+1 >= d.first {
		e := d.log[d.handed+1-d.first]
		out := confdb.Entry{Index: e.Index, Term: e.Term}
		if e.Data[0] == entryCommand {
			out.Command = e.Data[1:]
		}
		r.Committed = append(r.Committed, out)
		d.handed, d.handedTerm = e.Index, e.Term
	}
	if r.Snapshot == nil && len(r.Committed) == 0 {
		return confdb.Ready{}, false
	}
	d.busy = true
	return r, true
}

// Advance says that the Ready under way is done.
func (d *Driver) Advance(confdb.Ready) {
	if d.busy {
		d.busy, d.applied, d.lastTerm = false, d.handed, d.handedTerm
		d.settle()
	}
}

// last is the index of the log's end.
func (d *Driver) last() uint64 { return d.first + uint64(len(d.log)) - 1 }

// commitTo lets the log up to index count.
func (d *Driver) commitTo(index uint64) {
	for i := d.commit + 1; i <= index; i++ {
		if e := d.log[i-d.first]; e.Data[0] == entryMembers {
			if m, err := decodeMembers(e.Data); err == nil { // checked as it came in
				d.setMembers(m)
			}
		}
	}
	d.commit = max(d.commit, index)
}

// setMembers takes a committed membership.
func (d *Driver) setMembers(m membership) {
	d.who, d.known = m.clone(), true
	if x, in := m.find(d.cfg.ServerID); in {
		d.out = false
		if d.a.slot < 0 {
			d.a.slot = int(x.slot)
			d.a.nextRead = 0
		}
	} else if d.a.slot >= 0 {
		d.out = true
	}
}

// Compact lets the log up to index go: in memory, and by a new image if this
// server owns the device. The state serves those that need all of it, too.
func (d *Driver) Compact(index uint64, state []byte) (confdb.Persist, error) {
	none := confdb.Persist{Empty: true}
	if index != d.applied || d.busy {
		return none, fmt.Errorf("compact the log: index %d is not the newest applied (%d)", index, d.applied)
	}
	if !d.serving {
		d.forget(index)
		return none, nil
	}
	d.own.next = &snapshot{index: index, term: d.lastTerm, who: d.whoAt(index), state: slices.Clone(state)}
	d.sendState(*d.own.next)
	d.settle()
	return none, nil
}

// whoAt is the membership as of an index that is committed and in memory.
func (d *Driver) whoAt(index uint64) membership {
	m := d.baseWho
	for _, e := range d.log {
		if e.Index > index {
			break
		}
		if e.Data[0] == entryMembers {
			if x, err := decodeMembers(e.Data); err == nil {
				m = x
			}
		}
	}
	return m.clone()
}

// forget drops entries that are applied from memory.
func (d *Driver) forget(index uint64) {
	const keep = 256
	if index < d.first+keep {
		return
	}
	n := min(index-keep-d.first+1, uint64(len(d.log)))
	d.baseWho = d.whoAt(d.first + n - 1)
	d.log = slices.Clone(d.log[n:])
	d.first += n
}
