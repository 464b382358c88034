package raftdb

import (
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// window is the part of the log that Raft reads: in memory, from a little
// before the last compaction on. It holds what is durable; the state itself is
// asked for (wanted) when a member needs it, and kept no longer than that.
type window struct {
	*raft.MemoryStorage
	snapIndex, snapTerm uint64
	conf                *pb.ConfState // at the newest change of membership that is applied
	confIndex           uint64        // its index
	wanted              bool
	fresh               *pb.Snapshot
}

// restore builds the window and the State from what a store held.
func restore(st confdb.Stored) (*window, *confdb.State, error) {
	w := &window{MemoryStorage: raft.NewMemoryStorage(), conf: &pb.ConfState{}}
	state := confdb.NewState()
	if st.Snapshot != nil {
		snap := &pb.Snapshot{}
		if err := unmarshal(st.Snapshot, snap); err != nil {
			return nil, nil, fmt.Errorf("%w: its snapshot can't be read: %v", confdb.ErrDamaged, err)
		}
		if snap.GetMetadata().GetIndex() != st.SnapshotIndex || !checkMembers(snap.GetMetadata().GetConfState()) {
			return nil, nil, fmt.Errorf("%w: its snapshot is of index %d, not %d, or without members", confdb.ErrDamaged, snap.GetMetadata().GetIndex(), st.SnapshotIndex)
		}
		var err error
		if state, err = confdb.Decode(snap.GetData()); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", confdb.ErrDamaged, err)
		}
		w.replace(snap.GetMetadata())
	}
	entries := make([]*pb.Entry, 0, len(st.Entries))
	for i, e := range st.Entries {
		if e.Index != st.SnapshotIndex+1+uint64(i) {
			return nil, nil, fmt.Errorf("%w: entry %d stands where %d belongs", confdb.ErrDamaged, e.Index, st.SnapshotIndex+1+uint64(i))
		}
		entry, err := decodeEntry(e)
		if err != nil {
			return nil, nil, err
		}
		entries = append(entries, entry)
	}
	w.append(entries)
	hs, err := decodeHardState(st.HardState)
	if err != nil {
		return nil, nil, err
	}
	if last := st.SnapshotIndex + uint64(len(entries)); hs.GetCommit() > last {
		return nil, nil, fmt.Errorf("%w: %d entries were committed, the log ends at %d", confdb.ErrDamaged, hs.GetCommit(), last)
	}
	// The commit index is saved along with other things only: it may be older
	// than a compaction, which is of what was committed.
	if hs.GetCommit() < st.SnapshotIndex {
		hs.Commit = new(st.SnapshotIndex)
	}
	if hs.GetTerm() < w.snapTerm {
		return nil, nil, fmt.Errorf("%w: its term %d is older than its snapshot's %d", confdb.ErrDamaged, hs.GetTerm(), w.snapTerm)
	}
	if !raft.IsEmptyHardState(hs) {
		_ = w.SetHardState(hs)
	}
	return w, state, nil
}

// replace starts the window anew at a snapshot. Its data is the owner's.
func (w *window) replace(meta *pb.SnapshotMetadata) {
	// An older snapshot is the one error, and Raft and the store have none.
	_ = w.ApplySnapshot(&pb.Snapshot{Metadata: meta})
	w.snapIndex, w.snapTerm = meta.GetIndex(), meta.GetTerm()
	w.conf, w.confIndex = meta.GetConfState(), meta.GetIndex()
	w.fresh, w.wanted = nil, false
}

func (w *window) append(entries []*pb.Entry) { _ = w.Append(entries) }

// Snapshot is for a member that the log can't bring up any more, or that is
// new. It has to have the member in its membership, so none that is older than
// the last change will do.
func (w *window) Snapshot() (*pb.Snapshot, error) {
	first, _ := w.FirstIndex()
	if w.fresh != nil {
		if i := w.fresh.GetMetadata().GetIndex(); i >= w.confIndex && i+1 >= first {
			return w.fresh, nil
		}
		w.fresh = nil
	}
	w.wanted = true
	return nil, raft.ErrSnapshotTemporarilyUnavailable
}

