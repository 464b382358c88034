package planner

import (
	"slices"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// compare plans an object that is there and is wanted.
func (b *builder) compare(it *item) {
	requested := slices.Contains(b.in.Replace, it.addr())
	if requested && it.addr() == addr.Cluster() {
		b.fail(it, "The cluster can't be replaced", "All nodes, groups and certificates hang on its identity. To begin anew, destroy it and apply; to make a node anew, name the node.")
		requested = false
	}
	if it.same && !requested && b.trigger[it]+b.under[it] == "" {
		it.change.Actions = ActionNoOp
		return
	}
	c, s := it.change, b.shapes[it.want.Type]
	resp := providers.PlanResponse{Planned: it.want.config}
	if !it.addr().IsResource() {
		var ok bool
		if resp, ok = b.ask(it, it.prior, it.want.config); !ok {
			resp.Planned = it.want.config
		}
	}
	it.phases = resp.Phases
	c.Actions = ActionNoOp
	equal := same(it.prior.Value, resp.Planned)
	words := slices.Clone(resp.Drift)
	for _, h := range it.prior.Health {
		if !slices.Contains(words, h) {
			words = append(words, h)
		}
	}
	otherType := it.old != nil && it.old.Type != it.want.Type
	tainted := it.old != nil && it.old.Tainted != ""
	if equal && len(words) == 0 && len(resp.Phases) == 0 && !it.partial && !otherType && !tainted && !requested && b.trigger[it]+b.under[it] == "" {
		return // Before and After of a no-op are left out: nothing is to be shown, and there are many
	}
	if it.partial || b.mayHaveLeft(it) {
		b.goOn(it)
	}
	c.Before = it.veil(likeMarks(s.guard(it.prior.Value), it.want.config))
	c.After = s.guard(likeMarks(resp.Planned, it.want.config))
	if !equal {
		c.Attributes = b.differ.diff(s, c.Before, c.After, b.attributes(it))
	}
	c.Impact = resp.Impact
	changed := slices.ContainsFunc(c.Attributes, func(a AttributeChange) bool { return a.Cause == CauseDefinition })
	var drifted []string
	for i := range c.Attributes {
		a := &c.Attributes[i]
		c.Impact = stronger(c.Impact, a.Impact)
		computed := s.attrs[a.Path].Computed
		switch {
		case computed && (changed || len(resp.Replace) > 0):
			a.Cause = CauseDefinition // it follows from what the definition changes
		case computed && len(words) > 0:
			// the words say it better
		case a.Cause == CauseDrift:
			drifted = append(drifted, a.Path)
		}
	}
	for _, path := range resp.Replace {
		c.ReplacePaths = append(c.ReplacePaths, schema.PathString(path))
	}
	for _, a := range c.Attributes {
		if a.Impact == spec.ImpactReplace && !slices.Contains(c.ReplacePaths, a.Path) {
			c.ReplacePaths = append(c.ReplacePaths, a.Path)
		}
	}
	switch {
	case otherType:
		c.Reason, c.ReplacePaths = ReasonCannotUpdate, []string{"type"}
		c.Why = append(c.Why, "type: forces replacement")
	case b.under[it] != "": // its own attributes, as an address, follow from that
		c.Reason, c.Why = ReasonStandsOn, append(c.Why, b.under[it])
	case len(c.ReplacePaths) > 0:
		c.Reason = ReasonCannotUpdate
		for _, p := range c.ReplacePaths {
			c.Why = append(c.Why, p+": forces replacement")
		}
	case tainted:
		c.Reason, c.Why = ReasonTainted, append(c.Why, "an earlier apply left it broken: "+it.old.Tainted)
	case requested:
		c.Reason, c.Why = ReasonRequested, append(c.Why, "asked for")
	case b.trigger[it] != "":
		c.Reason, c.Why = ReasonTriggered, append(c.Why, b.trigger[it]+" changes: replace_triggered_by")
	case it.partial: // also where nothing is left to do: the state has to learn of it
		c.Reason, c.Actions = ReasonCutOff, ActionCreate
		c.Why = append(c.Why, "an apply was cut off before it was done")
	case changed:
		c.Reason, c.Actions = ReasonChanged, ActionUpdate
	case len(drifted)+len(resp.Phases) > 0:
		c.Reason, c.Actions = ReasonDrifted, ActionUpdate
	}
	if slices.Contains([]string{ReasonCannotUpdate, ReasonTainted, ReasonRequested, ReasonTriggered, ReasonStandsOn}, c.Reason) {
		it.want.config = it.want.Value // it is made by what the definition says
		c.Actions, c.Impact = ActionDeleteThenCreate, spec.ImpactReplace
		b.replace(it)
		if !it.addr().IsResource() && !oneCall(it.addr()) { // what is worked out anew, too
			c.Attributes = b.differ.diff(s, c.Before, c.After, b.attributes(it))
			for i := range c.Attributes {
				if a := &c.Attributes[i]; s.attrs[a.Path].Computed {
					a.Cause = CauseDefinition
				}
			}
		}
	}
	for _, w := range slices.Concat(words, drifted) {
		c.Why = append(c.Why, "drifted: "+w)
	}
	c.Phases = slices.Concat(it.remove, it.phases)
	if len(words) > 0 || len(drifted) > 0 {
		b.drift(it, false, words, drifted)
	}
}

// veil marks what was sensitive when it was applied, whatever the definition
// says of it now, or where it says nothing any more.
func (it *item) veil(v cty.Value) cty.Value {
	if it.old == nil || len(it.old.Sensitive) == 0 || v == cty.NilVal {
		return v
	}
	u, marks := v.Unmark()
	if !u.IsKnown() || u.IsNull() || !u.Type().IsObjectType() {
		return v
	}
	attrs := u.AsValueMap()
	for _, name := range it.old.Sensitive {
		e, ok := attrs[name]
		switch {
		case !ok:
		case e.ContainsMarked() && it.want != nil:
			attrs[name] = veilElements(e, attribute(it.want.config, name))
		default:
			attrs[name] = e.Mark(schema.Sensitive)
		}
	}
	return cty.ObjectVal(attrs).WithMarks(marks)
}

// veilElements marks the elements of a value some of which is sensitive, but for
// those that like has in the open: which were sensitive before, nobody knows.
func veilElements(v, like cty.Value) cty.Value {
	if v.IsMarked() || !v.IsKnown() || v.IsNull() || !v.CanIterateElements() {
		return v.Mark(schema.Sensitive)
	}
	like, _ = like.Unmark()
	known := like != cty.NilVal && like.IsKnown() && !like.IsNull() && like.Type().IsMapType() == v.Type().IsMapType() && like.CanIterateElements()
	out, _ := cty.Transform(v, func(path cty.Path, e cty.Value) (cty.Value, error) {
		if len(path) != 1 {
			return e, nil
		}
		if known {
			if l, err := path.Apply(like); err == nil && l.RawEquals(e) && !e.ContainsMarked() {
				return e, nil
			}
		}
		return e.Mark(schema.Sensitive), nil
	})
	return out
}
