package raftdb

import (
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/clusterplan/clusterplan/runtime/confdb"
)

type progress = tracker.Progress

// Bootstrap makes this server the only voter of a new cluster.
func (d *Driver) Bootstrap() error {
	if len(d.status.Voters) > 0 || d.seen.term != 0 || d.lastIndex != 0 {
		return confdb.ErrBootstrap
	}
	if err := d.rn.Bootstrap([]raft.Peer{{ID: d.id}}); err != nil {
		return err
	}
	d.members(&pb.ConfState{Voters: []uint64{d.id}})
	d.watch()
	return nil
}

// AddLearner brings a server in, without a vote; a voter loses its own.
func (d *Driver) AddLearner(server uint64) error {
	if d.seen.state == raft.StateLeader && d.isMember(server) {
		switch {
		case !d.isVoter(server):
			return nil
		case len(d.status.Voters) == 1:
			return confdb.ErrLastVoter
		}
	}
	return d.change(pb.ConfChangeAddLearnerNode, server)
}

// Promote gives a learner that has caught up its vote.
func (d *Driver) Promote(server uint64) error {
	if d.seen.state == raft.StateLeader {
		switch {
		case d.isVoter(server):
			return nil
		case !d.isMember(server):
			return confdb.ErrUnknown
		case !d.CaughtUp()[server]:
			return confdb.ErrNotCaughtUp
		}
	}
	return d.change(pb.ConfChangeAddNode, server)
}

// Remove takes a server out; one that is out already is no error.
func (d *Driver) Remove(server uint64) error {
	if d.seen.state == raft.StateLeader {
		if !d.isMember(server) {
			return nil
		}
		if d.isVoter(server) && len(d.status.Voters) == 1 {
			return confdb.ErrLastVoter
		}
	}
	return d.change(pb.ConfChangeRemoveNode, server)
}

// change proposes one change of membership. Before the leader has applied an
// entry of its own term, Raft would drop it without a word.
func (d *Driver) change(kind pb.ConfChangeType, server uint64) error {
	switch {
	case d.seen.state != raft.StateLeader:
		return confdb.ErrNotLeader
	case server == 0:
		return confdb.ErrUnknown
	case d.confPending || d.appliedTerm != d.seen.term:
		return confdb.ErrBusy
	}
	if err := d.rn.ProposeConfChange(&pb.ConfChange{Type: kind.Enum(), NodeId: new(server)}); err != nil {
		return confdb.ErrBusy
	}
	d.confPending = true
	if kind != pb.ConfChangeAddNode {
		d.losing = server
	}
	d.watch()
	return nil
}

// Transfer hands leadership to a voter that has caught up; 0 is whoever has
// the most of the log, a witness only if there is none else.
func (d *Driver) Transfer(to uint64) error {
	if d.seen.state != raft.StateLeader {
		return confdb.ErrNotLeader
	}
	if to == 0 {
		to = d.heir(true)
	}
	switch {
	case to == 0:
		return confdb.ErrNotCaughtUp
	case to == d.id:
		return nil
	case !d.isVoter(to):
		return confdb.ErrUnknown
	case !d.CaughtUp()[to]:
		return confdb.ErrNotCaughtUp
	}
	d.rn.TransferLeader(to)
	d.watch()
	return nil
}

// heir is the voter that has caught up furthest, 0 if there is none.
func (d *Driver) heir(witnesses bool) uint64 {
	var best, match uint64
	for pass := range 2 {
		d.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr progress) {
			witness := d.isWitness(id)
			if id == d.id || !d.isVoter(id) || !d.caughtUp(id, pr) || witness != (pass == 1) {
				return
			}
			if best == 0 || pr.Match > match {
				best, match = id, pr.Match
			}
		})
		if best != 0 || !witnesses {
			break
		}
	}
	return best
}

// caughtUp tells whether a server's log is close to the commit index and it
// answers. (Raft's own RecentActive is false for a while after each check.)
func (d *Driver) caughtUp(id uint64, pr progress) bool {
	if id == d.id {
		return true
	}
	if id == d.losing {
		return false // as leader it would end once it has applied that
	}
	at, ok := d.heard[id]
	return ok && pr.Match > 0 && pr.Match+closeEnough >= d.seen.commit && d.now.Sub(at) < 2*d.set.Suspicion
}
