// Package boltdb is the driver of a single node: the same log, terms and
// snapshots as raftdb, without anyone to agree with. Its quorum is one, the
// lock on the node's data directory (runtime/confdb/store). It is pure.
//
// Each opening is a term of its own, which begins with an entry of its own, so
// that leases and epochs work as they do in a majority node set. A command is
// committed once it is durable here.
package boltdb

import (
	"encoding/binary"
	"fmt"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

const maxCommand = confdb.MaxCommand

// Config is what a driver starts from.
type Config struct {
	ServerID uint64
	Stored   confdb.Stored
}

// Driver is the one server of a single node. See confdb.Driver.
type Driver struct {
	id            uint64
	member        bool
	term          uint64
	termSaved     bool
	last          uint64 // index of the log's end
	applied       uint64
	appliedTerm   uint64
	snapshotIndex uint64
	pending       []confdb.LogEntry // proposed, not handed out
	committed     []confdb.Entry    // durable before, to be applied
	busy          *confdb.Ready
	voters        []uint64
	older         bool // another server speaks: see Step
}

var _ confdb.Driver = (*Driver)(nil)

// New makes a driver from what its store holds (nothing: a server that waits
// to be bootstrapped). It returns the State of the snapshot, and the index
// that it stands at; the entries after it follow by Ready.
func New(cfg Config) (*Driver, *confdb.State, uint64, error) {
	d := &Driver{id: cfg.ServerID}
	state := confdb.NewState()
	st := cfg.Stored
	if st.HardState == nil {
		return d, state, 0, nil
	}
	if len(st.HardState) != 8 {
		return nil, nil, 0, fmt.Errorf("start the database: %w: its term has %d bytes, not 8 (is it of another quorum model?)", confdb.ErrDamaged, len(st.HardState))
	}
	if st.Snapshot != nil {
		if len(st.Snapshot) < 8 {
			return nil, nil, 0, fmt.Errorf("start the database: %w: its snapshot has %d bytes", confdb.ErrDamaged, len(st.Snapshot))
		}
		var err error
		if state, err = confdb.Decode(st.Snapshot[8:]); err != nil {
			return nil, nil, 0, fmt.Errorf("start the database: %w: %w", confdb.ErrDamaged, err)
		}
		d.appliedTerm = binary.BigEndian.Uint64(st.Snapshot)
	}
	d.snapshotIndex, d.applied, d.last = st.SnapshotIndex, st.SnapshotIndex, st.SnapshotIndex
	for _, e := range st.Entries {
		if e.Index != d.last+1 {
			return nil, nil, 0, fmt.Errorf("start the database: %w: entry %d stands where %d belongs", confdb.ErrDamaged, e.Index, d.last+1)
		}
		d.last++
		d.committed = append(d.committed, entry(e))
	}
	d.begin(binary.BigEndian.Uint64(st.HardState) + 1)
	return d, state, st.SnapshotIndex, nil
}

// begin starts a term with its first entry.
func (d *Driver) begin(term uint64) {
	d.member, d.term, d.voters = true, term, []uint64{d.id}
	d.add(nil)
}

func (d *Driver) add(command []byte) {
	d.last++
	d.pending = append(d.pending, confdb.LogEntry{Index: d.last, Term: d.term, Data: command})
}

func entry(e confdb.LogEntry) confdb.Entry {
	out := confdb.Entry{Index: e.Index, Term: e.Term}
	if len(e.Data) > 0 {
		out.Command = e.Data
	}
	return out
}

// Status is what this server knows now.
func (d *Driver) Status() confdb.Status {
	s := confdb.Status{Self: d.id, Term: d.term, Role: confdb.Outside, Applied: d.applied, Commit: d.applied, Needed: 1, Voters: d.voters, Single: true, Older: d.older}
	// Before its term is durable it would be the last opening's once more.
	if d.member {
		s.Role = confdb.Candidate
	}
	if d.member && d.termSaved {
		s.Role, s.Leader = confdb.Leader, d.id
		s.Ready = d.appliedTerm == d.term
	}
	return s
}

// CaughtUp is this server itself, once it leads.
func (d *Driver) CaughtUp() map[uint64]bool {
	if !d.member || !d.termSaved {
		return nil
	}
	return map[uint64]bool{d.id: true}
}

// Configure has nothing to set here.
func (d *Driver) Configure(confdb.Settings) {}

// Propose adds a command.
func (d *Driver) Propose(command []byte) error {
	switch {
	case !d.member:
		return confdb.ErrOutside
	case len(command) > maxCommand:
		return fmt.Errorf("a command may have %d bytes at most", maxCommand)
	}
	d.add(command)
	return nil
}

// Step: a single node's cluster has no other servers. Where one speaks, this
// database has become a majority's since, and the copy here is an older one.
func (d *Driver) Step(_ spec.Instant, m confdb.Message) {
	d.older = d.older || d.member && m.From != 0 && m.From != d.id
}

// Beat, Tick, Deadline and Now: there is nobody to talk to.
func (d *Driver) Beat(spec.Instant)      {}
func (d *Driver) Tick(spec.Instant)      {}
func (d *Driver) Deadline() spec.Instant { return 0 }
func (d *Driver) Now() []confdb.Message  { return nil }

// Bootstrap begins the first term.
func (d *Driver) Bootstrap() error {
	if d.member {
		return confdb.ErrBootstrap
	}
	d.begin(1)
	return nil
}

// AddLearner, Promote, Remove and Transfer: there is one member.
func (d *Driver) AddLearner(uint64) error { return confdb.ErrSingleNode }
func (d *Driver) Promote(uint64) error    { return confdb.ErrSingleNode }
func (d *Driver) Remove(uint64) error     { return confdb.ErrSingleNode }
func (d *Driver) Transfer(to uint64) error {
	if to == d.id {
		return nil
	}
	return confdb.ErrSingleNode
}

// Ready hands out what was durable before this opening first, then what was
// proposed: to be made durable, and then applied.
func (d *Driver) Ready() (confdb.Ready, bool) {
	if d.busy != nil || len(d.committed) == 0 && len(d.pending) == 0 {
		return confdb.Ready{}, false
	}
	r := confdb.Ready{Committed: d.committed, Persist: confdb.Persist{Entries: d.pending}}
	if !d.termSaved {
		r.Persist.HardState = binary.BigEndian.AppendUint64(nil, d.term)
	}
	r.Persist.Empty = len(d.pending) == 0
	for _, e := range d.pending {
		r.Committed = append(r.Committed, entry(e))
	}
	d.committed, d.pending = nil, nil
	d.busy = &r
	return r, true
}

// Advance says that the Ready under way is done.
func (d *Driver) Advance(confdb.Ready) {
	if d.busy == nil {
		return
	}
	done := d.busy.Committed
	d.applied, d.appliedTerm = done[len(done)-1].Index, done[len(done)-1].Term
	d.termSaved = true
	d.busy = nil
}

// Compact lets the log up to index go.
func (d *Driver) Compact(index uint64, state []byte) (confdb.Persist, error) {
	switch {
	case index != d.applied:
		return confdb.Persist{}, fmt.Errorf("compact the log: index %d is not the newest applied (%d)", index, d.applied)
	case index == d.snapshotIndex:
		return confdb.Persist{Empty: true}, nil
	}
	d.snapshotIndex = index
	snap := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(state)), d.appliedTerm)
	return confdb.Persist{Snapshot: append(snap, state...), SnapshotIndex: index, KeepTail: true}, nil
}
