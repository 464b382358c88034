package boltdb_test

import (
	"testing"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/boltdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/confdbtest"
)

func open(server, _ uint64, stored confdb.Stored, _ spec.Instant) (confdb.Driver, *confdb.State, uint64, error) {
	return boltdb.New(boltdb.Config{ServerID: server, Stored: stored})
}

func TestConformance(t *testing.T) { confdbtest.Drivers(t, open) }