// compact makes a snapshot of the State at index.
func (w *window) compact(index, applied uint64, state []byte) (confdb.Persist, error) {
	switch {
	case index > applied:
		return confdb.Persist{}, fmt.Errorf("compact the log: index %d is not applied yet (%d is)", index, applied)
	case index < w.confIndex || index < w.snapIndex || index == 0:
		return confdb.Persist{}, fmt.Errorf("compact the log: index %d is too old; take the newest applied (%d)", index, applied)
	}
	term, err := w.Term(index)
	if err != nil {
		return confdb.Persist{}, fmt.Errorf("compact the log at index %d: %w", index, err)
	}
	conf := proto.Clone(w.conf).(*pb.ConfState)
	snap := &pb.Snapshot{Data: state, Metadata: &pb.SnapshotMetadata{Index: new(index), Term: new(term), ConfState: conf}}
	if w.wanted {
		w.fresh, w.wanted = snap, false
	}
	if index == w.snapIndex {
		return confdb.Persist{Empty: true}, nil
	}
	if _, err := w.CreateSnapshot(index, conf, nil); err != nil {
		return confdb.Persist{}, fmt.Errorf("compact the log at index %d: %w", index, err)
	}
	w.snapIndex, w.snapTerm = index, term
	if index > keepEntries {
		if first, _ := w.FirstIndex(); index-keepEntries >= first {
			_ = w.Compact(index - keepEntries)
		}
	}
	return confdb.Persist{Snapshot: encodeSnapshot(snap), SnapshotIndex: index, KeepTail: true}, nil
}

// members notes the membership after a change.
func (d *Driver) members(cs *pb.ConfState) {
	voters := slices.Concat(cs.GetVoters(), cs.GetVotersOutgoing())
	slices.Sort(voters)
	learners := slices.Concat(cs.GetLearners(), cs.GetLearnersNext())
	slices.Sort(learners)
	d.status.Voters, d.status.Learners = slices.Compact(voters), slices.Compact(learners)
	d.status.Needed = len(cs.GetVoters())/2 + 1
	d.level = level{}
	maps.DeleteFunc(d.heard, func(id uint64, _ spec.Instant) bool { return !d.isMember(id) })
}

func (d *Driver) isVoter(id uint64) bool {
	_, ok := slices.BinarySearch(d.status.Voters, id)
	return ok
}

func (d *Driver) isMember(id uint64) bool {
	_, ok := slices.BinarySearch(d.status.Learners, id)
	return ok || d.isVoter(id)
}

// applyChange lets a committed change of membership take effect.
func (d *Driver) applyChange(e *pb.Entry) {
	if e.GetType() != pb.EntryConfChange {
		return
	}
	cc, ok := decodeChange(e.GetData())
	if !ok {
		return // refused before it came in
	}
	if cc.GetType() != pb.ConfChangeAddNode && len(d.status.Voters) == 1 && d.isVoter(cc.GetNodeId()) {
		return // no leader proposes to remove the last voter; Raft would panic
	}
	var heir uint64
	if cc.GetType() != pb.ConfChangeAddNode && cc.GetNodeId() == d.id && d.seen.state == raft.StateLeader {
		heir = d.heir(true)
	}
	d.log.conf, d.log.confIndex = d.rn.ApplyConfChange(cc), e.GetIndex()
	d.confPending, d.losing = false, 0
	d.members(d.log.conf)
	if heir != 0 { // this leader ends here, and the others would miss it only after a suspicion
		d.send(&pb.Message{Type: pb.MsgTimeoutNow.Enum(), To: new(heir), From: new(d.id), Term: new(d.seen.term)})
	}
}
