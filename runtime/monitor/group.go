package monitor

import (
	"maps"
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// group is a group as the monitor's loop sees it.
type group struct {
	id, name   string
	epoch      uint64 // the newest that was seen
	stopWithin time.Duration
	within     time.Duration        // stopWithin and the kill's time
	live       map[string]*instance // by resource name; until nothing is left of one
	waiting    []Start              // starts that wait until something is gone
	ends       []uint64             // epochs of End orders that wait for their Down
	ending     bool                 // all of it is being stopped
	unasked    bool                 // without an order: the lease or the monitor ends
	killAt     spec.Instant         // when stopping for want of a lease; 0: not so
}

// defaultStopWithin is for starts that name no span.
const defaultStopWithin = 100 * time.Millisecond

// killMargin is how long before the end of stop_within the rest of a group is
// killed, so that it is down when the kernel's timer would kill the monitor.
func (g *group) killMargin() time.Duration {
	return min(max(g.stopWithin/5, 10*time.Millisecond), time.Second, g.stopWithin)
}

// wait puts a start off until something is gone; a newer one for the same
// resource replaces it.
func (g *group) wait(s Start) {
	g.dropWaiting(func(w Start) bool { return w.Resource.Name == s.Resource.Name })
	g.waiting = append(g.waiting, s)
}

func (g *group) dropWaiting(drop func(Start) bool) {
	g.waiting = slices.DeleteFunc(g.waiting, drop)
}

// lives tells whether something lives under the epoch e or an older one.
func (g *group) lives(e uint64) bool {
	for _, in := range g.live {
		if in.ref.Epoch <= e {
			return true
		}
	}
	return false
}

// stoppable are the instances of an ending group whose turn has come: nothing
// that lives depends on them. In name order.
func (g *group) stoppable() []*instance {
	var out []*instance
	moving := false // something is on its way down
	for _, id := range slices.Sorted(maps.Keys(g.live)) {
		in := g.live[id]
		if in.stopping || in.failed {
			moving = true
			continue
		}
		if !g.neededBy(in) {
			out = append(out, in)
		}
	}
	if len(out) == 0 && !moving {
		// A circle, which no valid definition has: all at once.
		return slices.Collect(maps.Values(g.live))
	}
	return out
}

// neededBy tells whether a living instance depends on in.
func (g *group) neededBy(in *instance) bool {
	for _, other := range g.live {
		if other != in && (slices.Contains(other.spec.DependsOn, in.spec.Name) || slices.Contains(other.spec.DependsOnAny, in.spec.Name)) {
			return true
		}
	}
	return false
}
