package agent

import (
	"context"
	"log/slog"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/clusterplan/clusterplan/internal/ownpages"
	"github.com/clusterplan/clusterplan/runtime/monitor"
)

const (
	memoryLimit = 96 << 20 // soft: past it the collector works harder
	processors  = 1        // that Go code runs on at a time
)

// startOver is when what only the start needed lies in memory for nothing.
const startOver = 3 * time.Second

// trim lets go of the memory that only the start needed; not of the program's
// pages: what founds a cluster is what an election needs, perhaps on a host
// whose disk is busy.
func trim(ctx context.Context) {
	select {
	case <-time.After(startOver):
		debug.FreeOSMemory()
	case <-ctx.Done():
	}
}

// tune sets the process up as a quiet neighbour that is on time: a small heap,
// few threads, and before others when leases are due, with its program kept in
// memory. What is not allowed is left out.
func tune(log *slog.Logger) {
	if err := monitor.Urgent(); err != nil {
		log.Info("the agent runs at the priority of any process: leases may end on a busy host", "err", err)
	}
	monitor.Trim() // what the packages' own starts have touched is no page to lock
	if err := ownpages.Lock(); err != nil {
		log.Info("the program's pages may be dropped from memory when memory is short", "err", err)
	}
	debug.SetGCPercent(100) // of a heap of 1 MiB: less often costs less than it saves
	debug.SetMemoryLimit(memoryLimit)
	runtime.GOMAXPROCS(processors) // an idle second processor is woken, and looks for work, each time that the first one is
}
