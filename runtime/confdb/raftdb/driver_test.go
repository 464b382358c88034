package raftdb_test

import (
	"testing"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/confdbtest"
	"github.com/clusterplan/clusterplan/runtime/confdb/raftdb"
)

func open(server, seed uint64, stored confdb.Stored, now spec.Instant) (confdb.Driver, *confdb.State, uint64, error) {
	return raftdb.New(raftdb.Config{ServerID: server, Seed: seed, Stored: stored, Now: now})
}

func TestConformance(t *testing.T) { confdbtest.Drivers(t, open) }
