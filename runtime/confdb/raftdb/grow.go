package raftdb

import (
	"fmt"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// Grow makes a majority's first and only voter out of a single node's database
// (boltdb): what its store is to hold, in one write, and the driver that goes on
// over that once it is durable. state is the State's encoding at index, where
// an entry of term stands that this server led.
//
// Terms and indices go on from there: the driver's first leader has a newer
// term, so that who led before counts as an older one, by the same rules as
// after any election (runtime/core: what it granted binds the new leader).
// cfg.Stored is not read.
func Grow(cfg Config, term, index uint64, state []byte) (*Driver, confdb.Persist, error) {
	if term == 0 || index == 0 {
		return nil, confdb.Persist{}, fmt.Errorf("make the database a majority's: nothing was committed in it yet")
	}
	meta := &pb.SnapshotMetadata{Index: new(index), Term: new(term), ConfState: &pb.ConfState{Voters: []uint64{cfg.ServerID}}}
	hs := encodeHardState(&pb.HardState{Term: new(term), Vote: new(cfg.ServerID), Commit: new(index)})
	p := confdb.Persist{HardState: hs, Snapshot: encodeSnapshot(&pb.Snapshot{Data: state, Metadata: meta}), SnapshotIndex: index, Grows: true}
	// The driver keeps no state: its owner has that, and needn't wait while it is
	// read anew.
	empty, err := confdb.Encode(confdb.NewState())
	if err != nil {
		return nil, confdb.Persist{}, fmt.Errorf("make the database a majority's: %w", err)
	}
	cfg.Stored = confdb.Stored{HardState: hs, Snapshot: encodeSnapshot(&pb.Snapshot{Data: empty, Metadata: meta}), SnapshotIndex: index}
	d, _, _, err := New(cfg)
	if err == nil {
		d.call = nil // no past to ask about: who led alone until now goes on
	}
	return d, p, err
}

// Holds tells whether what a store holds is this driver's: a single node's
// database that has become a majority's, whatever else says that it has not.
func Holds(st confdb.Stored) bool {
	hs, err := decodeHardState(st.HardState)
	return err == nil && !raft.IsEmptyHardState(hs)
}
