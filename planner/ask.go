package planner

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/providers"
)

// sequence is the order of the phases that bring a node or the cluster about.
var sequence = []string{
	providers.PhaseDrain, providers.PhaseDemote, providers.PhaseStop, providers.PhaseInstall, providers.PhaseStart,
	providers.PhaseBootstrap, providers.PhaseJoin, providers.PhaseUpdate, providers.PhasePromote, providers.PhaseResume,
}

// oneCall tells whether an object comes and goes by one write to the cluster's
// database, without phases.
func oneCall(a addr.Address) bool { return a.Type == addr.TypeGroup || a.Type == addr.TypeFence }

// goOn adds what a cut-off create has not done yet, where the provider does
// not ask for it by itself.
func (b *builder) goOn(it *item) {
	if it.addr().IsResource() || oneCall(it.addr()) {
		return
	}
	var done []string
	if it.old != nil {
		done = it.old.Phases
	}
	if b.mayHaveLeft(it) {
		it.change.Why = append(it.change.Why, "an apply was cut off as it took it away: it may have left the cluster")
		if len(done) == 0 {
			done = Outside
		}
		done = slices.DeleteFunc(slices.Clone(done), func(p string) bool { return p == providers.PhaseJoin || p == providers.PhasePromote })
	}
	whole, ok := b.ask(it, nil, it.want.config)
	if !ok {
		return
	}
	if addr.Machinery(it.addr().Type) { // which finishes what was begun
		it.phases = whole.Phases
		return
	}
	rest := slices.Clone(it.phases)
	for _, p := range whole.Phases {
		if !slices.Contains(done, p) && !slices.Contains(rest, p) {
			rest = append(rest, p)
		}
	}
	inSequence(rest)
	it.phases = rest
}

// mayHaveLeft tells whether an apply was cut off as it took a node away, and no cluster
// that can commit tells whether it is a member still. One that is may join: it stays
// what it is.
func (b *builder) mayHaveLeft(it *item) bool {
	p, live := b.pending[it.addr()], b.in.World.Live
	return it.addr().Type == addr.TypeNode && it.old != nil && p != nil && (p.Action == "delete" || p.Action == "replace") &&
		(p.Object == nil || p.Object.ID == it.old.ID) && (live == nil || !live.Quorum)
}

// inSequence puts phases into the order of sequence.
func inSequence(phases []string) {
	slices.SortStableFunc(phases, func(a, b string) int { return slices.Index(sequence, a) - slices.Index(sequence, b) })
}

// replace asks for the phases of the way out and of the way back in.
func (b *builder) replace(it *item) {
	if it.addr().IsResource() || oneCall(it.addr()) {
		return
	}
	if out, ok := b.ask(it, it.prior, cty.NilVal); ok {
		it.remove = out.Phases
	}
	if in, ok := b.ask(it, nil, it.want.config); ok {
		it.phases = in.Phases
		it.change.After = b.shapes[it.want.Type].guard(likeMarks(in.Planned, it.want.config))
	}
}

// ask is the provider's Plan. Marks are ours: providers never see them.
func (b *builder) ask(it *item, prior *providers.Object, config cty.Value) (providers.PlanResponse, bool) {
	name, typ := "", it.change.Type
	switch {
	case it.want != nil:
		name = it.want.Provider
	case it.old != nil:
		name = it.old.Provider
	default:
		name = b.pending[it.addr()].Object.Provider
	}
	if config == cty.NilVal && it.old != nil {
		name = it.old.Provider // it goes where it is
	}
	p, err := b.in.Providers.Provider(name)
	if err != nil {
		b.fail(it, "No such provider", err.Error()+".")
		return providers.PlanResponse{}, false
	}
	resp, err := p.Plan(providers.PlanRequest{Addr: it.addr(), Type: typ, Prior: prior, Config: unmark(config)})
	if err != nil {
		b.fail(it, "Can't plan "+it.addr().String(), Sentence(err.Error()))
		return providers.PlanResponse{}, false
	}
	return resp, true
}

func (b *builder) fail(it *item, summary, detail string) {
	d := problem(hcl.DiagError, summary, detail)
	if it.want != nil {
		d.Subject = it.want.Range().Ptr()
	}
	b.diags = append(b.diags, d)
}

// protect refuses to delete or replace what prevent_destroy protects. Of an object
// that the definition has, its block says so; of any other, what was applied last.
func (b *builder) protect(it *item) {
	action := it.change.Action()
	if action != "delete" && action != "replace" {
		return
	}
	switch {
	case it.want != nil && it.want.PreventDestroy:
		b.fail(it, it.addr().String()+" may not be destroyed",
			"Its lifecycle says prevent_destroy. Take that out, or leave the object as it is.")
	case it.want == nil && it.old != nil && it.old.PreventDestroy:
		b.fail(it, it.addr().String()+" may not be destroyed",
			"Its lifecycle said prevent_destroy at the last apply, which holds also now that its block is gone, and for a destroy. To have it destroyed, take prevent_destroy out of its block and apply that first. To have it go on without being managed, take its block out and write a removed block with from = "+it.addr().String()+" and destroy = false.")
	}
}

func (b *builder) drift(it *item, gone bool, words, paths []string) {
	what := slices.Clone(words)
	for _, p := range paths {
		what = append(what, p+" differs")
	}
	if gone {
		what = append(what, "gone")
	}
	b.plan.Drift = append(b.plan.Drift, Drift{
		Address: it.addr(), Type: it.change.Type, Gone: gone, What: what, Paths: orEmpty(paths), Actions: it.change.Actions,
	})
}

// Sentence begins with a capital letter and ends with a full stop.
func Sentence(s string) string {
	if s == "" {
		return s
	}
	s = strings.ToUpper(s[:1]) + s[1:]
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}
