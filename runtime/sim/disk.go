package sim

import (
	"fmt"
	"time"

	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/raftdb"
)

// disk is a host's store: what was synced, which survives everything.
type disk struct {
	stored confdb.Stored
	slow   time.Duration // added to each write
}

// open starts the driver from what the disk holds.
func (d *disk) open(h *host) (confdb.Driver, *confdb.State, uint64) {
	drv, state, index, err := raftdb.New(raftdb.Config{ServerID: h.server, Seed: h.w.rng.Uint64(), Stored: d.stored, Now: h.now()})
	if err != nil {
		h.w.violate("%s: its own disk can't be read: %v", h.name, err)
	}
	return drv, state, index
}

// crash loses nothing that was synced; a write under way is there or not.
func (d *disk) crash(w *world, under *confdb.Persist) {
	if under != nil && w.chance(0.5) {
		d.stored.Write(*under)
	}
}

// build makes the hosts, with clocks at the bounds of their rates, and starts
// their agents.
func (w *world) build() {
	w.ops.init(w)
	for i := range w.cfg.Nodes {
		h := &host{
			w: w, index: i, name: fmt.Sprintf("n%d", i+1), nodeID: fmt.Sprintf("node%02d", i+1),
			endpoint: fmt.Sprintf("10.0.0.%d:7400", i+1), server: uint64(1000 + i),
			clock:      clock{offset: w.rng.Int64N(int64(time.Hour)), ppm: int64(w.rng.IntN(3)-1) * 10_000},
			kernel:     kernel{running: map[string]map[string]uint64{}},
			lastEpochs: map[string]uint64{},
		}
		w.hosts = append(w.hosts, h)
		h.startAgent()
	}
}
