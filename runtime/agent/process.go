package agent

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/runtime/monitor"
)

const (
	priority    = -10      // of the agent's threads, where allowed
	memoryLimit = 96 << 20 // soft: past it the collector works harder
)

// startOver is when what only the start needed lies in memory for nothing.
const startOver = 3 * time.Second

// trim lets go of the program's pages that only the start needed.
func trim(ctx context.Context) {
	select {
	case <-time.After(startOver):
		monitor.Trim()
	case <-ctx.Done():
	}
}

// tune sets the process up as a quiet neighbour that is on time: a small heap,
// few threads, and before others when leases are due. What is not allowed is
// left out.
func tune(log *slog.Logger) {
	debug.SetGCPercent(100) // of a heap of 1 MiB: less often costs less than it saves
	debug.SetMemoryLimit(memoryLimit)
	runtime.GOMAXPROCS(1) // an idle second processor is woken, and looks for work, each time that the first one is
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, t := range tasks { // new threads get the priority of the one that makes them
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, priority); err != nil {
			log.Debug("priority not raised", "nice", priority, "err", err)
			return
		}
	}
}
