package apply_test

import (
	"fmt"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/runtime/quorum"

	rt "github.com/clusterplan/clusterplan/runtime/confdb"
)

var zero = cty.Zero

// Looks, by the simulation's clock.
const (
	lookGroups = time.Millisecond
	lookVotes  = 20 * time.Millisecond
	// electionWait is the longest that nobody leads with a majority up: a split
	// election or two, and the first commit.
	electionWait = 3 * time.Second
	// comesBack is how soon after its start a group may start again that waited for
	// its node: the owner goes on, and is made the owner anew.
	comesBack = time.Second
	// graceMS is what a measured interruption may be longer by: the looks.
	graceMS = 3
)

// watched follows an apply: votes and groups.
type watched struct {
	tr      *trial
	plan    *planner.Plan
	had     bool // a quorum
	over    bool
	cut     bool          // a step failed
	leads   time.Duration // when somebody led last
	groups  []*served
	trips   int
	used    map[int]bool // steps
	single  bool
	minimum int
}

// served is a group that ran when the plan was made.
type served struct {
	id       string
	addr     addr.Address
	atLeast  int   // resources that run in it before and after
	bound    int64 // ms, by the plan
	down, up time.Duration
	isDown   bool
	times    int
	longest  time.Duration
}

func (tr *trial) watch(p *planner.Plan) *watched {
	a := tr.arena
	w := &watched{tr: tr, plan: p, used: map[int]bool{}, single: tr.def.model != spec.MajorityNodeSet}
	a.do(func() {
		all, up := a.votes()
		w.had = up >= quorum.Needed(tr.def.model, all) && all > 0
		w.minimum = up
		w.leads = a.sim.Now()
		state, _, _ := a.copyOf()
		if state == nil {
			state = &rt.State{} // nobody answers
		}
		for _, id := range ids(state.Groups) {
			g := state.Groups[id]
			after := 0
			for _, d := range tr.def.groups {
				if addr.Group(d.name, addr.NoKey) == g.Spec.Addr {
					after = d.resources
				}
			}
			if n := min(len(g.Spec.Resources), after); n > 0 && g.State == spec.StateOnline && w.serves(id, n) {
				one := &served{id: id, addr: g.Spec.Addr, atLeast: n}
				for _, v := range p.Availability {
					if v.Group == one.addr {
						one.bound = v.MaxMS
					}
				}
				w.groups = append(w.groups, one)
			}
		}
		a.sim.Every(lookGroups, w.lookGroups)
		a.sim.Every(lookVotes, w.lookVotes)
	})
	a.after = w.step
	return w
}

func (w *watched) serves(id string, atLeast int) bool {
	for _, n := range w.tr.arena.sim.Running(id) {
		if n >= atLeast {
			return true
		}
	}
	return false
}

func (w *watched) lookGroups() {
	if w.over {
		return
	}
	now := w.tr.arena.sim.Now()
	for _, g := range w.groups {
		switch up := w.serves(g.id, g.atLeast); {
		case !up && !g.isDown:
			if g.isDown = true; g.bound < 0 && g.times > 0 && now-g.up < comesBack {
				continue // it comes back with its node: that is one
			}
			g.down, g.times = now, g.times+1
		case up && g.isDown:
			g.isDown, g.up = false, now
			g.longest = max(g.longest, now-g.down)
		}
	}
}

func (w *watched) lookVotes() {
	if w.over {
		return
	}
	a := w.tr.arena
	all, up := a.votes()
	w.minimum = min(w.minimum, up)
	enough := all > 0 && up >= quorum.Needed(w.tr.def.model, all)
	if w.had && !enough {
		w.tr.fail("the quorum is lost: %d of %d votes are up", up, all)
		w.over = true
	}
	w.had = w.had || enough
	switch {
	case a.sim.Leader() != "" || !enough || !w.had:
		w.leads = a.sim.Now()
	case a.sim.Now()-w.leads > electionWait*time.Duration(1+7*b2i(w.single)):
		w.tr.fail("%d of %d votes are up, and nobody has led for %s", up, all, electionWait)
		w.over = true
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// step compares the votes after a phase with the plan's step.
func (w *watched) step(_ string, s spanned) {
	w.cut = w.cut || s.err != nil
	if w.over || w.cut || w.single {
		return // once a step has failed the votes are no more what they were to be
	}
	all, up := w.tr.arena.votes()
	for i := range w.plan.Steps {
		p := &w.plan.Steps[i]
		if w.used[i] || p.Address != s.addr || p.Phase != s.phase {
			continue
		}
		w.used[i] = true
		parallel := s.phase == providers.PhaseStart || s.phase == providers.PhaseInstall // many at once
		if up < p.Up && !parallel {
			w.tr.fail("step %d, %s %s: %d votes are up, the plan said %d", p.N, p.Address, p.Phase, up, p.Up)
		}
		if need := quorum.Needed(w.tr.def.model, all); p.Up >= p.Needed && need != p.Needed && up < need && !parallel {
			w.tr.fail("step %d, %s %s: %d votes are up and %d needed, the plan said %d and %d", p.N, p.Address, p.Phase, up, need, p.Up, p.Needed)
		}
		return
	}
	w.tr.fail("%s %s is no step of the plan", s.addr, s.phase)
}

// end judges the interruptions.
func (w *watched) end() {
	now := w.tr.arena.sim.Now()
	if w.over {
		return
	}
	w.over = true
	if q := w.plan.Quorum; q != nil && !w.single && !w.cut && w.minimum < q.Lowest {
		w.tr.fail("%d votes were up at the least, the plan said %d", w.minimum, q.Lowest)
	}
	for _, g := range w.groups {
		if g.isDown {
			g.longest = max(g.longest, now-g.down)
		}
		w.trips += g.times
		times, most, why := 0, int64(0), ""
		for _, v := range w.plan.Availability {
			if v.Group == g.addr {
				times, most, why = v.Interruptions, v.MaxMS, v.Why
			}
		}
		if g.times > times {
			w.tr.fail("%s was interrupted %d times, the plan said %d (%s)", g.addr, g.times, times, why)
		} else if most >= 0 && g.longest > time.Duration(most+graceMS)*time.Millisecond {
			w.tr.fail("%s was down for %s, the plan said %d ms at most (%s)", g.addr, g.longest, most, fmt.Sprint(why))
		}
	}
}
