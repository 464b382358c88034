package planner

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/graph"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// A refresh-only plan does nothing to any object: the state takes over what is
// there (read), and forgets what is gone (forget). The definition does not
// matter, but for where its providers look.

// reread decides what the state learns of one object.
func (b *builder) reread(it *item) {
	c := it.change
	c.Actions = ActionNoOp
	switch {
	case it.left:
	case it.old == nil && it.prior != nil: // in one of our groups, and nobody's
		b.drift(it, false, []string{"not in the state"}, nil)
	case it.old == nil || it.silent || len(it.old.Phases) > 0:
	case it.prior == nil:
		c.Actions, c.Reason, c.Why = ActionForget, ReasonGone, []string{"it is gone"}
		c.Before = it.veil(b.shapes[c.Type].guard(b.attributes(it)))
		b.drift(it, true, nil, nil)
	default:
		b.takeOver(it)
	}
}

// takeOver compares an object with what the state says of it.
func (b *builder) takeOver(it *item) {
	c, s := it.change, b.shapes[it.old.Type]
	words := it.prior.Health
	var paths []string
	applied := b.attributes(it)
	if it.prior.Value != cty.NilVal && !same(applied, it.prior.Value) {
		before, after := it.veil(s.guard(applied)), it.veil(s.guard(it.prior.Value))
		c.Attributes = b.differ.diff(s, before, after, cty.NilVal)
		for i := range c.Attributes {
			c.Attributes[i].Cause, c.Attributes[i].Impact = CauseDrift, spec.ImpactNone
			paths = append(paths, c.Attributes[i].Path)
			c.Why = append(c.Why, "drifted: "+c.Attributes[i].Path)
		}
		if len(paths) > 0 {
			c.Actions, c.Reason, c.Before, c.After = ActionRead, ReasonDrifted, before, after
			b.remember = true
		}
	}
	if len(words)+len(paths) > 0 {
		b.drift(it, false, words, paths)
	}
}

// rereadWork is what an apply does of a refresh-only plan: it writes the state.
func (b *builder) rereadWork() {
	w := &Work{Graph: graph.New[Key](), Rereads: true}
	for _, it := range b.items {
		switch {
		case it.left || it.silent || it.old == nil || len(it.old.Phases) > 0:
		case it.change.Action() == "forget":
			w.Gone = append(w.Gone, it.addr())
		case it.prior != nil && it.prior.Value != cty.NilVal:
			w.Kept = append(w.Kept, Kept{it.addr(), it.prior.Value, it.old.PreventDestroy, it.old.Sensitive, it.old.DependsOn})
		}
	}
	if len(b.in.Pending) > 0 {
		b.diags = append(b.diags, problem(hcl.DiagError, "An apply did not come to its end",
			"What it had begun is not known to the state for sure, so there is nothing yet to compare. Apply first: it goes on from there, and settles this."))
	}
	b.plan.work = w
	if b.in.State.Cluster == nil || b.at.At(addr.Cluster()) == nil {
		return
	}
	t := tally{model: b.model(), voters: b.voters()}
	votes, up := t.count()
	b.plan.Quorum = &Quorum{Model: b.model(), Votes: votes, Needed: t.needed(), Lowest: up}
}
