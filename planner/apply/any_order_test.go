package apply_test

import (
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/runtime/quorum"
)

// anyOrder looks for an order of the plan's changes to nodes that keeps the
// quorum at each step, whatever the planner thinks: every one is tried. nil:
// there is none.
func (tr *trial) anyOrder(p *planner.Plan) []string {
	type piece struct {
		name, node string
		votes      int // that the node is to have
		phases     []string
		after      int // pieces that come before it
	}
	var pieces []piece
	start := map[string]bool{} // voters, and whether they are up
	lost, may := map[string]bool{}, 0
	for _, u := range p.Unreachable {
		lost[u.Address.String()] = true
	}
	tr.arena.do(func() {
		state, st, _ := tr.arena.copyOf()
		if state == nil {
			return
		}
		for _, n := range state.Nodes {
			if slices.Contains(st.Driver.Voters, n.ServerID) {
				start[n.Spec.Addr.String()] = tr.arena.sim.Runs(n.Spec.ID)
			}
		}
	})
	first := []string{providers.PhaseInstall, providers.PhaseStart}
	for i := range p.Changes {
		c := &p.Changes[i]
		if c.Address.Type != addr.TypeNode || c.Action() == "no-op" {
			continue
		}
		votes := 0
		if slices.Contains([]string{"create", "update", "replace"}, c.Action()) && !c.After.GetAttr("votes").RawEquals(zero) {
			votes = 1
		}
		name := c.Address.String()
		if up, voter := start[name]; voter && !up && !lost[name] && c.Action() == "delete" {
			may |= 1 << len(pieces)
			pieces = append(pieces, piece{name + " starts, to leave", name, 1, []string{providers.PhaseStart}, 0})
		}
		if madeAnew(p, c.Address) {
			k := slices.Index(c.Phases, providers.PhaseDrain)
			pieces = append(pieces, piece{name + " anew joins", name + " anew", votes, c.Phases[:k], 0})
			pieces = append(pieces, piece{name + " leaves", name, 0, c.Phases[k : len(c.Phases)-1], 1 << (len(pieces) - 1)})
			continue
		}
		n := 0
		for n < len(c.Phases) && slices.Contains(first, c.Phases[n]) {
			n++
		}
		if n > 0 {
			pieces = append(pieces, piece{name + " starts", name, votes, c.Phases[:n], 0})
		}
		if n < len(c.Phases) {
			pieces = append(pieces, piece{name + " " + strings.Join(c.Phases[n:], " "), name, votes, c.Phases[n:], 0})
		}
	}
	seen := map[int]bool{}
	all := 1<<len(pieces) - 1
	var search func(done int, voters map[string]bool, order []string) []string
	search = func(done int, voters map[string]bool, order []string) []string {
		if done|may == all {
			return order
		}
		if seen[done] {
			return nil
		}
		seen[done] = true
	next:
		for i, one := range pieces {
			if done&(1<<i) != 0 || done&one.after != one.after {
				continue
			}
			after := map[string]bool{}
			for n, up := range voters {
				after[n] = up
			}
			enough := func() bool {
				up := 0
				for _, u := range after {
					if u {
						up++
					}
				}
				return up >= quorum.Needed(tr.def.model, len(after))
			}
			for _, phase := range one.phases {
				up, voter := after[one.node]
				switch phase {
				case providers.PhaseInstall:
				case providers.PhaseStart:
					if voter && !lost[one.node] {
						after[one.node] = true
					}
				case providers.PhaseStop:
					if voter {
						after[one.node] = false
					}
					if voter && up && !enough() {
						continue next
					}
				case providers.PhaseLeave, providers.PhaseDemote:
					delete(after, one.node)
					if voter && !enough() {
						continue next
					}
				case providers.PhasePromote:
					if one.votes > 0 && !lost[one.node] {
						after[one.node] = true
					}
				case providers.PhaseRemove:
				default:
					if !enough() {
						continue next
					}
				}
			}
			if got := search(done|1<<i, after, append(slices.Clone(order), one.name)); got != nil {
				return got
			}
		}
		return nil
	}
	return search(0, start, []string{})
}
