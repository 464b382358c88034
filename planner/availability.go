package planner

import (
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// startEstimate is how long a program that starts at once takes to its first
// answer (runtime.md: 10 to 45 ms).
const startEstimate = 45 * time.Millisecond

// startBound is the estimate for a group: an address is probed for before it is
// added, others beside it.
func startBound(g *spec.Group) time.Duration {
	var probe time.Duration
	for i := range g.Resources {
		probe = max(probe, g.Resources[i].Probe())
	}
	return startEstimate + probe
}

// commitBound is how long a decision takes to reach its node: up to a frame,
// and a commit.
func commitBound(t spec.Timings) time.Duration {
	if t.DeviceIO != 0 { // written and read back
		return t.Interval.D() + 2*t.DeviceIO.D()
	}
	return t.Interval.D() + 10*time.Millisecond
}

// failoverTimes are the groups' worst failover times, term by term: the
// takeover wait, the new owner's commit, its start. Groups that do not fail
// over by themselves have none.
func failoverTimes(def spec.Definition) []FailoverTime {
	out := make([]FailoverTime, 0, len(def.Groups))
	if def.Cluster.Quorum.Model == spec.SingleNode {
		return out
	}
	t := def.Cluster.Timings()
	for i := range def.Groups {
		g := &def.Groups[i]
		if g.Failover.Mode == spec.FailoverNone || g.Failover.Mode == spec.FailoverManual {
			continue
		}
		s := g.StopWithin.D()
		if s == 0 {
			s = t.StopWithin.D()
		}
		terms := FailoverTerms{
			Lease: ms(t.Lease.D()), StopWithin: ms(s), Kill: ms(t.Kill.D()),
			Commit: ms(commitBound(t)), Start: ms(startBound(g)),
		}
		watchdog := watchdogBound(&def, g)
		terms.Watchdog = ms(watchdog.D())
		wait := ms(t.TakeoverWaitWith(spec.Duration(s), watchdog))
		terms.Drift = wait - terms.Lease - terms.StopWithin - terms.Kill - terms.Watchdog
		terms.Device = ms(t.DeviceDelay())
		wait += terms.Device
		// Where some owners have a fence and the others a watchdog: the longer one.
		fence := ms(fenceBound(&def, g))
		fenced := g.OutlivesLease() && fence > 0 && (def.Covered(g) || def.Guarded(g) && fence > terms.Watchdog)
		if fenced {
			// It waits for a fence: which begins when the node is suspected and no
			// older leader's lease counts, and is committed before the new owner is.
			terms = FailoverTerms{
				Lease: ms(t.Lease.D()), Fence: fence, Device: terms.Device, Commit: 2 * terms.Commit, Start: terms.Start,
			}
			terms.Drift = ms(max(spec.StretchRho(t.Lease.D()), t.Suspicion.D())) - terms.Lease
			wait = terms.Lease + terms.Drift + terms.Fence + terms.Device
		}
		out = append(out, FailoverTime{
			Group: g.Addr, WorstMS: wait + terms.Commit + terms.Start,
			Exclusive: len(g.NotHeld()) == 0 || def.Guarded(g), NotHeld: g.NotHeld(), Terms: terms,
		})
	}
	chain(&def, out)
	return out
}

// sinceBefore notes in times what was before.
func sinceBefore(times, before []FailoverTime) {
	was := make(map[addr.Address]*FailoverTime, len(before))
	for i := range before {
		was[before[i].Group] = &before[i]
	}
	for i := range times {
		t := &times[i]
		if w := was[t.Group]; w != nil {
			worst := w.WorstMS
			t.Same = t.WorstMS == w.WorstMS && t.Exclusive == w.Exclusive && t.Terms == w.Terms && slices.Equal(t.NotHeld, w.NotHeld)
			t.BeforeMS = &worst
		}
	}
}

// chain adds what groups wait for those that they depend on. Both may die with one
// node: a group gets its owner only once what it depends on is known to be online.
func chain(def *spec.Definition, times []FailoverTime) {
	if !slices.ContainsFunc(def.Groups, func(g spec.Group) bool { return len(g.DependsOn) > 0 }) {
		return
	}
	at := make(map[addr.Address]*FailoverTime, len(times))
	for i := range times {
		at[times[i].Group] = &times[i]
	}
	byName := make(map[string]*spec.Group, len(def.Groups))
	for i := range def.Groups {
		byName[def.Groups[i].Name] = &def.Groups[i]
	}
	told := ms(commitBound(def.Cluster.Timings()))
	done := make(map[addr.Address]bool, len(times))
	var worst func(g *spec.Group) int64
	worst = func(g *spec.Group) int64 {
		t := at[g.Addr]
		if t == nil {
			return 0 // it waits for an operator or its node: nothing bounds that
		}
		if done[g.Addr] {
			return t.WorstMS
		}
		done[g.Addr] = true // a cycle was refused by validate; harmless here
		for _, name := range g.DependsOn {
			d := byName[name]
			if d == nil {
				continue
			}
			if below := worst(d); below > 0 {
				ready := t.WorstMS - t.Terms.Commit - t.Terms.Start
				if more := below + told - ready; more > 0 {
					t.Terms.Depends += more
					t.WorstMS += more
				}
			}
		}
		return t.WorstMS
	}
	for i := range def.Groups {
		worst(&def.Groups[i])
	}
}

// watchdogBound is the longest that a takeover of the group waits for a watchdog.
func watchdogBound(def *spec.Definition, g *spec.Group) spec.Duration {
	var longest spec.Duration
	for i := range def.Nodes {
		if n := &def.Nodes[i]; g.MayOwn(*n) {
			longest = max(longest, g.WatchdogOn(n))
		}
	}
	return longest
}

// fenceBound is the longest that fencing one of a group's possible owners takes.
func fenceBound(def *spec.Definition, g *spec.Group) time.Duration {
	fences := make([]*spec.Fence, len(def.Fences))
	for i := range def.Fences {
		fences[i] = &def.Fences[i]
	}
	var longest time.Duration
	for _, n := range def.Nodes {
		if g.MayOwn(n) {
			longest = max(longest, spec.FenceBound(spec.FenceLevels(fences, n.Name)))
		}
	}
	return longest
}

// ms rounds up.
func ms(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

// moveBound is the longest that a move may keep a group down: its resources
// stop one after the other as their dependencies say, each within its
// stop_timeout; then the new owner is agreed on, and starts.
func moveBound(g *spec.Group, t spec.Timings) int64 {
	t = t.WithDefaults()
	return ms(g.StopBound() + t.Kill.D() + commitBound(t) + startBound(g))
}

// FailoverTimesOf is the worst failover time of each group of a definition that
// fails over by itself.
func FailoverTimesOf(def spec.Definition) []FailoverTime { return failoverTimes(def) }
