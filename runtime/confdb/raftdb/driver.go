// Package raftdb is the driver of a majority node set: etcd's Raft (RawNode)
// behind confdb.Driver. It is pure: no goroutine, clock, disk, socket or random
// source of its own; runtime/confdb/store keeps what it persists and
// runtime/agent carries its stream messages.
//
// What differs from Raft as it comes:
//   - Only leaders are ticked (Beat). A follower that has heard nothing for the
//     suspicion time forgets its leader, then campaigns by its rank among the
//     voters (elect.go). So Raft's own random time-outs never decide.
//   - Heartbeats and their answers are made here and leave at once, also while
//     a disk is slow (Now); Raft's own copies of them are dropped.
//   - A snapshot is made when a member needs one, with the membership that has
//     that member in it (window.go).
//
// Start reading at Ready and Advance, then elect.go.
package raftdb

import (
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// Raft's clock: a leader's Beat is one tick, and a leader that no majority
// answered for electionTick of them steps down. Raft's own heartbeats go nowhere
// (Beat makes them), so it makes as few as its configuration allows.
const (
	electionTick  = 5
	heartbeatTick = electionTick - 1
)

// Bounds, in bytes and messages.
const (
	maxCommand     = confdb.MaxCommand
	maxAppend      = 256 << 10
	maxUncommitted = 8 << 20
	maxInflight    = 64
	closeEnough    = 64  // entries behind the commit index that still count as caught up
	keepEntries    = 256 // entries kept in memory behind a compaction, for who is a little behind
)

// ErrTooLarge: a command is larger than the log takes.
var ErrTooLarge = fmt.Errorf("a command may have %d bytes at most", maxCommand)

// Config is what a driver starts from.
type Config struct {
	ServerID uint64 // not 0; of the node and its data directory
	Seed     uint64 // of the jitter of campaigns
	Now      spec.Instant
	Stored   confdb.Stored
	Settings confdb.Settings
}

// Driver is one server of a majority node set. See confdb.Driver.
type Driver struct {
	id  uint64
	rn  *raft.RawNode
	log *window

	set  confdb.Settings
	now  spec.Instant // as of the last call that had one
	rng  uint64
	seen seen

	// Elections.
	lastHeard  spec.Instant // anything from the leader
	lastLeader uint64
	suspectAt  spec.Instant // 0: no leader to suspect
	campaignAt spec.Instant // 0: no campaign planned
	called     *pb.Message  // a leader's word to take over, once what is committed is applied; nil: none
	calledAt   spec.Instant

	// The leader's chores.
	heard       map[uint64]spec.Instant // newest message of each server
	snapSent    map[uint64]spec.Instant
	confPending bool
	losing      uint64 // whose vote that takes; 0: nobody's
	stuck       stuck
	muted       bool
	tickAt      spec.Instant      // when Raft is ticked next
	ticks       uint64            // of this term
	answered    map[uint64]uint64 // the last of them after which each server spoke in this term
	level       level
	triedHome   spec.Instant // last try of a witness to hand over

	// Messages that wait for nothing.
	urgent []confdb.Message
	taken  []confdb.Message // by Now, to be used again
	paper  []byte           // what beats are written on
	beat   beat             // the one being read

	// older: a leader has shown that this server acknowledged entries which its
	// log doesn't hold. It was put back to an older state (a backup), has forgotten
	// votes and promises, and takes no part any more: it hears nothing, grants
	// nothing, and never campaigns.
	older bool

	// The past (rollcall.go).
	call     *rollCall           // under way: this server takes no part
	floor    floor               // what it left
	promises map[uint64]position // the newest of each server
	callers  map[uint64]caller   // who asked this leader

	// The Ready under way.
	ready       *raft.Ready
	hardState   []byte // newest; persisted with the next entries at the latest
	hardSaved   bool
	savedTerm   uint64 // that is on disk
	lastIndex   uint64 // of the log, with what is being persisted
	applied     uint64
	appliedTerm uint64

	status confdb.Status
}

// level is a commit index that every member is known to hold, as the leader of that
// term has seen. A term has one leader, once, and to it nobody loses what it held; who
// is new to the membership may hold less.
type level struct {
	term, commit uint64 // 0: not known
}

// seen is what the last look at Raft's state showed.
type seen struct {
	term, vote, lead, commit uint64
	state                    raft.StateType
}

var _ confdb.Driver = (*Driver)(nil)

// New makes a driver from what its store holds (nothing: a server that waits
// to be bootstrapped or joined). It returns the State of the snapshot, and the
// index that it stands at; the committed entries after it follow by Ready.
func New(cfg Config) (*Driver, *confdb.State, uint64, error) {
	d := &Driver{
		id: cfg.ServerID, now: cfg.Now, lastHeard: cfg.Now,
		rng:      cfg.Seed ^ cfg.ServerID*0x9e3779b97f4a7c15,
		heard:    map[uint64]spec.Instant{},
		answered: map[uint64]uint64{},
		promises: map[uint64]position{},
		callers:  map[uint64]caller{},
		snapSent: map[uint64]spec.Instant{},
	}
	if cfg.ServerID == 0 {
		return nil, nil, 0, fmt.Errorf("start the database: the server id is 0")
	}
	d.Configure(cfg.Settings)
	var state *confdb.State
	var err error
	if d.log, state, err = restore(cfg.Stored); err != nil {
		return nil, nil, 0, fmt.Errorf("start the database: %w", err)
	}
	d.applied = d.log.snapIndex
	d.appliedTerm = d.log.snapTerm
	d.lastIndex, _ = d.log.LastIndex()
	d.hardState, d.hardSaved = cfg.Stored.HardState, true
	if hs, err := decodeHardState(cfg.Stored.HardState); err == nil { // restore has read it
		d.savedTerm = hs.GetTerm()
	}
	d.rn, err = raft.NewRawNode(&raft.Config{
		ID: cfg.ServerID, ElectionTick: electionTick, HeartbeatTick: heartbeatTick,
		Storage: d.log, Applied: d.applied,
		MaxSizePerMsg: maxAppend, MaxCommittedSizePerReady: 4 * maxAppend,
		MaxUncommittedEntriesSize: maxUncommitted, MaxInflightMsgs: maxInflight,
		CheckQuorum: true, PreVote: true, StepDownOnRemoval: true,
		Logger: quiet{},
	})
	if err != nil {
		return nil, nil, 0, fmt.Errorf("start the database: %w", err)
	}
	d.members(d.log.conf)
	d.watch()
	d.callRoll()
	return d, state, d.applied, nil
}

// Configure takes new settings; they count from the next look at the clock.
func (d *Driver) Configure(s confdb.Settings) {
	if s.Suspicion <= 0 {
		s.Suspicion = 250 * time.Millisecond
	}
	if s.RankDelay <= 0 {
		s.RankDelay = 40 * time.Millisecond
	}
	if s.Round <= 0 {
		s.Round = s.Suspicion / 5
	}
	d.set = s
}

// Status is what this server knows now. Its slices and map are valid until the
// next call.
func (d *Driver) Status() confdb.Status {
	s := &d.status
	s.Self, s.Term, s.Leader, s.Commit, s.Applied = d.id, d.seen.term, d.seen.lead, d.seen.commit, d.applied
	s.Ready, s.SnapshotWanted, s.Older, s.Unsaved = false, d.log.wanted, d.older, d.seen.term > d.savedTerm
	if s.Starting = d.call != nil; s.Starting {
		s.Term, s.Leader, s.Unsaved = 0, 0, false // it answers in no term
	}
	switch {
	case !d.isMember(d.id):
		s.Role = confdb.Outside
	case d.seen.state == raft.StateLeader:
		s.Role = confdb.Leader
		s.Ready = d.appliedTerm == d.seen.term
	case d.seen.state == raft.StateFollower:
		s.Role = confdb.Follower
	default:
		s.Role = confdb.Candidate
	}
	return *s
}

// CaughtUp are the servers that are up to date and answer, on a leader.
func (d *Driver) CaughtUp() map[uint64]bool {
	if d.seen.state != raft.StateLeader || !d.isMember(d.id) {
		return nil
	}
	up := map[uint64]bool{}
	d.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr progress) {
		if d.caughtUp(id, pr) {
			up[id] = true
		}
	})
	return up
}

