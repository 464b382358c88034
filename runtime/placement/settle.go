package placement

import (
	"cmp"
	"slices"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Settle is the package's Settle, with the named nodes down as well.
func (b *Board) Settle(down ...string) []Outcome {
	b.reset(down)
	// What leaves a place late may make room for one that found none, so the
	// rest is asked again until nothing moves; each round places one at least.
	// What was shed may shed in turn, always what counts less than itself.
	for range len(b.groups)*len(b.groups) + 1 {
		moved := false
		for _, g := range b.order {
			if !b.settled[g] && b.settle(g) {
				moved = true
			}
		}
		if !moved {
			break
		}
	}
	for i := range b.out {
		if n := b.at[i]; n != none {
			b.out[i].To = b.nodes[n].Spec.Name
		}
	}
	return slices.Clone(b.out)
}

// settle decides on one group and tells whether it changed its place.
func (b *Board) settle(g int) bool {
	grp, out := &b.groups[g], &b.out[g]
	done := func(state, why string) bool {
		b.settled[g] = true
		out.State, out.Why = state, why
		return false
	}
	here := b.at[g]
	switch {
	case !b.wanted(grp):
		return done(spec.StateOffline, WhyOffline)
	case grp.LeftFailed:
		return done(spec.StateFailed, WhyLeftFailed)
	case out.Why == WhyShed:
		return b.start(g, WhyShed)
	case here != none && grp.Failed:
		switch grp.Spec.Failover.Mode {
		case spec.FailoverNone:
			return done(spec.StateFailed, WhyNoFailover)
		case spec.FailoverManual:
			return done(spec.StateFailed, WhyManual)
		}
		return b.start(g, WhyFailover)
	case here != none:
		return b.leave(g)
	case grp.Owner != "" && grp.Spec.Failover.Mode == spec.FailoverNone:
		return done(spec.StateOffline, WhyNoFailover)
	case grp.Owner != "" && grp.Spec.Failover.Mode == spec.FailoverManual && !grp.Move:
		return done(spec.StateOffline, WhyManual)
	case grp.Owner == "" && grp.Spec.Priority == 0 && !grp.Asked:
		return done(spec.StateOffline, WhyPriorityZero)
	case grp.Owner == "" && grp.Last == "":
		return b.start(g, WhyFirstStart)
	}
	return b.start(g, WhyFailover)
}

// leave looks at a group that runs well, and may have to go elsewhere.
func (b *Board) leave(g int) bool {
	grp, out, here := &b.groups[g], &b.out[g], b.at[g]
	out.State, out.Why = spec.StateOnline, WhyStays
	reason := ""
	drained := b.nodes[here].Drained && grp.Spec.Failover.Mode != spec.FailoverNone
	switch {
	case !b.possible[g][here]:
		reason = WhyNotPossible
	case grp.Move:
		reason = WhyMove
	case drained:
		reason = WhyDrain
	case grp.Failback:
		reason = WhyFailback
	}
	if reason == "" || !b.dependenciesOnline(g) {
		return false
	}
	to := none
	if reason == WhyMove && grp.MoveTo != "" {
		if n, ok := b.byNode[grp.MoveTo]; ok && n != here {
			b.lift(g)
			if _, not := b.fits(g, n); not == "" {
				to = n
			}
			b.place(g, here)
		}
	} else {
		to, _ = b.choose(g, reason)
	}
	if to == none && reason == WhyMove && drained {
		// Where it was to go it can't any more (that node is drained as well, or has
		// no room left): from here it has to go all the same.
		reason = WhyDrain
		to, _ = b.choose(g, reason)
	}
	if to == none && (reason == WhyDrain || reason == WhyNotPossible) {
		to = b.shedFor(g, reason)
	}
	if to == none {
		return false
	}
	b.lift(g)
	b.place(g, to)
	b.settled[g] = true
	out.Why = reason
	return true
}

// start finds a place for a group that has none, or failed where it is.
func (b *Board) start(g int, reason string) bool {
	out := &b.out[g]
	failedHere := b.at[g] != none
	out.State = spec.StateOffline
	if failedHere {
		out.State = spec.StateFailed
	}
	if !b.dependenciesOnline(g) {
		if reason != WhyShed {
			out.Why = WhyDependency
		}
		return false
	}
	to, why := none, ""
	if grp := &b.groups[g]; grp.Move && grp.MoveTo != "" {
		// Where an operator wants it, if that is possible.
		if n, ok := b.byNode[grp.MoveTo]; ok && n != b.at[g] {
			if _, not := b.fits(g, n); not == "" {
				to, why = n, reason
			}
		}
	}
	if to == none {
		to, why = b.choose(g, reason)
	}
	if to == none {
		if to = b.shedFor(g, reason); to != none {
			why = reason
		}
	}
	if reason != WhyShed {
		out.Why = why
	}
	if to == none {
		return false
	}
	b.lift(g)
	b.place(g, to)
	b.settled[g] = true
	out.State = spec.StateOnline
	return true
}

// dependenciesOnline: what is started is started only once these are online.
func (b *Board) dependenciesOnline(g int) bool {
	for _, d := range b.deps[g] {
		// One that failed and stays where it is holds a place without being online.
		if b.at[d] == none || b.out[d].State != spec.StateOnline {
			return false
		}
	}
	return true
}

// shedFor makes room for g at the first candidate where groups of lower rank
// take up enough, lifts those (the lowest first, as few as do) and returns the
// node; none if there is no such candidate.
func (b *Board) shedFor(g int, reason string) int {
	for _, n := range b.candidates(g, reason) {
		if _, not := b.fits(g, n); not != WhyNoRoom || b.isApart(g, n) {
			continue
		}
		var lower []int
		for _, other := range b.here[n] {
			if b.rank[other] < b.rank[g] && other != g {
				lower = append(lower, other)
			}
		}
		slices.SortFunc(lower, func(x, y int) int {
			return cmp.Or(cmp.Compare(b.rank[x], b.rank[y]), cmp.Compare(b.groups[x].Spec.Name, b.groups[y].Spec.Name))
		})
		shed := 0
		for shed < len(lower) && !b.hasRoom(g, n) {
			b.lift(lower[shed])
			shed++
		}
		if !b.hasRoom(g, n) {
			for _, other := range lower[:shed] {
				b.place(other, n)
			}
			continue
		}
		for _, other := range lower[:shed] {
			// One that takes nothing away from what g lacks may stay after all.
			b.place(other, n)
			if b.hasRoom(g, n) {
				continue
			}
			b.lift(other)
			b.settled[other] = false
			b.out[other].State, b.out[other].Why = spec.StateOffline, WhyShed
		}
		return n
	}
	return none
}

func (b *Board) isApart(g, n int) bool {
	for _, other := range b.apart[g] {
		if b.at[other] == n {
			return true
		}
	}
	return false
}
