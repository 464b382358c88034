package core

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// failbackDue tells whether a group that failure took from home may go back
// now: by its mode, once its home has been up and the group where it is for
// the delay, and within its window. The best home that is up decides: one
// behind it is not taken for as long as that one only has to wait.
func (m *Machine) failbackDue(g *confdb.Group) bool {
	fb := g.Spec.Failback
	mode := fb.Mode
	if mode == "" && m.state.Cluster.Configuration == spec.HotSpare {
		mode = spec.FailbackImmediate
	}
	if mode != spec.FailbackImmediate && mode != spec.FailbackWindow || g.State != spec.StateOnline {
		return false
	}
	since := m.homeSince(g)
	if since == 0 {
		return false
	}
	// Since it came, at the latest: a node that was up all along is no better
	// the moment after.
	came := m.now.Add(-max(m.wallNow().Sub(g.Owner.Since), 0))
	if at := max(since, came).Add(fb.Delay.D()); m.now < at {
		earliest(&m.lead.manageAt, at)
		return false
	}
	if mode == spec.FailbackImmediate {
		return true
	}
	open, next := m.window(fb)
	if !open && next > 0 {
		earliest(&m.lead.manageAt, m.now.Add(min(next, windowCheck)))
	}
	return open
}

// homeSince is since when the best home of a group that it is not at has been
// up; 0: there is none.
func (m *Machine) homeSince(g *confdb.Group) spec.Instant {
	homes := g.Spec.PreferredOwners
	if len(homes) == 0 {
		homes = []string{m.state.NodeName(g.HomeFrom)}
	}
	for _, name := range homes {
		id := m.nodeID(name)
		if id == "" || m.failedOn(g, id) {
			continue
		}
		if id == g.Owner.Node {
			return 0 // it is as far home as it can be
		}
		if since := m.upSince(id); since != 0 {
			return since
		}
	}
	return 0
}

// upSince is since when a node has been up; 0: it isn't.
func (m *Machine) upSince(id string) spec.Instant {
	if id == m.cfg.Node {
		return m.lead.selfUp
	}
	if p := m.peers[m.nodeServer(id)]; p != nil {
		return p.upSince
	}
	return 0
}

// noHomes are the nodes that a group may not fail back to where its best home lets it,
// should it not be had there: those where it failed, and preferred owners that have not
// been up for the delay.
func (m *Machine) noHomes(g *confdb.Group) []string {
	var out []string
	for _, id := range g.FailedOn {
		if m.failedOn(g, id) {
			out = append(out, m.state.NodeName(id))
		}
	}
	for _, name := range g.Spec.PreferredOwners {
		since := m.upSince(m.nodeID(name))
		if at := since.Add(g.Spec.Failback.Delay.D()); since != 0 && m.now < at {
			earliest(&m.lead.manageAt, at)
			out = append(out, name)
		}
	}
	return out
}

// failedOn tells whether a group itself failed on a node that has not come up
// anew since, within its failover period: to go back there would be to fail
// once more.
func (m *Machine) failedOn(g *confdb.Group, node string) bool {
	_, failed := slices.BinarySearch(g.FailedOn, node)
	return failed && m.failovers(g) > 0
}

// windowCheck is how long a window that is shut is believed to stay so: the
// time of day may be set.
const windowCheck = 10 * time.Minute

// window tells whether the clock on the wall shows a time in "22:00-04:00"
// now, and if not, how long it is until it does at the latest. Where a clock
// is put back, the hour that comes twice counts twice; what lies wholly in the
// hour that it is put forward over does not open that day.
func (m *Machine) window(fb spec.Failback) (open bool, next time.Duration) {
	from, to, ok := strings.Cut(fb.Window, "-")
	a, okA := minuteOfDay(from)
	b, okB := minuteOfDay(to)
	if !ok || !okA || !okB {
		return false, 0
	}
	now := m.wallNow()
	if fb.Timezone != "" && m.cfg.Location != nil {
		loc, err := m.cfg.Location(fb.Timezone)
		if err != nil {
			return false, 0 // validate has refused it; to guess an hour would be worse
		}
		now = now.In(loc)
	}
	if t := now.Hour()*60 + now.Minute(); a <= b && a <= t && t < b || a > b && (t >= a || t < b) {
		return true, 0
	}
	for day := range 3 {
		at := time.Date(now.Year(), now.Month(), now.Day()+day, a/60, a%60, 0, 0, now.Location())
		if wait := at.Sub(now); wait > 0 {
			return false, wait
		}
	}
	return false, 0
}

func minuteOfDay(s string) (int, bool) {
	h, min, ok := strings.Cut(strings.TrimSpace(s), ":")
	hour, err1 := strconv.Atoi(h)
	minute, err2 := strconv.Atoi(min)
	return hour*60 + minute, ok && err1 == nil && err2 == nil && hour >= 0 && hour < 24 && minute >= 0 && minute < 60
}
