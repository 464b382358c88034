package planner

import (
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/runtime/quorum"
)

// tally counts votes while the steps are gone through.
type tally struct {
	model  spec.QuorumModel
	voters map[addr.Address]*voter
	silent map[addr.Address]bool // nodes that can't be reached: nothing brings them up
	anew   map[addr.Address]bool // nodes that start as other servers, which vote once they are promoted
	lowest int
}

type voter struct {
	votes  int
	up     bool
	has    bool // the cluster's database, as far as anybody knows
	memory bool // its agent has, which forgets it when it ends: its data directory was removed
}

// tally is the votes as they are now.
func (b *builder) tally() *tally {
	t := &tally{model: b.model(), voters: b.voters(), silent: map[addr.Address]bool{}, anew: map[addr.Address]bool{}}
	for _, it := range b.items {
		if slices.Contains(it.phases, providers.PhaseJoin) {
			t.anew[it.addr()] = true
		}
		if it.silent && it.addr().Type == addr.TypeNode && !b.comesBack(it) {
			t.silent[it.addr()] = true
		}
	}
	for a, v := range t.voters {
		it := b.at.At(a)
		v.has = true
		if it == nil || it.prior == nil {
			continue
		}
		switch found := func(h string) bool {
			return slices.ContainsFunc(it.prior.Health, func(have string) bool { return strings.HasPrefix(have, h) })
		}; {
		case found(providers.HealthServer): // what answers is another
			v.has = false
		case found(providers.HealthGone):
			v.memory = found(providers.HealthHomeless)
			v.has = v.memory
		case found(providers.HealthNoData):
			v.memory = !found(providers.HealthNotRunning)
			v.has = v.memory
		}
	}
	_, t.lowest = t.count()
	return t
}

// copies are the votes of those that have the cluster's database. Fewer than a quorum
// needs, and it is lost: nobody can tell what was committed, nor elect a leader.
func (t *tally) copies() int {
	n := 0
	for _, v := range t.voters {
		if v.has {
			n += v.votes
		}
	}
	return n
}

func (t *tally) count() (votes, up int) {
	for _, v := range t.voters {
		votes += v.votes
		if v.up {
			up += v.votes
		}
	}
	return votes, up
}

func (t *tally) needed() int {
	votes, _ := t.count()
	if votes == 0 {
		return 0
	}
	return quorum.Needed(t.model, votes)
}

// begin is what a phase takes away as it is done. It tells whether that is a vote.
func (t *tally) begin(a addr.Address, phase string) bool {
	v := t.voters[a]
	if v != nil && phase == providers.PhaseStop && v.memory {
		v.has, v.memory = false, false
	}
	switch {
	case v == nil:
	case phase == providers.PhaseStop && v.up:
		v.up = false
		return v.votes > 0
	case phase == providers.PhaseLeave || phase == providers.PhaseDemote:
		delete(t.voters, a)
		return v.votes > 0
	}
	return false
}

// end is what a phase has brought once it is done.
func (t *tally) end(u *Unit, phase string) {
	v := t.voters[u.Key.Addr]
	switch phase {
	case providers.PhaseStart:
		if v != nil && !t.silent[u.Key.Addr] && !t.anew[u.Key.Addr] {
			v.up = true
		}
	case providers.PhasePromote:
		if t.silent[u.Key.Addr] {
			break
		}
		if v != nil {
			v.up = v.up || t.anew[u.Key.Addr]
			v.has = v.has || t.copies() >= t.needed() // else there is none that it could get
		} else if u.gives > 0 {
			t.voters[u.Key.Addr] = &voter{votes: u.gives, up: true, has: true}
		}
	}
}

// play does all of a unit.
func (t *tally) play(u *Unit) {
	for _, phase := range slices.Concat(u.Remove, u.Phases) {
		t.begin(u.Key.Addr, phase)
		t.end(u, phase)
	}
}

// voters are the members that vote now and whether they are up.
func (b *builder) voters() map[addr.Address]*voter {
	out := map[addr.Address]*voter{}
	byID := map[string]*item{}
	for _, it := range b.items {
		if it.addr().Type == addr.TypeNode && it.id != "" {
			byID[it.id] = it
		}
	}
	if live := b.in.World.Live; live != nil {
		for _, m := range live.Members {
			a := m.Spec.Addr
			down := false
			if it := byID[m.Spec.ID]; it != nil {
				a, down = it.addr(), b.down(it) || !live.Quorum && b.hung(it)
			}
			// In a majority who votes counts, also where its settings have no vote
			// any more: taking it away was cut off.
			votes := m.Spec.Votes
			if b.model() == spec.MajorityNodeSet {
				votes = 1
			}
			if m.State != "voter" || votes == 0 {
				continue
			}
			up := m.Node == spec.NodeUp || m.Node == spec.NodePaused
			if !live.Quorum {
				up = up || m.Node == spec.NodeUnknown
			}
			out[a] = &voter{votes: votes, up: up && !down}
		}
		return out
	}
	for _, it := range b.items {
		if it.addr().Type == addr.TypeNode && it.old != nil && !it.partial {
			if votes := votesOf(it); votes > 0 {
				out[it.addr()] = &voter{votes: votes, up: it.prior != nil && !b.down(it) && !b.hung(it)}
			}
		}
	}
	return out
}

// stayingVotes are the votes of a cluster that a first apply had formed before it
// was cut off: of nodes that stay, and that none of the joins is of.
func (o *orderer) stayingVotes() int {
	if o.fresh {
		return 0
	}
	have := 0
	for a := range o.voters() {
		if it := o.at.At(a); it != nil && it.want != nil && o.units[Key{a, StageJoin}] == nil {
			have++
		}
	}
	return have
}