// Propose adds a command if this is the leader, else sends it there.
func (d *Driver) Propose(command []byte) error {
	switch {
	case len(command) > maxCommand:
		return ErrTooLarge
	case !d.isMember(d.id):
		return confdb.ErrOutside
	case d.seen.state == raft.StateLeader:
		err := d.rn.Propose(command)
		d.watch()
		if err != nil { // handing over, or too much is uncommitted
			return confdb.ErrNoLeader
		}
	case d.seen.lead == 0:
		return confdb.ErrNoLeader
	default:
		// Straight to the leader; through RawNode it would wait for the disk.
		d.send(&pb.Message{Type: pb.MsgProp.Enum(), To: new(d.seen.lead), From: new(d.id), Entries: []*pb.Entry{{Data: command}}})
	}
	return nil
}

// Now takes the messages that wait for nothing. The slice is valid until the
// next call of Now.
func (d *Driver) Now() []confdb.Message {
	if len(d.urgent) == 0 {
		return nil
	}
	clear(d.taken) // lets go of what was sent
	d.urgent, d.taken = d.taken[:0], d.urgent
	return d.taken
}

func (d *Driver) send(m *pb.Message) { d.urgent = append(d.urgent, encodeMessage(m)) }

// Ready hands out the next work. Raft's own order holds: answers to votes and
// appends leave after what they promise is durable; the rest leaves at once.
func (d *Driver) Ready() (confdb.Ready, bool) {
	for d.ready == nil && d.rn.HasReady() {
		rd := d.rn.Ready()
		d.ready = &rd
		var r confdb.Ready
		for _, m := range rd.Messages {
			d.sort(m, &r)
		}
		d.persist(&rd, &r.Persist)
		for _, e := range rd.CommittedEntries {
			out := confdb.Entry{Index: e.GetIndex(), Term: e.GetTerm()}
			if e.GetType() == pb.EntryNormal && len(e.GetData()) > 0 {
				out.Command = e.GetData()
			}
			r.Committed = append(r.Committed, out)
		}
		if !raft.IsEmptySnap(rd.Snapshot) {
			r.Snapshot, r.SnapshotIndex = rd.Snapshot.GetData(), rd.Snapshot.GetMetadata().GetIndex()
		}
		if !r.Persist.Empty || len(r.Messages) > 0 || len(r.Committed) > 0 || r.Snapshot != nil {
			return r, true
		}
		d.finish() // nothing in it for the owner
	}
	return confdb.Ready{}, false
}

