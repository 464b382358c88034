package raftdb_test

import (
	"testing"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/confdbtest"
	"github.com/clusterplan/clusterplan/runtime/confdb/raftdb"
)

func open(server, seed uint64, stored confdb.Stored, now spec.Instant) (confdb.Driver, *confdb.State, uint64, error) {
	d, state, index, err := raftdb.New(raftdb.Config{ServerID: server, Seed: seed, Stored: stored, Now: now})
	if err != nil {
		return nil, nil, 0, err
	}
	return looked{d}, state, index, nil
}

// looked has each beat compared with what Raft knows.
type looked struct{ *raftdb.Driver }

func (d looked) Beat(now spec.Instant) {
	if err := d.CheckedBeat(now); err != nil {
		panic(err)
	}
}

func TestConformance(t *testing.T) { confdbtest.Drivers(t, open) }
