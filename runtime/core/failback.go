package core

import (
	"strconv"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// failbackDue tells whether a group that failure took from home may go back
// now: by its mode, its window, and once its home has been up long enough.
func (m *Machine) failbackDue(g *confdb.Group) bool {
	fb := g.Spec.Failback
	mode := fb.Mode
	if mode == "" && m.state.Cluster.Configuration == spec.HotSpare {
		mode = spec.FailbackImmediate
	}
	if mode != spec.FailbackImmediate && mode != spec.FailbackWindow || g.State != spec.StateOnline {
		return false
	}
	homes := g.Spec.PreferredOwners
	if len(homes) == 0 {
		homes = []string{m.state.NodeName(g.HomeFrom)}
	}
	stable := false
	for _, name := range homes {
		id := m.nodeID(name)
		if id == "" || id == g.Owner.Node {
			break // it is as far home as it can be
		}
		since := m.lead.selfUp
		if id != m.cfg.Node {
			since = 0
			if p := m.peers[m.nodeServer(id)]; p != nil {
				since = p.upSince
			}
		}
		if since == 0 {
			continue
		}
		if at := since.Add(fb.Delay.D()); m.now < at {
			earliest(&m.lead.manageAt, at)
			continue
		}
		stable = true
		break
	}
	if !stable || mode == spec.FailbackImmediate {
		return stable
	}
	if m.inWindow(fb) {
		return true
	}
	earliest(&m.lead.manageAt, m.now.Add(20*time.Second))
	return false
}

// inWindow tells whether the time of day lies in "22:00-04:00".
func (m *Machine) inWindow(fb spec.Failback) bool {
	from, to, ok := strings.Cut(fb.Window, "-")
	a, okA := minuteOfDay(from)
	b, okB := minuteOfDay(to)
	if !ok || !okA || !okB {
		return false
	}
	now := m.wallNow()
	if fb.Timezone != "" && m.cfg.Location != nil {
		if loc, err := m.cfg.Location(fb.Timezone); err == nil {
			now = now.In(loc)
		}
	}
	t := now.Hour()*60 + now.Minute()
	if a <= b {
		return a <= t && t < b
	}
	return t >= a || t < b
}

func minuteOfDay(s string) (int, bool) {
	h, min, ok := strings.Cut(strings.TrimSpace(s), ":")
	hour, err1 := strconv.Atoi(h)
	minute, err2 := strconv.Atoi(min)
	return hour*60 + minute, ok && err1 == nil && err2 == nil && hour >= 0 && hour < 24 && minute >= 0 && minute < 60
}