// sort decides when a message leaves.
func (d *Driver) sort(m *pb.Message, r *confdb.Ready) {
	switch m.GetType() {
	case pb.MsgHeartbeat, pb.MsgHeartbeatResp: // made by Beat and Step already
	case pb.MsgSnap:
		d.snapSent[m.GetTo()] = d.now
		d.log.fresh = nil // each copy is large, and the next one newer
		d.send(m)
	case pb.MsgVoteResp, pb.MsgPreVoteResp:
		if !m.GetReject() {
			d.yield(m.GetType() == pb.MsgVoteResp)
		}
		r.Messages = append(r.Messages, encodeMessage(m))
	case pb.MsgVote, pb.MsgAppResp:
		r.Messages = append(r.Messages, encodeMessage(m))
	default:
		d.send(m)
	}
}

// persist fills in what the store is to write. A commit index alone is worth no
// write: it goes along with the next one, and is found out again after a crash. But
// for that of a change of membership: who starts without it counts votes by the
// membership before, which may have no majority any more.
func (d *Driver) persist(rd *raft.Ready, p *confdb.Persist) {
	if !raft.IsEmptyHardState(rd.HardState) {
		d.hardState, d.hardSaved = encodeHardState(rd.HardState), false
	}
	if !raft.IsEmptySnap(rd.Snapshot) {
		meta := rd.Snapshot.GetMetadata()
		p.Snapshot, p.SnapshotIndex = encodeSnapshot(rd.Snapshot), meta.GetIndex()
		d.lastIndex = meta.GetIndex()
	}
	for _, e := range rd.Entries {
		p.Entries = append(p.Entries, encodeEntry(e))
		d.lastIndex = e.GetIndex()
	}
	change := !d.hardSaved && slices.ContainsFunc(rd.CommittedEntries, func(e *pb.Entry) bool { return e.GetType() != pb.EntryNormal })
	if len(p.Entries) == 0 && p.Snapshot == nil && !rd.MustSync && !change {
		p.Empty = true
		return
	}
	if !d.hardSaved {
		p.HardState, d.hardSaved = d.hardState, true
	}
}

// Advance says that the Ready under way is done: durable, sent and applied.
func (d *Driver) Advance(confdb.Ready) {
	if d.ready != nil {
		d.finish()
	}
}

func (d *Driver) finish() {
	rd := d.ready
	d.ready = nil
	d.savedTerm = max(d.savedTerm, rd.HardState.GetTerm()) // a new term is never left unwritten (persist)
	if !raft.IsEmptySnap(rd.Snapshot) {
		meta := rd.Snapshot.GetMetadata()
		d.log.replace(meta)
		d.applied, d.appliedTerm = meta.GetIndex(), meta.GetTerm()
		d.members(meta.GetConfState())
	}
	d.log.append(rd.Entries)
	for _, e := range rd.CommittedEntries {
		d.applied, d.appliedTerm = e.GetIndex(), e.GetTerm()
		d.applyChange(e)
	}
	d.rn.Advance(*rd)
	d.watch()
	if m := d.called; m != nil && d.applied >= d.seen.commit {
		if d.called = nil; m.GetTerm() == d.seen.term && d.now.Sub(d.calledAt) < d.set.Suspicion {
			_ = d.rn.Step(m)
			d.watch()
		}
	}
}

// Compact lets the log up to index go. What is a little behind it stays in
// memory for who is a little behind.
func (d *Driver) Compact(index uint64, state []byte) (confdb.Persist, error) {
	return d.log.compact(index, d.applied, state)
}
