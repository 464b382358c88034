package planner

import (
	"slices"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
)

// readDefinition takes the definition's objects over.
func (b *builder) readDefinition() {
	def := b.in.Definition
	b.after = *def.Spec()
	b.wanted = make([]wanted, 0, len(def.Objects))
	for i := range def.Objects {
		o := &def.Objects[i]
		b.wanted = append(b.wanted, wanted{Object: o, config: o.Value})
	}
	slices.SortStableFunc(b.wanted, func(x, y wanted) int { return addr.Compare(x.Addr, y.Addr) })
}

// onlyCluster is what most objects need.
var onlyCluster = []addr.Address{addr.Cluster()}

// hard is what an object needs. Not to be written.
func (w *wanted) hard() []addr.Address {
	if w.needs != nil {
		return w.needs
	}
	if w.Addr.Type != addr.TypeCluster && !w.Addr.IsResource() && !addr.Machinery(w.Addr.Type) {
		w.needs = slices.Clip(onlyCluster)
	}
	for _, e := range w.DependsOn {
		if e.Hard {
			w.needs = append(w.needs, e.To)
		}
	}
	return w.needs
}

// soft is what only comes before an object.
func (w *wanted) soft() []addr.Address {
	var out []addr.Address
	for _, e := range w.DependsOn {
		if !e.Hard {
			out = append(out, e.To)
		}
	}
	return out
}

// on is what an object stands on.
func (w *wanted) on() []addr.Address {
	var out []addr.Address
	for _, e := range w.DependsOn {
		if e.On {
			out = append(out, e.To)
		}
	}
	return out
}

// outputs compares the outputs with the last apply's.
func (b *builder) outputs() {
	old := b.in.State.Outputs
	seen := map[string]bool{}
	if b.in.Definition != nil && !b.destroy {
		for _, o := range b.in.Definition.Outputs {
			seen[o.Name] = true
			before, had := b.storedOutput(o.Name)
			if !had && o.Runtime && !o.Value.IsWhollyKnown() && !b.plan.Summary.Any() && (b.in.World.Live == nil || !b.in.World.Live.Quorum) {
				continue // nobody could tell an apply either
			}
			change := OutputChange{Actions: ActionCreate, Before: before, After: o.Value, Sensitive: o.Sensitive}
			switch {
			case had && o.Sensitive && b.in.State.Outputs[o.Name].Sensitive && b.sameSecret(o.Name, o.Value), had && before != cty.NilVal && same(before, o.Value),
				had && o.Runtime && before != cty.NilVal && sameKnown(before, o.Value):
				change.Actions = ActionNoOp
			case had:
				change.Actions = ActionUpdate
			}
			if change.Actions[0] != "no-op" {
				b.plan.OutputChanges[o.Name] = change
			}
		}
	}
	for name, o := range old {
		if !seen[name] {
			before, _ := b.storedOutput(name)
			b.plan.OutputChanges[name] = OutputChange{Actions: ActionDelete, Before: before, After: cty.NilVal, Sensitive: o.Sensitive}
		}
	}
}

// sameSecret tells whether a sensitive output is what it was, by its digest. One
// that is not known yet, or of which there is none, is taken for that.
func (b *builder) sameSecret(name string, v cty.Value) bool {
	was := b.in.State.Outputs[name].Digest
	if was == "" || !v.IsWhollyKnown() {
		return true
	}
	v, _ = v.UnmarkDeep()
	ty, err := ctyjson.MarshalType(v.Type())
	if err != nil {
		return true
	}
	text, err := ctyjson.Marshal(v, v.Type())
	return err != nil || b.in.State.OutputDigest(name, ty, text) == was
}

// sameKnown tells whether is may be the same as was: what it says of what the
// running cluster will only tell differs in nothing that counts.
func sameKnown(was, is cty.Value) bool {
	is, _ = is.Unmark()
	switch {
	case !is.IsKnown():
		return true
	case is.IsWhollyKnown() || was.IsNull() || is.IsNull() || !was.CanIterateElements() || !is.CanIterateElements():
		return same(was, is)
	case was.LengthInt() != is.LengthInt():
		return false
	}
	if is.Type().IsObjectType() || is.Type().IsMapType() {
		if !was.Type().IsObjectType() && !was.Type().IsMapType() {
			return false
		}
		old := was.AsValueMap()
		for name, e := range is.AsValueMap() {
			if o, ok := old[name]; !ok || !sameKnown(o, e) {
				return false
			}
		}
		return true
	}
	old, now := was.AsValueSlice(), is.AsValueSlice()
	for i := range now {
		if !sameKnown(old[i], now[i]) {
			return false
		}
	}
	return true
}

// storedOutput is an output's value as the state has it.
func (b *builder) storedOutput(name string) (cty.Value, bool) {
	o, ok := b.in.State.Outputs[name]
	if !ok {
		return cty.NilVal, false
	}
	v, err := schema.Stored(o.Type, o.Value)
	if err != nil {
		return cty.NilVal, true
	}
	return v, true
}
