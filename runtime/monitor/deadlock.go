package monitor

import (
	"fmt"
	"time"

	"github.com/clusterplan/clusterplan/runtime/resource"
)

// A call into a resource that doesn't come back is a deadlock, which nothing in
// this process can end: so the process ends, and all that it hosts with it (a
// resource with separate_monitor costs no other one anything). The agent starts
// the next monitor, which cleans up. As in Cluster Service, 300 s are enough for
// any call; a start or a check that was given longer than that has that, and
// some more. Stops are not watched here: a group whose end was ordered and does
// not come costs the node its lease within seconds, but where only a script's own
// stop is in the way (runtime/core).
const (
	deadlockAfter  = 300 * time.Second
	deadlockMargin = 30 * time.Second // a call's own time-out should have ended it
)

// call watches a call that has a time-out of its own until returned is called.
func (m *monitor) call(in *instance, what string, own time.Duration) (returned func()) {
	limit := max(deadlockAfter, own+deadlockMargin)
	done := make(chan struct{})
	timer := time.AfterFunc(limit, func() {
		select {
		case m.reports <- report{in: in, hung: fmt.Sprintf("%s has not come back for %s", what, limit)}:
		case <-done:
		}
	})
	return func() {
		timer.Stop()
		close(done)
	}
}

// callsOf says how each call of a resource that is online is watched.
func (m *monitor) callsOf(in *instance, res *resource.Resource) func(what string) func() {
	return func(what string) func() { return m.call(in, what, res.CheckTimeout()) }
}

// deadlocked is why the monitor ends.
func deadlocked(r report) error {
	return fmt.Errorf("a deadlock: resource %s of group %s: %s; all that this monitor hosts ends with it", r.in.ref.Resource, r.in.group.name, r.hung)
}
