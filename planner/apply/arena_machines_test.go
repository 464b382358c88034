package apply_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner/plannertest"
	"github.com/clusterplan/clusterplan/providers"
)

// arenaMachines is the hypervisor that the arena's nodes stand on: those whose
// addresses are a machine's.
type arenaMachines struct {
	registry *providers.Registry
	a        *arena
}

func (p *arenaMachines) real() providers.Provider {
	real, err := p.registry.Provider("hypervisor")
	if err != nil {
		panic(err)
	}
	return real
}

func (p *arenaMachines) Schema() providers.Schema                 { return p.real().Schema() }
func (p *arenaMachines) Configure(cty.Value, providers.Env) error { return nil }
func (p *arenaMachines) Close() error                             { return nil }
func (p *arenaMachines) Plan(req providers.PlanRequest) (providers.PlanResponse, error) {
	return p.real().Plan(req)
}
func (p *arenaMachines) Read(ctx context.Context, req providers.ReadRequest) (providers.ReadResponse, error) {
	return p.real().Read(ctx, req)
}
func (p *arenaMachines) Import(ctx context.Context, req providers.ImportRequest) (providers.ImportResponse, error) {
	return p.real().Import(ctx, req)
}

// Apply does to the simulated nodes what becomes of their machine.
func (p *arenaMachines) Apply(ctx context.Context, req providers.ApplyRequest) (providers.ApplyResponse, error) {
	a := p.a
	deletes := req.Phase == providers.PhaseDelete
	if req.Type == addr.TypeMachine && req.Prior != nil && (deletes || plannertest.Reboots(req.Prior.Value, req.Planned)) {
		a.do(func() {
			a.sim.Tell(fmt.Sprintf("apply: %s %s", req.Addr, req.Phase))
			for _, id := range ids(a.machines) {
				m := a.machines[id]
				if !m.value.GetAttr("address").RawEquals(req.Prior.Value.GetAttr("address")) {
					continue
				}
				if a.sim.Runs(id) {
					a.under(fmt.Sprintf("%s: %s under %s, which runs", req.Addr, req.Phase, m.addr))
					a.sim.Crash(id)
				}
				if m.lost = false; deletes {
					a.sim.Discard(id)
					delete(a.machines, id)
				}
			}
		})
	}
	return p.real().Apply(ctx, req)
}

// Nodes that stand on machines, of which some are made anew, some reboot, and some
// nodes go to another one: the quorum is kept all the same, no machine is taken
// from under an agent that runs, and what the plan said of votes and interruptions
// holds.
func TestNeverWithoutQuorumOnMachines(t *testing.T) {
	count := max(1, *quorumTrials*2/3)
	if *quorumFresh > 0 {
		count = *quorumFresh
	}
	seeds := make([]uint64, count)
	for i := range seeds {
		if seeds[i] = uint64(i + 1); *quorumFresh > 0 {
			seeds[i] = rand.Uint64()>>24 + 1_000_000
		}
	}
	if *quorumFresh == 0 {
		// Three nodes are drained at once: what one of them was to give to the next has
		// to go to a third, and not to start once more where it was.
		seeds = append(seeds, 351026141178)
		// The only agent that starts has a membership in its log that it has not applied.
		seeds = append(seeds, 441515541018)
		// The leader gives its vote up, undrained, just after another one was started.
		seeds = append(seeds, 554525039240)
		// The leader was drained, and the next one has not heard of it yet.
		seeds = append(seeds, 790278188428)
		// A group changes while its best owner, started a moment ago, is not up yet: it
		// goes twice.
		seeds = append(seeds, 215157038384)
		// A node gets a vote that the others need, and is still asking what it has missed.
		seeds = append(seeds, 860703357222)
		// What is drained is to go to a node whose former life's lease is not over yet.
		seeds = append(seeds, 343386305658)
		// Without quorum: a group can't go to a node that is down, and leaves first.
		seeds = append(seeds, 74977871185)
		// Two fail back at once, each to where the other one was.
		seeds = append(seeds, 47417621630)
		// Three are drained at once: what one of them was to give to a node comes back, for
		// another's group went there, and stops with it.
		seeds = append(seeds, 955815565572)
		// The only node that groups prefer is down and leaves first: they have no preference
		// any more as others are drained.
		seeds = append(seeds, 215268176256)
		// Three nodes of one batch go, the first of them last.
		seeds = append(seeds, 338234487364)
		// A group that was drained past a node with what it is softly kept apart from does
		// not fail back to that.
		seeds = append(seeds, 726655597197)
		// Two give their votes up at once, the leader among them: it hands over to the other.
		seeds = append(seeds, 229513275574)
		// A node that is down gives its vote up and starts, in one batch with one whose groups
		// could go to it.
		seeds = append(seeds, 497640181323, 1077263961801)
	}
	if *quorumSeed != 0 {
		seeds = []uint64{*quorumSeed}
	}
	kinds, machines := map[string]int{}, 0
	for _, s := range seeds {
		v, err := try(t, &trial{seed: s, standing: true})
		if err != nil {
			t.Error(err)
		}
		kinds[v.kind]++
		machines += v.machines
	}
	t.Logf("%d trials: %v, %d machines made anew", len(seeds), kinds, machines)
	if len(seeds) >= 20 && (machines < len(seeds)/8 || kinds["applied"] < len(seeds)/3) {
		t.Error("too tame to prove anything")
	}
}
