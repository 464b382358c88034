package diskdb_test

import (
	"testing"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/confdbtest"
	"github.com/clusterplan/clusterplan/runtime/confdb/diskdb"
)

func open(server, seed uint64, _ confdb.Stored, now spec.Instant) (confdb.Driver, *confdb.State, uint64, error) {
	return diskdb.New(diskdb.Config{ServerID: server, ClusterID: "test", Device: "/dev/test", Seed: seed, Now: now})
}

func TestConformance(t *testing.T) { confdbtest.Drivers(t, open) }
