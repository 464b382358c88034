package sim

import (
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// startCrashes crashes one whole node after another; each time its groups have
// to start within the plan's bound and where the failure matrix says, while no
// other group stops.
func (w *world) startCrashes() {
	until := w.now + int64(w.cfg.For-3*time.Second) // the last one is judged before all is healed
	var next func(waited time.Duration)
	next = func(waited time.Duration) {
		switch {
		case w.now > until, w.cfg.Most > 0 && w.rep.Faults >= w.cfg.Most:
			w.calm = nil
			return
		case !w.well() && waited > 15*time.Second:
			w.violate("", nil, "the cluster is not whole %v after a node is back", waited)
			return
		case !w.well():
			w.after(100*time.Millisecond, func() { next(waited + 100*time.Millisecond) })
			return
		}
		h := w.hosts[w.rng.IntN(len(w.hosts))]
		if l := w.leader(); w.chance(0.5) {
			h = l
		}
		w.rep.Faults++
		w.rep.Kinds["crash"]++
		bound := w.crash(h)
		w.after(w.between(bound, 3*time.Second), func() {
			w.calm = nil
			h.startAgent()
			for _, o := range w.hosts {
				w.ops.resume(o.nodeID) // out of quarantine
			}
			w.after(w.between(time.Second, 3*time.Second), func() { next(0) })
		})
	}
	w.after(time.Second, func() { next(0) })
}

// bound is the longest that the plan lets a group's failover take: W by a slow
// clock, the commit and the start (by the state's timings and the group's
// stop_within), the term of a leader's election if that is longer, and what the
// simulation's own delays add.
func (w *world) bound(g spec.Group) time.Duration {
	t := w.timings()
	return t.DeviceDelay() + t.TakeoverWaitWith(g.StopWithin, g.WatchdogOn(&w.hosts[0].node().Spec))*101/100 + 60*time.Millisecond + 45*time.Millisecond + 300*time.Millisecond
}

// crash kills a whole node, and judges what follows. It returns the longest
// bound of its groups.
func (w *world) crash(h *host) time.Duration {
	at, longest := w.now, time.Duration(0)
	w.calm = map[string]bool{}
	for i := range w.cfg.Groups {
		id := groupID(i)
		if !h.kernel.runs(id) {
			w.calm[id] = true
			continue
		}
		g := w.group(i)
		bound, to := w.bound(g), w.nextOwner(g, h)
		longest = max(longest, bound)
		w.after(bound, func() {
			if o := w.check.last[id]; o == nil || !o.kernel.runs(id) {
				w.violate(id, []*host{h}, "%s does not run %v after the crash of %s, the plan's bound", id, bound, h.name)
			} else if to != nil && o != to && o != h { // that was reset by its watchdog, and is back in time
				w.violate(id, []*host{h, o, to}, "%s runs on %s after the crash of %s; the plan's matrix says %s", id, o.name, h.name, to.name)
			}
		})
		var watch func()
		watch = func() {
			if o := w.check.last[id]; o != h && o.kernel.runs(id) {
				w.rep.Times = append(w.rep.Times, time.Duration(w.now-at))
			} else if time.Duration(w.now-at) < bound {
				w.after(time.Millisecond, watch)
			}
		}
		watch()
	}
	w.tell("crash of %s", h.name)
	h.killMonitors()
	h.killAgent()
	return max(longest, w.bound(w.group(0)))
}

// nextOwner is the node that a group fails over to from h by Microsoft KB
// 299631, all others being up: the next after h among its preferred owners,
// round and round.
func (w *world) nextOwner(g spec.Group, h *host) *host {
	i := slices.Index(g.PreferredOwners, h.name)
	if i < 0 || len(g.PreferredOwners) < 2 {
		return nil
	}
	next := g.PreferredOwners[(i+1)%len(g.PreferredOwners)]
	for _, o := range w.hosts {
		if o.name == next {
			return o
		}
	}
	return nil
}

// well tells whether all nodes are up and each group is online.
func (w *world) well() bool {
	l := w.leader()
	if l == nil {
		return false
	}
	s := l.agent.m.State()
	if len(s.View.Up) < len(w.hosts) {
		return false
	}
	for _, n := range s.Nodes {
		if n.Quarantine != nil {
			return false
		}
	}
	for _, g := range s.Groups {
		if g.State != spec.StateOnline {
			return false
		}
	}
	return true
}

// Failovers crashes a whole node again and again, all else being well, and
// reports how long each group took to start elsewhere, in true time.
func Failovers(cfg Config, runs int) Report {
	cfg.Crashes, cfg.Most = true, runs
	cfg.For = time.Duration(runs) * 8 * time.Second
	return Run(cfg)
}
