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
	"sync/atomic"

	"github.com/clusterplan/clusterplan/internal/ownpages"
)

// Floor is the size of the heap, in bytes, below which nothing is collected. A
// plan of 10,000 objects stays under 160 MiB resident with it.
const Floor = 96 << 20

// minimum is where a heap of Go is first collected, at 100 percent.
const minimum = 4 << 20

// Of a definition with less text than this, in bytes, the objects are made by
// for_each and count: working them out leaves garbage, and little of what was parsed
// stays.
const long = 128 << 10

// short is the floor of such a definition, in bytes.
const short = 32 << 20

// Of one with less text than this, in bytes, whatever is many comes of few blocks.
const few = 8 << 10

// shortest is the floor of such a definition, in bytes.
const shortest = 24 << 20

// small is a heap, in bytes, that takes so little time to collect that it may be done
// for each fiftieth that it grows by. A larger one grows by a tenth.
const small = 64 << 20

// alike is how many objects the blocks of a definition have made, in the mean, from
// where on time is no matter: who has so many of one block would wait for minutes
// for them elsewhere.
const alike = 500

// pace is how far the heap may grow.
type pace struct {
	floor  uint64 // nothing is collected below it
	growth int    // percent of what is alive, above the floor
	// planning: the command ends with a plan.
	planning bool
}

var current atomic.Pointer[pace]

// sentinel is dropped at once, so that each collection finds it.
type sentinel struct{ _ *byte }

// Begin lets the heap grow to two thirds of floor bytes before it is collected
// for the first time: by then a definition is parsed, and most of that is of no
// more use. From there it grows to floor, and above that by half of what
// is alive; where that is a multiple of Floor and floor, time counts more, and it doubles.
// Who has set GOGC knows better, and keeps it.
func Begin(floor uint64) {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(int(floor * 2 / 3 * 100 / minimum))
	if current.Swap(&pace{floor, 50, false}) == nil {
		arm()
	}
}

// Planning tells, after Begin, that a definition of so many bytes of text was
// parsed, and that the command ends with a plan of it. With a short one the heap is
// collected earlier, with a very short one still earlier and more often; and with each
// collection the program's pages are let go of that are not in use just then.
func Planning(text int) {
	now := current.Load()
	if now == nil {
		return
	}
	current.Store(&pace{now.floor, now.growth, true})
	switch {
	case text < few:
		follow(pace{min(now.floor, shortest), 10, true})
		ownpages.Drop() // else they are resident beside the first heap that is collected
	case text < long:
		follow(pace{min(now.floor, short), now.growth, true})
	}
}

// Evaluated tells, after Planning, that so many blocks made so many objects. What is
// left to do works on these: the program's pages that only the start and the
// language needed are let go of, and where most objects are alike the heap grows by
// a fiftieth from one collection to the next, or by a tenth once it is not small.
func Evaluated(objects, blocks int) {
	now := current.Load()
	if now == nil || !now.planning {
		return
	}
	if objects >= alike*blocks {
		follow(pace{min(now.floor, short), 2, true})
	}
	next()
}

// Looked tells, after Evaluated, that what is there was read, and that the plan is
// worked out next, without a server's answers and what reads them.
func Looked() {
	if now := current.Load(); now != nil && now.planning {
		next()
	}
}

// Foreseen tells, after Looked, that what the changes and faults do is worked out, and
// that the changes are put in order next.
func Foreseen() { Looked() }

// Planned tells, after Foreseen, that the plan is worked out, and is shown next, without
// what it was worked out with.
func Planned() { Looked() }

// next gives back what the part of the work before needed and the next does not.
func next() {
	ownpages.Drop()
	if current.Load().growth < 10 {
		debug.FreeOSMemory()
	}
}

func follow(p pace) {
	current.Store(&p)
	adjust()
}

func arm() {
	runtime.SetFinalizer(&sentinel{}, func(*sentinel) {
		adjust()
		if p := current.Load(); p.planning && p.floor <= short {
			ownpages.Drop() // a millisecond, for pages that are as much as a third of the heap
		}
		arm()
	})
}

func adjust() { debug.SetGCPercent(current.Load().percent(alive())) }

// alive is what the last collection left, in bytes.
func alive() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// percent of growth that leads from live to the floor, and never less than p's
// growth, a tenth where live is not small, or where live is twice the floor, and Floor, to twice as much.
func (p *pace) percent(live uint64) int {
	if live == 0 {
		return int(p.floor * 100 / minimum)
	}
	if live >= 2*max(p.floor, Floor) {
		return 100
	}
	growth := p.growth
	if live > small {
		growth = max(growth, 10)
	}
	return max(growth, (int(p.floor)-int(live))*100/int(live))
}
