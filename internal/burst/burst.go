// Package burst suits the garbage collector to a program that works hard for a
// moment and ends, as a plan does: while the heap is small, collecting it
// often only costs time.
//
// It is for commands, never for what stays resident: an agent's memory counts
// more than its work.
package burst

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// Floor is the size of the heap, in bytes, below which nothing is collected. A
// plan of 10,000 objects stays under 160 MiB resident with it.
const Floor = 96 << 20

// minimum is where a heap of Go is first collected, at 100 percent.
const minimum = 4 << 20

// sentinel is dropped at once, so that each collection finds it.
type sentinel struct{ floor *uint64 }

// Begin lets the heap grow to two thirds of floor bytes before it is collected
// for the first time: by then a definition is parsed, and most of that is of no
// more use. From there it grows to floor, and above that by half of what
// is alive; where that is a multiple of floor, time counts more, and it doubles.
// Who has set GOGC knows better, and keeps it.
func Begin(floor uint64) {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(int(floor * 2 / 3 * 100 / minimum))
	arm(&floor)
}

func arm(floor *uint64) {
	runtime.SetFinalizer(&sentinel{floor}, func(s *sentinel) {
		debug.SetGCPercent(percent(alive(), *s.floor))
		arm(s.floor)
	})
}

// alive is what the last collection left, in bytes.
func alive() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// percent of growth that leads from live to floor, and never less than by half,
// or where live is twice the floor to twice as much.
func percent(live, floor uint64) int {
	if live == 0 {
		return int(floor * 100 / minimum)
	}
	if live >= 2*floor {
		return 100
	}
	return max(50, (int(floor)-int(live))*100/int(live))
}
